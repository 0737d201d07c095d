"""Files that a user names, read within bounds: nothing is waited for, nothing read without end.

A device may be endless and a pipe with a name may have nobody at its other end; neither is what was
meant. A pipe that a shell has opened for us (`<(...)`, `/dev/stdin`) is, and so is what is empty.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

MIB = 2**20

LONGEST_LINE = 16 * MIB
"""Bytes of one line; a row of 100 000 steps has two million."""

OPENED_FOR_US = re.compile(r"/dev/fd|/proc/\d+/fd")
"""Folders of what is open already, once links are followed."""


@runtime_checkable
class LineStream(Protocol):
    """Anything open for reading lines of bytes."""

    def readline(self, size: int = -1, /) -> bytes:
        """Read a line with its end, and at most so many bytes of it; nothing at the end."""
        ...


def refuse_special(path: Path, *, even_opened: bool = False) -> None:
    """Refuse what is neither a file nor a folder.

    Args:
        path: of it.
        even_opened: whether to refuse a pipe that was opened for us as well.

    Raises:
        OSError: it is a device or a pipe, or is not there.
    """
    mode, real = os.stat(path).st_mode, os.path.realpath(path)
    if real == os.devnull or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    if stat.S_ISFIFO(mode) and not even_opened and OPENED_FOR_US.fullmatch(os.path.dirname(real)):
        return
    kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
    raise OSError(errno.EINVAL, f"it is {kind}, neither a file nor a folder", str(path))


def read_bounded(path: Path, most: int) -> bytes:
    """Return the bytes of a file that has no reason to be large.

    Args:
        path: of the file.
        most: bytes that it may have, some MiB.

    Raises:
        OSError: it cannot be read, has more, or is a device or a named pipe.
    """
    refuse_special(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most // MIB} MiB", str(path))
    return content


def bounded_lines(stream: LineStream) -> Iterator[bytes]:
    """Yield the lines of a stream with their ends, as long as none is absurdly long.

    Raises:
        OSError: one is, or it cannot be read.
    """
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise OSError(errno.EFBIG, f"a line has more than {LONGEST_LINE // MIB} MiB")
        yield line
