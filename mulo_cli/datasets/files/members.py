"""What a file is to the readers, whether it lies in a folder or in an archive."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Protocol, runtime_checkable

from mulo_cli.errors import shortened_path


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


def printable(name: str) -> str:
    """Return a name whose every character can be shown: no terminal obeys what a file is called."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def decoded(raw: bytes, otherwise: str = "latin-1") -> str:
    """Decode a file's name: UTF-8, else an encoding that takes every byte and merges no names."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode(otherwise)
