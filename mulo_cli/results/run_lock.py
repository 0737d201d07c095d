"""One command at a time in a run directory, or in a file of rows: a lock that dies with its owner.

The operating system's lock (flock) on a small file is what counts: it vanishes with the process,
however that ends. The file's content tells others who holds it. Content that is left behind is the
trace of an owner that was killed:

- on this machine its lock is gone for sure, and is taken over. A machine is known by its name and
  by its start: two of one name (`localhost`) may share a file system;
- a file system may keep the locks of several machines apart. Owners touch their file every few
  seconds: a silent one of another machine is watched for a while before it is taken over;
- a file system without locks leaves the content alone to tell. A process of this machine that is
  gone is taken over; of another machine's nobody knows, and only the user may delete its file.

An owner that was suspended for so long that it was taken over leaves its follower's lock alone.
"""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mulo_cli.errors import OutputError
from mulo_cli.results.lock_file import (
    FLAGS,
    LARGEST,
    LOCK,
    flock,
    is_there,
    lock_of,
    open_lock,
    read_lock,
    silence_of,
)
from mulo_cli.results.lock_owner import (
    Owner,
    age,
    from_json,
    is_neighbour,
    this_process,
    to_json,
    why_gone,
)
from mulo_cli.results.store import not_writable

HEARTBEAT = 5.0
"""Seconds between two signs of life of an owner."""

SILENCE = 30.0
"""Seconds without one after which the owner of another machine is taken for gone; network file
systems may show a sign of life late."""

SETTLING = 0.5
"""Seconds after which, on a file system without locks, what we wrote must still be there."""

Tell = Callable[[str], None]
"""Takes a sentence for the user."""


@contextmanager
def locked(folder: Path, tell: Tell) -> Iterator[None]:
    """Keep other commands out of a folder for as long as the context lasts.

    Args:
        folder: it is made if it is not there, and goes again at the end if it is left empty.
        tell: is told of a lock that was left behind.

    Raises:
        OutputError: another command is at work there; or the lock cannot be written.
    """
    with _gone_if_empty(folder), _locked(folder.resolve() / LOCK, folder, tell):
        yield


@contextmanager
def locked_file(path: Path, tell: Tell) -> Iterator[None]:
    """Keep other commands away from a file for as long as the context lasts.

    Args:
        path: of the file; it need not be there, nor its folder, which goes again at the end if it
            is left empty. What is no regular file is not locked.
        tell: is told of a lock that was left behind.

    Raises:
        OutputError: another command is at work with it; or the lock cannot be written.
    """
    place = path.resolve()
    if place.exists() and not place.is_file():
        yield
        return
    with _gone_if_empty(place.parent), _locked(lock_of(place), path, tell):
        yield


def refuse_if_locked(path: Path, tell: Tell) -> None:
    """Stop if another command is at work with a file. Nothing is taken, and nothing is left.

    Args:
        path: of the file; neither it nor its lock need be there.
        tell: is told if a lock of another machine has to be watched.

    Raises:
        OutputError: another command is at work with it.
    """
    lock = lock_of(path.resolve())
    try:
        descriptor = os.open(lock, os.O_RDONLY | FLAGS)
    except OSError:  # it is not there; or nobody can tell
        return
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            _refuse_living(descriptor, lock, path, tell)
    finally:
        os.close(descriptor)


@contextmanager
def _gone_if_empty(folder: Path) -> Iterator[None]:
    """Delete a folder, and those above it, that is not there at first and empty at the end."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty, or not ours: then it stays
            for place in made:
                place.rmdir()


@dataclass(frozen=True)
class _Held:
    """A lock that we have taken: its place, its open file, and what we have written into it."""

    lock: Path
    descriptor: int
    content: bytes

    def still(self) -> bool:
        """Whether it is ours: we may have been suspended for so long that another took it over."""
        there = is_there(self.descriptor, self.lock)
        return there and read_lock(self.descriptor) == self.content[:LARGEST]


@contextmanager
def _locked(lock: Path, what: Path, tell: Tell) -> Iterator[None]:
    """Hold the lock at a place, in the name of what it guards."""
    held = _take(lock, what, tell)
    ended = threading.Event()
    alive = threading.Thread(target=_show_life, args=(held, ended), daemon=True)
    alive.start()
    try:
        yield
    finally:
        ended.set()
        alive.join()
        with suppress(OSError):
            if held.still():
                os.ftruncate(held.descriptor, 0)  # an empty one is nobody's, should it have to stay
                lock.unlink()  # while we hold it: whoever has it open will see that it is gone
        os.close(held.descriptor)


def _take(lock: Path, what: Path, tell: Tell) -> _Held:
    """Return a lock that is ours."""
    us = this_process()
    while True:
        descriptor = open_lock(lock)
        try:
            held = _take_open(descriptor, lock, what, us, tell)
            if held is not None:
                return held
        except OSError as error:
            os.close(descriptor)
            raise not_writable(lock, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take_open(descriptor: int, lock: Path, what: Path, us: Owner, tell: Tell) -> _Held | None:
    """Take a lock whose file is open; None if its owner has just deleted the file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EEXIST, "something else has this name")
    kernel_locks = flock(descriptor)
    if kernel_locks is None:
        raise _in_use(what, _named(descriptor))
    if not is_there(descriptor, lock):
        return None
    content = read_lock(descriptor)
    owner = from_json(content)
    if kernel_locks:
        _pass_over(descriptor, owner, us, what, tell)
    elif content:
        gone = _why_gone_or_refuse(descriptor, owner, us, lock, what)
        tell(f"{str(what)!r} was left behind by {gone}; taking over")
    held = _Held(lock, descriptor, to_json(us))
    _write(held)
    if not kernel_locks:
        time.sleep(SETTLING)
        if not held.still():
            raise _in_use(what, _named(descriptor))
    return held


