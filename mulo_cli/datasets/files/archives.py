"""One view of folders, zips, tars and single files: members with a name, and bytes to be read.

Nothing is ever extracted: a member's name says where it belongs, never where it is written.
"""

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from mulo_cli.datasets.files.members import Member, decoded
from mulo_cli.datasets.files.streams import DAMAGE, GZIP_MAGIC, XZ_MAGIC, unreadable
from mulo_cli.errors import DataError, shortened, shortened_path

PASSED_OVER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""What systems leave beside a user's files, in lower case; names that begin with a dot as well."""

DEPTH_LIMIT = 12
"""Folders within folders; the deepest known layout has five."""

TAR_LIMIT = 2**40
"""Bytes that a tar may unpack to: listing it means to unpack it. ImageNet's has 1.4e11."""

TAR_RATIO = 1_000
"""Bytes that one byte of a packed tar may unpack to, beyond the first GiB. Text has ten at most;
bzip2 packs a million zeros into one, which would take hours to go through."""

TAR_ALWAYS = 2**30
"""Bytes that any tar may unpack to."""

EXTENDED_TYPES = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
"""Headers that `tarfile` reads whole, however large they say that they are."""

EXTENDED_LIMIT = 2**20
"""Bytes of such a header; they hold names and attributes."""

PACKINGS = ((GZIP_MAGIC, gzip.open), (XZ_MAGIC, lzma.open), (b"BZh", bz2.open))
"""First bytes of packed tars, and what unpacks them."""


class BoundedTarInfo(tarfile.TarInfo):
    """A tar's header that is refused before more than reasonable is read because of it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "BoundedTarInfo":
        """Read a header of 512 bytes.

        Raises:
            DataError: it announces a size that no such header has.
        """
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in EXTENDED_TYPES and info.size > EXTENDED_LIMIT):
            raise DataError(
                f"a header of this tar is said to have {info.size:,} bytes",
                f"at most {EXTENDED_LIMIT:,} are read: the archive is damaged or not meant well",
            )
        return info


def refuse_special(path: Path) -> None:
    """Refuse what would be waited for.

    Raises:
        DataError: it is a pipe or a device, and no file or folder.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(
            f"{shortened_path(path)} is neither a file nor a folder",
            "data are read more than once: write what comes out of a pipe to a file first",
        )


@contextmanager
def opened(path: Path) -> Iterator[Iterator[Member]]:
    """List the members of a folder, a zip or a tar; another file is its only member.

    Args:
        path: where it is.

    Yields:
        the members, found as they are asked for and readable while the context lasts.

    Raises:
        DataError: it is missing, damaged or cannot be read.
    """
    refuse_special(path)
    with unreadable(shortened_path(path)):
        if path.is_dir():
            yield _numbered(_walk(path, (), ()))
        elif _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                yield _numbered(_zip_members(archive))
        elif _is_tar(path):
            with tarfile.open(path, tarinfo=BoundedTarInfo) as archive:
                yield _numbered(_tar_members(archive, path.stat().st_size))
        else:
            yield iter([_file(path, (decoded(os.fsencode(path.name)),))])


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _is_tar(path: Path) -> bool:
    """Tell a tar by its first block alone: the headers behind it may promise any size."""
    with path.open("rb") as file:
        magic = file.read(len(XZ_MAGIC))
    unpack = next((unpack for start, unpack in PACKINGS if magic.startswith(start)), open)
    try:
        with unpack(path, "rb") as stream:
            tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except DAMAGE:
        return False  # a packed file that is cut short is one of these: its reader says so
    return True


def _numbered(found: Iterator[Member]) -> Iterator[Member]:
    """Number members as they lie, and leave out what nobody put there on purpose."""
    for place, member in enumerate(found):
        if member.parts and not any(_is_litter(part) for part in member.parts):
            yield Member(member.parts, member.size, place, member.open_raw)


def _is_litter(part: str) -> bool:
    return part.startswith(".") or part.lower() in PASSED_OVER


def _file(path: Path, parts: tuple[str, ...]) -> Member:
    return Member(parts, path.stat().st_size, 0, lambda: path.open("rb"))


def _walk(folder: Path, parts: tuple[str, ...], above: tuple[Path, ...]) -> Iterator[Member]:
    """Find files below a folder, in order of their names; follow links, but not in circles."""
    real = folder.resolve()
    if real in above or len(parts) > DEPTH_LIMIT:
        raise DataError(
            f"folder {shortened_path(folder)} leads back into itself or lies too deep",
            "remove the link, or give a folder further down",
        )
    for entry in sorted(folder.iterdir()):
        name = decoded(os.fsencode(entry.name))
        if _is_litter(name):
            continue
        if entry.is_dir():
            yield from _walk(entry, (*parts, name), (*above, real))
        elif entry.is_file():
            yield _file(entry, (*parts, name))
        else:
            raise DataError(
                f"{shortened_path(entry)} is neither a file nor a folder, or a link to nothing",
                "remove it",
            )


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if not info.is_dir():
            name = _zip_name(info)
            yield Member(_clean(name), info.file_size, 0, lambda info=info: archive.open(info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; many programs write UTF-8 (or another tongue) without saying so."""
    says_utf8 = info.flag_bits & 0x800
    name = info.filename if says_utf8 else decoded(info.filename.encode("cp437"), "cp437")
    return name.replace("\\", "/")


def _tar_members(archive: tarfile.TarFile, packed: int) -> Iterator[Member]:
    """List a tar; `packed` is the size of its file."""
    total, limit = 0, min(TAR_LIMIT, TAR_ALWAYS + TAR_RATIO * packed)
    for info in archive:
        if info.size < 0:  # by an extended header: the next one would be looked for before this one
            raise DataError(
                f"{shortened(info.name)} is said to have {info.size:,} bytes",
                "the archive is damaged or not meant well",
            )
        total += info.size
        if total > limit:
            raise DataError(
                f"{shortened(info.name)} makes this archive unpack to {total:,} bytes",
                f"at most {limit:,} bytes are read of one of {packed:,}: is this the right file?",
            )
        if info.isreg():
            name = decoded(os.fsencode(info.name))
            yield Member(_clean(name), info.size, 0, lambda info=info: _tar_file(archive, info))


def _tar_file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BufferedReader:
    file = archive.extractfile(info)
    if not isinstance(file, BufferedReader):
        raise OSError("not a regular file")
    return file


def _clean(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", ".", ".."))
