"""Waiting for one's turn: processes that change a small file do so one after another."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mulo_cli.results.lock_file import is_there, lock_of, open_lock, wait_for_flock


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for other processes that change a small file, and keep them waiting for as long.

    Where the file system has no locks, nobody waits.

    Raises:
        OutputError: the lock cannot be written.
    """
    lock = lock_of(path.resolve())
    descriptor = _wait_for(lock)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _wait_for(lock: Path) -> int:
    """Return the open file of a lock when it is our turn."""
    while True:
        descriptor = open_lock(lock)
        try:
            if not wait_for_flock(descriptor) or is_there(descriptor, lock):
                return descriptor
        except BaseException:  # not our turn yet: the file is another's
            os.close(descriptor)
            raise
        os.close(descriptor)  # who had it before us has deleted it
