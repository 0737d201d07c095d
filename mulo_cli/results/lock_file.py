"""The file that a lock is: where it lies, the operating system's lock on it, and its bytes.

Who may take it, and from whom, is decided in `run_lock`; who waits for a turn, in `turns`.
"""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from mulo_cli.results.store import not_writable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".mulo-lock"
"""Name of the lock in a folder; that of a file `rows.jsonl` is `.rows.jsonl.mulo-lock`."""

LARGEST = 2**16
"""Bytes that are read of a lock; it has a few hundred."""

FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""A lock is no link, and what has its name but is no file is not waited for."""

UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)
"""What file systems without locks answer."""


def lock_of(place: Path) -> Path:
    """Return the lock of a file: it has one, whatever links lead to it, if these were followed."""
    return place.with_name(f".{place.name}{LOCK}")


def locked_names(folder: Path) -> list[str]:
    """Return the names of those files in a folder that have a lock, whoever left it there."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
    locks = [name for name in names if name.startswith(".") and name.endswith(LOCK)]
    return [name[1 : -len(LOCK)] for name in locks if name != LOCK]


def open_lock(lock: Path) -> int:
    """Open a lock's file, which is made if it is not there; return its descriptor.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return os.open(lock, os.O_RDWR | os.O_CREAT | FLAGS, 0o644)
    except OSError as error:
        raise not_writable(lock, error) from error


def flock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Take the system's lock: True if we have it, None if another has, False if there is none."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True


def wait_for_flock(descriptor: int) -> bool:
    """Wait until the system's lock is ours; False, at once, where there is none."""
    if fcntl is None:
        return False
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return True


def is_there(descriptor: int, lock: Path) -> bool:
    """Whether a file is still the one that has the lock's name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(lock))
    except FileNotFoundError:
        return False


def read_lock(descriptor: int) -> bytes:
    """Return what is in a lock's file, or the beginning of it if that is absurdly long."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, LARGEST)


def silence_of(descriptor: int) -> float:
    """Return the seconds since the last sign of life of a lock's owner."""
    return time.time() - os.fstat(descriptor).st_mtime