def _refuse_living(descriptor: int, lock: Path, what: Path, tell: Tell) -> None:
    """Stop if the owner of a lock that is open for reading is alive."""
    kernel_locks = flock(descriptor, shared=True)  # shared: others may be asking as well
    if kernel_locks is None:
        raise _in_use(what, _named(descriptor))
    content, us = read_lock(descriptor), this_process()
    owner = from_json(content)
    if not kernel_locks:
        if content:
            _why_gone_or_refuse(descriptor, owner, us, lock, what)
    elif owner is not None and not is_neighbour(owner, us) and silence_of(descriptor) < SILENCE:
        _watch(descriptor, owner, what, tell)


def _pass_over(descriptor: int, owner: Owner | None, us: Owner, what: Path, tell: Tell) -> None:
    """Say whose lock is taken over; that of another machine not before it was watched."""
    if owner is None:
        return  # new; or its owner was killed before it wrote its name
    who = owner.describe(us.since)
    if is_neighbour(owner, us):
        gone = why_gone(owner, us, silent=True) or "it has let go of the lock"
        tell(f"{str(what)!r} was left behind by {who}: {gone}; taking over")
        return
    _watch(descriptor, owner, what, tell)
    tell(f"{str(what)!r} was left behind: no sign of life of {who}; taking over")


def _watch(descriptor: int, owner: Owner, what: Path, tell: Tell) -> None:
    """Wait for a sign of life of an owner whose lock may not be seen here; stop if there is one."""
    who = owner.describe(time.time())
    tell(f"{str(what)!r} is locked by {who}; waiting {SILENCE:.0f} s for a sign of life of it")
    before, began = os.fstat(descriptor).st_mtime_ns, time.monotonic()
    while time.monotonic() < began + SILENCE:
        time.sleep(min(HEARTBEAT, SILENCE))
        if os.fstat(descriptor).st_mtime_ns != before:
            raise _in_use(what, owner)


def _why_gone_or_refuse(
    descriptor: int, owner: Owner | None, us: Owner, lock: Path, what: Path
) -> str:
    """Decide by the content alone, on a file system without locks: say who is gone, and why."""
    silence = silence_of(descriptor)
    gone = None if owner is None else why_gone(owner, us, silent=silence > SILENCE)
    if owner is None or gone is None:
        more = f"; its last sign of life was {age(silence)} ago"
        raise _in_use(
            what, owner, more, f"; if that process is gone for sure, delete {str(lock)!r}"
        )
    return f"{owner.describe(us.since)}: {gone}"


def _named(descriptor: int) -> Owner | None:
    """Return whom a lock names; an owner that is just taking it gets the time to write."""
    for _ in range(10):
        owner = from_json(read_lock(descriptor))
        if owner is not None:
            return owner
        time.sleep(SETTLING / 10)
    return None


def _write(held: _Held) -> None:
    os.ftruncate(held.descriptor, 0)
    os.lseek(held.descriptor, 0, os.SEEK_SET)
    os.write(held.descriptor, held.content)


def _show_life(held: _Held, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):
            if held.still():
                os.utime(held.lock)


def _in_use(what: Path, owner: Owner | None, more: str = "", advice: str = "") -> OutputError:
    """Say who is at work.

    Args:
        what: where.
        owner: who, if that is known.
        more: what else is known of the owner.
        advice: what else can be done.
    """
    who = "another command" if owner is None else owner.describe(time.time())
    return OutputError(
        f"{str(what)!r} is in use by {who}{more}",
        f"wait for it, stop it, or choose another place{advice}",
    )
