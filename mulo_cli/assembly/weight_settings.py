"""What a foreign file cannot tell: its formula's constants, its parametrization, its decays.

They are given by the user or assumed by the file's source; the card says which.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from mulo_cli.artefacts.card import LICENCE_UNKNOWN
from mulo_cli.artefacts.foreign.architectures import SIZES, Recognition
from mulo_cli.artefacts.foreign.files import ForeignFile
from mulo_cli.artefacts.foreign.pylo import (
    DECAYS,
    RELEASED_MULO,
    decays_as_arrays,
)
from mulo_cli.bounded_files import read_bounded
from mulo_cli.errors import ArtefactError, UsageError, shortened
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.schema import Parametrization
from mulo_cli.recipes.toml_files import parse_toml

Assumptions = tuple[Parametrization, Mapping[str, Any]]


GOOGLE_VELO: Assumptions = (
    "sp",
    {"interpolation_scale": 100.0, "parameter_scale": True, "loss_feature_horizon": 10},
)


ASSUMED: Mapping[tuple[str, str], Assumptions] = {
    ("small_fc_lopt", "flax msgpack"): ("sp", {"step_size": 0.001}),
    ("small_fc_lopt", "VeLO container"): ("sp", {"step_size": 0.001}),
    ("small_fc_lopt", "pickle"): ("mup", {"step_size": 0.01, "clip_gradients": True}),
    ("small_fc_lopt", "PyLO safetensors"): ("mup", {"step_size": 0.01}),
    ("small_fc_lopt", "safetensors"): ("mup", {"step_size": 0.01}),
    ("velo", "flax msgpack"): GOOGLE_VELO,
    ("velo", "VeLO container"): GOOGLE_VELO,
    ("velo", "pickle"): ("mup", {}),
    ("velo", "safetensors"): ("mup", {}),
}
"""Parametrization and settings by architecture and container: those of the published code that
writes such files (learned_optimization, Google's VeLO, the muLO code, PyLO)."""


INITIAL = {name: (0.0,) * number for name, number in DECAYS.items()}


NAMED_DECAYS = {"released-mulo": RELEASED_MULO, "initial": INITIAL}


LARGEST_TEXT = 2**20
"""Bytes of a notice, or of a file of decays."""


@dataclass(frozen=True)
class Given:
    """What a user says about a file that the file cannot.

    Attributes:
        name: of the artefact; the file's if None.
        parametrization: None assumes that of the source.
        settings: of the architecture, `key=value` each.
        decays: `released-mulo`, `initial` or a TOML file, for files of PyLO.
        licence: of the weights.
        notice_file: holds the licence's notice.
    """

    name: str | None = None
    parametrization: Parametrization | None = None
    settings: Sequence[str] = ()
    decays: str | None = None
    licence: str = LICENCE_UNKNOWN
    notice_file: Path | None = None


@dataclass(frozen=True)
class Choice:
    """Settings of an import, and where each comes from."""

    parametrization: Parametrization
    settings: Mapping[str, Any]
    read: tuple[str, ...]
    given: tuple[str, ...]
    assumed: tuple[str, ...]


def settle(file: ForeignFile, recognised: Recognition, given: Given) -> Choice:
    """Decide every setting: shapes come first, then the user, the file's own note, the source."""
    architecture = recognised.architecture or ""
    config = LEARNED_OPTIMIZERS[architecture].config
    parametrization, source = ASSUMED[architecture, file.container]
    noted = dict(file.own["settings"]) if file.own else {}
    said = _said(given.settings, architecture)
    settings = {**source, **noted, **said, **recognised.sizes}
    for key, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{key} = {value} is not a finite number", "give another one")
    try:
        full = dataclasses.asdict(config(**settings))
    except (ValidationError, TypeError) as error:
        text = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        where = ".".join(map(str, text.get("loc", ())))
        raise UsageError(
            f"settings of {architecture}: {where} {text['msg']}".replace("  ", " "),
            f"known are: {', '.join(full_names(architecture))}",
        ) from error
    if file.own:
        parametrization = file.own["parametrization"]
    chosen = given.parametrization or parametrization
    if chosen not in ("mup", "sp"):
        raise ArtefactError(
            f"{file.name!r} notes an unknown parametrization {shortened(chosen)}",
            "give --parametrization mup or sp",
        )
    told = (*noted, "parametrization") if file.own else ()
    by_user = (*said, *(["parametrization"] if given.parametrization else []))
    known = {*recognised.sizes, *by_user, *told}
    return Choice(
        parametrization=chosen,
        settings=full,
        read=(*recognised.sizes, *(k for k in told if k not in (*recognised.sizes, *by_user))),
        given=by_user,
        assumed=tuple(key for key in ("parametrization", *full) if key not in known),
    )


def full_names(architecture: str) -> list[str]:
    """Return the settings of an architecture that an import may be given."""
    fields = dataclasses.fields(LEARNED_OPTIMIZERS[architecture].config)
    return [field.name for field in fields if field.name not in SIZES[architecture]]


def _said(overrides: Sequence[str], architecture: str) -> dict[str, Any]:
    """Return what --set says."""
    found: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise UsageError(
                f"--set {shortened(text)} is not of the form key=value",
                "for example --set step_size=0.001",
            )
        if key in SIZES[architecture]:
            raise UsageError(f"--set {key}: the file tells it", "leave it away")
        if key not in full_names(architecture):
            raise UsageError(
                f"{architecture} has no setting {shortened(key)}",
                nearest_hint(key, full_names(architecture)),
            )
        try:
            found[key] = parse_toml(f"value = {value}")["value"]
        except ValueError:
            found[key] = value
    return found


def with_decays(file: ForeignFile, wanted: str | None) -> tuple[Mapping[str, np.ndarray], str]:
    """Return all leaves, and where the decays come from."""
    if file.container != "PyLO safetensors":
        if wanted is not None:
            raise UsageError(
                f"--decays is for files of PyLO; {file.name!r} ({file.container}) has its own",
                "leave it away",
            )
        return file.arrays, "in the file"
    if wanted is None and file.own is not None:
        values, origin = file.own["decays"], "in the file's metadata"
    else:
        wanted = wanted or "released-mulo"
        values, origin = NAMED_DECAYS.get(wanted), wanted
        if values is None:
            values, origin = _toml(Path(wanted)), f"file {Path(wanted).name}"
    return {**file.arrays, **decays_as_arrays(values, f"decays ({origin})")}, origin


def _toml(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(small_text(path, "--decays"))
    except ValueError as error:
        raise UsageError(
            f"--decays {str(path)!r} is not TOML: {str(error).splitlines()[0]}",
            'for example momentum_decays = [0.0, 0.0, 0.0], or --decays "released-mulo"',
        ) from error


def small_text(path: Path, option: str) -> str:
    """Return a text that a user names."""
    try:
        return read_bounded(path, LARGEST_TEXT).decode("utf-8")
    except OSError as error:
        raise UsageError(
            f"{option} {str(path)!r} cannot be read: {error.strerror}",
            f"known are: {', '.join(NAMED_DECAYS)}, or a TOML file"
            if option == "--decays"
            else "give a text file",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {str(path)!r} is not text", "give a text file") from error
