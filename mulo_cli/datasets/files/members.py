"""What a file is to the readers, whether it lies in a folder or in an archive."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Protocol, runtime_checkable

from mulo_cli.errors import DataError, shortened_path

PACKED = re.compile(r"\.(gz|xz)$", re.IGNORECASE)
"""How the name of a file that is packed by itself ends."""


@runtime_checkable
class ByteStream(Protocol):
    """Anything open for reading bytes: files, and what unpacks them."""

    def read(self, size: int = -1, /) -> bytes:
        """Read at most so many bytes; none at the end."""
        ...


@dataclass(frozen=True)
class Member:
    """One file in a folder or an archive.

    Attributes:
        parts: its folders and its name, cleaned of everything that leads elsewhere.
        size: bytes, as declared.
        place: its number in the order in which reading is fastest.
        open_raw: opens it for reading bytes.
    """

    parts: tuple[str, ...]
    size: int
    place: int
    open_raw: Callable[[], IO[bytes]]

    @property
    def name(self) -> str:
        """Its own name, without folders."""
        return self.parts[-1]

    @property
    def shown(self) -> str:
        """Its name with folders, as errors show it."""
        return shortened_path("/".join(self.parts))


def without_packed_copies(members: Iterable[Member]) -> list[Member]:
    """Return members sorted by name, without `x.gz` and `x.xz` where `x` lies beside them."""
    kept: dict[tuple[str, ...], Member] = {}
    for member in sorted(members, key=lambda member: member.parts):
        kept.setdefault((*member.parts[:-1], PACKED.sub("", member.name)), member)
    return list(kept.values())


def require_one_folder(members: Sequence[Member], shown: str) -> None:
    """Refuse files that belong together but do not lie together: they may be of several sets.

    Args:
        members: files that are told apart by their own names alone.
        shown: the set's name, for errors.

    Raises:
        DataError: they lie in more than one folder.
    """
    folders = {member.parts[:-1]: member for member in members}
    if len(folders) > 1:
        first, second = (folders[folder].shown for folder in sorted(folders)[:2])
        raise DataError(
            f"files of {shown} lie in {len(folders)} folders: {first} and {second}",
            "they may be of several sets: give the folder of one, with all its files beside each "
            "other",
        )


def decoded(raw: bytes, otherwise: str = "latin-1") -> str:
    """Decode a file's name: UTF-8, else an encoding that takes every byte and merges no names."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode(otherwise)
