"""Weights of other projects made into artefacts of ours, described, and written for PyLO.

What a file cannot tell (constants of the formula, parametrization) is given by the user or assumed
by its source; the card says which.
"""

import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from mulo_cli.artefacts.card import LICENCE_UNKNOWN, Card, fan_in_of
from mulo_cli.artefacts.foreign.architectures import SIZES, Recognition, count, recognise, to_theta
from mulo_cli.artefacts.foreign.files import ForeignFile, read_foreign
from mulo_cli.artefacts.foreign.pylo import (
    DECAYS,
    RELEASED_MULO,
    decays_as_arrays,
    to_pylo,
    write_note,
)
from mulo_cli.artefacts.foreign.safetensors_file import to_safetensors
from mulo_cli.artefacts.parity import compute_parity
from mulo_cli.artefacts.store import CARD, save_artefact
from mulo_cli.artefacts.trees import named_leaves, reason, tree_checksum
from mulo_cli.assembly.learned import (
    load_and_measure,
    load_learned_optimizer,
    make_learned_optimizer,
)
from mulo_cli.errors import ArtefactError, OutputError, UsageError, shortened
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.schema import Parametrization
from mulo_cli.results.environment import code_version
from mulo_cli.types import Theta

Kind = Literal["weights", "import", "export"]
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
class Tensor:
    """One leaf of a file; least, largest: of its finite numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    least: float | None
    largest: float | None
    finite: bool


@dataclass(frozen=True)
class WeightsReport:
    """What a file or an artefact holds.

    Attributes:
        name: of the file or directory, without its folder.
        container: what kind of file it is; "artefact" for one of ours.
        bytes: of the file; None for a directory.
        sha256: of the file; None for a directory.
        architecture: name of ours; None if it resembles none.
        importable: whether `mulo weights import` would take it.
        complaints: why not.
        sizes: settings that its shapes tell.
        numbers: how many it has.
        notes: what else it says, or what its card says.
        licence: what the file says; files of other projects say nothing.
        tensors: its leaves.
    """

    name: str
    container: str
    bytes: int | None
    sha256: str | None
    architecture: str | None
    importable: bool
    complaints: tuple[str, ...]
    sizes: Mapping[str, int]
    numbers: int
    notes: Mapping[str, Any]
    licence: str
    tensors: tuple[Tensor, ...]
    kind: Kind = "weights"


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
class ImportReport:
    """What an import has made."""

    name: str
    saved: str
    container: str
    architecture: str
    meta_parameters: int
    parametrization: str
    fan_in: str
    settings: Mapping[str, Any]
    read: tuple[str, ...]
    given: tuple[str, ...]
    assumed: tuple[str, ...]
    decays: str
    licence: str
    checksum: str
    kind: Kind = "import"


@dataclass(frozen=True)
class ExportReport:
    """What an export has written, and what PyLO will not see of it."""

    name: str
    saved: str
    bytes: int
    left_behind: tuple[str, ...]
    kind: Kind = "export"


def inspect_weights(path: Path) -> WeightsReport:
    """Describe a foreign file, or an artefact whose checksum and parity are checked.

    Raises:
        ArtefactError: it cannot be read, is refused, or is a damaged artefact.
    """
    if path.is_dir() or not path.exists():
        return _describe_artefact(path)
    file = read_foreign(path)
    recognised = _recognise(file)
    return WeightsReport(
        name=file.name,
        container=file.container,
        bytes=file.size,
        sha256=file.sha256,
        architecture=recognised.architecture,
        importable=not recognised.complaints,
        complaints=recognised.complaints,
        sizes=recognised.sizes,
        numbers=count(file.arrays),
        notes=file.notes,
        licence=file.own["licence"] if file.own else LICENCE_UNKNOWN,
        tensors=_tensors(file.arrays),
    )


def import_weights(path: Path, out: Path, given: Given, *, overwrite: bool) -> ImportReport:
    """Write an artefact of a foreign file.

    Args:
        path: of the file.
        out: the artefact's directory.
        given: what the file cannot tell.
        overwrite: replace an artefact that is there.

    Raises:
        ArtefactError: the file is refused, or is no optimizer that can be run here.
        UsageError: settings that do not exist or contradict the file.
        OutputError: the place is taken, or cannot be written.
    """
    _refuse_taken(out, overwrite=overwrite)
    file = read_foreign(path)
    recognised = _recognise(file)
    architecture = recognised.architecture
    if architecture is None or recognised.complaints:
        raise ArtefactError(
            f"{file.name!r} cannot be imported, no architecture here runs it: {recognised.summary}",
            "`mulo weights inspect` shows everything that is in it",
        )
    arrays, decays = _with_decays(file, given.decays)
    choice = _settle(file, recognised, given)
    theta = to_theta(architecture, recognised.sizes, arrays)
    card = _card(file, architecture, choice, theta, given, decays)
    save_artefact(out, card, theta, None)
    return ImportReport(
        name=card.name,
        saved=str(out),
        container=file.container,
        architecture=architecture,
        meta_parameters=card.meta_parameters,
        parametrization=card.parametrization,
        fan_in=card.fan_in,
        settings=card.settings,
        read=choice.read,
        given=choice.given,
        assumed=choice.assumed,
        decays=decays,
        licence=card.licence,
        checksum=card.checksum,
    )


def export_weights(path: Path, out: Path, *, overwrite: bool) -> ExportReport:
    """Write the small_fc_lopt of an artefact as safetensors that PyLO reads.

    Raises:
        ArtefactError: there is no usable artefact, or PyLO has no such optimizer.
        OutputError: the place is taken, or cannot be written.
    """
    if out.is_dir() or (out.exists() and not overwrite):
        raise OutputError(
            f"{str(out)!r} {'is a folder' if out.is_dir() else 'exists already'}",
            "give the name of a new file, or --overwrite to replace a file",
        )
    card, _, theta = load_learned_optimizer(path)
    if card.architecture != "small_fc_lopt":
        raise ArtefactError(
            f"{str(path)!r} is a {card.architecture}; PyLO's safetensors are read for "
            "small_fc_lopt only",
            "the artefact directory itself can be copied and shared",
        )
    config = LEARNED_OPTIMIZERS[card.architecture].config
    settings = dataclasses.asdict(config(**card.settings))
    note = write_note(
        theta,
        name=card.name,
        parametrization=card.parametrization,
        settings=settings,
        licence=card.licence,
        notice=card.notice,
    )
    content = to_safetensors(to_pylo(theta), note)
    _write(out, content)
    left = (
        f"decays ({', '.join(DECAYS)})",
        *(f"{key} = {json.dumps(value)}" for key, value in settings.items()),
    )
    return ExportReport(card.name, str(out), len(content), left)


@dataclass(frozen=True)
class _Choice:
    """Settings of an import, and where each comes from."""

    parametrization: Parametrization
    settings: Mapping[str, Any]
    read: tuple[str, ...]
    given: tuple[str, ...]
    assumed: tuple[str, ...]


def _recognise(file: ForeignFile) -> Recognition:
    without_decays = file.container == "PyLO safetensors"
    return recognise(file.arrays, forgiven=frozenset(DECAYS) if without_decays else frozenset())


def _settle(file: ForeignFile, recognised: Recognition, given: Given) -> _Choice:
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
    return _Choice(
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
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            found[key] = value
    return found


def _with_decays(file: ForeignFile, wanted: str | None) -> tuple[Mapping[str, np.ndarray], str]:
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
        return tomllib.loads(_small_text(path, "--decays"))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--decays {str(path)!r} is not TOML: {str(error).splitlines()[0]}",
            'for example momentum_decays = [0.0, 0.0, 0.0], or --decays "released-mulo"',
        ) from error


def _small_text(path: Path, option: str) -> str:
    """Return a text that a user names."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise UsageError(f"{option} {str(path)!r} has more than 1 MiB", "give another file")
        return content.decode("utf-8")
    except OSError as error:
        raise UsageError(
            f"{option} {str(path)!r} cannot be read: {error.strerror}",
            f"known are: {', '.join(NAMED_DECAYS)}, or a TOML file"
            if option == "--decays"
            else "give a text file",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {str(path)!r} is not text", "give a text file") from error


def _card(
    file: ForeignFile,
    architecture: str,
    choice: _Choice,
    theta: Theta,
    given: Given,
    decays: str,
) -> Card:
    """Write down what a file was taken for."""
    own = file.own or {}
    optimizer = make_learned_optimizer(architecture, choice.settings, choice.parametrization)
    licence = given.licence
    if licence == LICENCE_UNKNOWN:
        licence = own.get("licence", LICENCE_UNKNOWN)
    notice = own.get("notice", "")
    if given.notice_file is not None:
        notice = _small_text(given.notice_file, "--notice-file")
    checksum = tree_checksum(theta)
    return Card(
        name=given.name or own.get("name") or file.name.split(".")[0] or file.name,
        architecture=architecture,
        settings=choice.settings,
        parametrization=choice.parametrization,
        fan_in=fan_in_of(choice.settings),
        meta_parameters=sum(leaf.size for leaf in named_leaves(theta).values()),
        checksum=checksum,
        last_checksum=None,
        recipe=None,
        recipe_digest=None,
        training={},
        licence=licence,
        code_version=code_version(),
        parity=compute_parity(optimizer, theta),
        notice=notice,
        source={
            "container": file.container,
            "file": file.name,
            "sha256": file.sha256,
            "decays": decays,
            "read": list(choice.read),
            "given": list(choice.given),
            "assumed": list(choice.assumed),
            "notes": dict(file.notes) if not file.own else {},
        },
    )


def _describe_artefact(path: Path) -> WeightsReport:
    (card, _, theta), distance = load_and_measure(path)
    arrays = named_leaves(theta)
    parity = "not checked (the card has none)"
    if distance is not None:
        parity = f"agrees (largest difference {distance:.1g} of the largest update)"
    return WeightsReport(
        name=card.name,
        container="artefact",
        bytes=None,
        sha256=None,
        architecture=card.architecture,
        importable=False,
        complaints=(),
        sizes={key: card.settings[key] for key in SIZES.get(card.architecture, {})},
        numbers=card.meta_parameters,
        notes={
            "settings": dict(card.settings),
            "parametrization": card.parametrization,
            "fan_in": card.fan_in,
            "source": dict(card.source),
            "recipe_digest": card.recipe_digest,
            "training": dict(card.training),
            "checksum": f"{card.checksum} (agrees)",
            "parity": parity,
            "notice": card.notice,
            "code_version": card.code_version,
            "format": card.format,
        },
        licence=card.licence,
        tensors=_tensors(arrays),
    )


def _tensors(arrays: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
    return tuple(_tensor(name, np.asarray(array)) for name, array in sorted(arrays.items()))


def _tensor(name: str, array: np.ndarray) -> Tensor:
    finite = array[np.isfinite(array)]
    least, largest = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    whole = finite.size == array.size
    return Tensor(name, array.shape, str(array.dtype), least, largest, whole)


def _refuse_taken(out: Path, *, overwrite: bool) -> None:
    """Never replace anything but an artefact, and that only if asked to."""
    if not out.exists():
        return
    if not (out / CARD).is_file():
        empty = out.is_dir() and not any(out.iterdir())
        if not empty:
            raise OutputError(
                f"{str(out)!r} exists already and is not an artefact", "choose another --out"
            )
    elif not overwrite:
        raise OutputError(
            f"there is an artefact in {str(out)!r} already",
            "choose another --out, or --overwrite to replace it",
        )


def _write(out: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    draft = out.with_name(f".{out.name}.draft")
    try:
        draft.write_bytes(content)
        os.replace(draft, out)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {str(out)!r}: {reason(error)}", "free some space or choose another place"
        ) from error
