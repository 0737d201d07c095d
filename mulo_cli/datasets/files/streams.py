"""Bytes out of files that may be packed, damaged or not what they say: within bounds."""

import gzip
import lzma
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from mulo_cli.datasets.files.members import ByteStream, Member
from mulo_cli.datasets.files.memory import available_memory
from mulo_cli.errors import DataError

DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    ValueError,  # numbers and names that cannot be decoded, among them UnicodeDecodeError
    IndexError,
    struct.error,
    RuntimeError,  # zipfile's word for an encrypted member, or packed in a way it does not know
    MemoryError,  # a window for unpacking that no file of this size needs
)

HEADER_DAMAGE = (
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RecursionError,
    tokenize.TokenError,
)
"""What numpy says of a header that is none: it takes it for Python, and stumbles in many ways."""

ARRAY_LIMIT = 16 * 2**30
"""Bytes of one array that are read into memory at most; ImageNet at 64x64 has 15.7e9."""

CHUNK = 2**20
GZIP_MAGIC = b"\x1f\x8b"
XZ_MAGIC = b"\xfd7zXZ\x00"


def array_limit() -> int:
    """Return how many bytes one array may have now: `ARRAY_LIMIT`, or the free memory if less."""
    available = available_memory()
    return ARRAY_LIMIT if available is None else min(ARRAY_LIMIT, available)


@contextmanager
def unreadable(shown: str) -> Iterator[None]:
    """Turn everything that goes wrong while a file is read into an error that names it."""
    try:
        yield
    except DAMAGE as fault:
        told = fault.strerror if isinstance(fault, OSError) else None
        reason = told or str(fault) or type(fault).__name__
        raise DataError(
            f"{shown} cannot be read: {reason}",
            "check the path and the file: it may be cut short, damaged or protected",
        ) from fault


@contextmanager
def unpacked(member: Member) -> Iterator[ByteStream]:
    """Open a member, unpacked if its first bytes say that it is gzip or xz.

    Args:
        member: the file.

    Yields:
        its bytes.

    Raises:
        DataError: it is damaged or cannot be read.
    """
    with unreadable(member.shown), member.open_raw() as raw:
        magic = raw.read(len(XZ_MAGIC))
        raw.seek(0)
        if magic.startswith(GZIP_MAGIC):
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream
        elif magic == XZ_MAGIC:
            with lzma.LZMAFile(raw) as stream:
                yield stream
        else:
            yield raw


def read_up_to(stream: ByteStream, size: int) -> bytearray:
    """Read at most so many bytes; memory grows with what is there, not with what was promised."""
    content = bytearray()
    while len(content) < size:
        chunk = stream.read(min(CHUNK, size - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def read_exactly(stream: ByteStream, size: int, shown: str) -> bytearray:
    """Read the rest of a stream, which is to be exactly so many bytes.

    Args:
        stream: where to read.
        size: bytes that a header promised.
        shown: the file's name, for errors.

    Raises:
        DataError: there are more bytes or fewer, or more were promised than are ever read.
    """
    if size > (limit := array_limit()):
        raise DataError(
            f"{shown} says that it holds {size:,} bytes",
            f"at most {limit:,} bytes are read, and never more than there is free memory: the file "
            "may be damaged",
        )
    content = read_up_to(stream, size)
    if len(content) < size:
        raise DataError(
            f"{shown} ends too early: its header promises {size:,} bytes, "
            f"{len(content):,} are there",
            "the file is cut short or damaged: fetch it again",
        )
    if stream.read(1):
        raise DataError(
            f"{shown} goes on after the {size:,} bytes that its header promises",
            "the file is damaged, or of another format: fetch it again",
        )
    return content


def read_small(member: Member, limit: int) -> bytes:
    """Read a whole member that has no reason to be large.

    Raises:
        DataError: it declares to be larger than `limit`, or cannot be read.
    """
    if member.size > limit:
        raise DataError(
            f"{member.shown} is said to have {member.size:,} bytes",
            f"at most {limit:,} bytes are read from such a file",
        )
    with unreadable(member.shown), member.open_raw() as stream:
        return bytes(read_up_to(stream, limit))


def first_bytes(member: Member, count: int) -> bytes:
    """Read the first bytes of a member, unpacked; fewer if there are no more or it is damaged."""
    try:
        with unpacked(member) as stream:
            return bytes(read_up_to(stream, count))
    except DataError:
        return b""
