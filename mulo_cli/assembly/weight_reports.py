"""What `mulo weights` answers: frozen records of what was found, made and written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["weights", "import", "export"]


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
