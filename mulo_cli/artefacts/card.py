"""The card of an artefact: what the numbers beside it are, and where they come from."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mulo_cli.artefacts.parity import Parity
from mulo_cli.bounded_files import read_bounded
from mulo_cli.errors import ArtefactError, shortened

FORMAT = 2
"""Version of the artefact's layout; a reader refuses those it does not know."""

LARGEST = 16 * 2**20
"""Bytes of a card; one has some 5 000."""

META_TRAINING = "meta-training"
"""Origin of a theta that this program has learned."""

ADDED = {
    1: {"parity": None, "notice": "", "source": {"container": META_TRAINING}},
    FORMAT: {},
}
"""What cards of older formats lack, by format."""

LICENCE_UNKNOWN = "unknown"

_NUMBER = r"(?:-?\d[-+.\deE]*|null)"
_NUMBERS = re.compile(rf"\[\n\s*({_NUMBER}(?:,\n\s*{_NUMBER})*)\n\s*\]")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Card:
    """Everything needed to rebuild a meta-learned optimizer, and to judge it.

    Attributes:
        name: how people call it.
        architecture: name in the catalogue of learned optimizers.
        settings: the architecture's configuration, every formula variant included.
        parametrization: "mup" or "sp": how networks must be parametrized that it trains.
        fan_in: what multipliers are made of: "absolute", muLO's 1/fan_in, or "relative" to
            `base_fan_in` of the settings.
        meta_parameters: how many numbers theta has.
        checksum: of theta (see `tree_checksum`).
        last_checksum: of the theta after the last meta-step, kept beside the best one; None for
            an imported one.
        recipe: the resolved recipe it was meta-trained with; None if that is not known.
        recipe_digest: SHA-256 of all settings with an effect.
        training: summary of the meta-training; `selected_by` says why this theta was kept.
        licence: of theta; "unknown" is allowed, a guess is not.
        code_version: of this package when it was written.
        parity: what theta must make of a fixed input; None: not known, hence not checked.
        notice: the licence's notice, word for word.
        source: where theta comes from: `container`, and for an imported one the file, its
            SHA-256, and which settings were read, given or assumed.
    """

    name: str
    architecture: str
    settings: Mapping[str, Any]
    parametrization: Literal["mup", "sp"]
    fan_in: Literal["absolute", "relative"]
    meta_parameters: int
    checksum: str
    last_checksum: str | None
    recipe: Mapping[str, Any] | None
    recipe_digest: str | None
    training: Mapping[str, Any]
    licence: str
    code_version: str
    parity: Parity | None
    notice: str
    source: Mapping[str, Any]
    format: int = FORMAT


def fan_in_of(settings: Mapping[str, Any]) -> Literal["absolute", "relative"]:
    """Return what update multipliers are made of."""
    return "absolute" if settings.get("base_fan_in", 1) == 1 else "relative"


def to_json(card: Card) -> str:
    """Return the card as readable JSON, a list of numbers on one line."""
    text = json.dumps(dataclasses.asdict(card), indent=2)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def read_card(path: Path) -> Card:
    """Read and check a card.

    Raises:
        ArtefactError: missing, not JSON, of another format, lacking or contradicting something.
    """
    try:
        values = json.loads(_text(path))
        if type(values.get("format")) is not int or values["format"] not in ADDED:
            raise ArtefactError(
                f"{str(path)!r} has format {shortened(values.get('format'))}, this version reads "
                f"{' and '.join(map(str, ADDED))}",
                "use the version of mulo that wrote it (see `code_version` in the card)",
            )
        card = TypeAdapter(Card).validate_python(ADDED[values["format"]] | values)
    except OSError as error:
        raise ArtefactError(
            f"cannot read {str(path)!r}: {error.strerror}",
            "give a run directory that has finished, or an artefact directory",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][:2]))
        raise _no_card(path, f"{where}: {first['msg']}") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise _no_card(path, str(error).splitlines()[0]) from error
    if card.fan_in != fan_in_of(card.settings):
        raise _no_card(path, f"fan_in is {card.fan_in!r}, its settings say otherwise")
    return card


def _text(path: Path) -> str:
    return read_bounded(path, LARGEST).decode("utf-8")


def _no_card(path: Path, why: str) -> ArtefactError:
    return ArtefactError(
        f"{str(path)!r} is not a card: {why}", "the artefact is damaged; write it again"
    )
