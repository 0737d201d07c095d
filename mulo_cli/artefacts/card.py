"""The card of an artefact: what the numbers beside it are, and where they come from."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mulo_cli.errors import ArtefactError

FORMAT = 1
"""Version of the artefact's layout; a reader refuses those it does not know."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Card:
    """Everything needed to rebuild a meta-learned optimizer, and to judge it.

    Attributes:
        name: how people call it.
        architecture: name in the catalogue of learned optimizers.
        settings: the architecture's configuration, every formula variant included.
        parametrization: "mup" or "sp": how networks must be parametrized that it trains.
        fan_in: what multipliers are made of: "absolute" is muLO's 1/fan_in.
        meta_parameters: how many numbers theta has.
        checksum: of theta (see `tree_checksum`).
        last_checksum: of the theta after the last meta-step, kept beside the best one.
        recipe: the resolved recipe it was meta-trained with.
        recipe_digest: SHA-256 of all settings with an effect.
        training: summary of the meta-training; `selected_by` says why this theta was kept.
        licence: of theta; "unknown" is allowed, a guess is not.
        code_version: of this package when it was written.
    """

    name: str
    architecture: str
    settings: Mapping[str, Any]
    parametrization: Literal["mup", "sp"]
    fan_in: Literal["absolute"]
    meta_parameters: int
    checksum: str
    last_checksum: str
    recipe: Mapping[str, Any]
    recipe_digest: str
    training: Mapping[str, Any]
    licence: str
    code_version: str
    format: int = FORMAT


def to_json(card: Card) -> str:
    """Return the card as readable JSON."""
    return json.dumps(dataclasses.asdict(card), indent=2) + "\n"


def read_card(path: Path) -> Card:
    """Read and check a card.

    Raises:
        ArtefactError: missing, not JSON, of another format, or lacking something.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        if values.get("format") != FORMAT:
            raise ArtefactError(
                f"{str(path)!r} has format {values.get('format')!r}, this version reads {FORMAT}",
                "use the version of mulo that wrote it (see `code_version` in the card)",
            )
        return TypeAdapter(Card).validate_python(values)
    except OSError as error:
        raise ArtefactError(
            f"cannot read {str(path)!r}: {error.strerror}",
            "give a run directory that has finished, or an artefact directory",
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ArtefactError(
            f"{str(path)!r} is not a card: {error}", "the artefact is damaged; write it again"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtefactError(
            f"{str(path)!r} is not a card: {first['loc'][0]}: {first['msg']}",
            "the artefact is damaged; write it again",
        ) from error
