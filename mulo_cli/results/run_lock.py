"""One command at a time in a run directory, or in a file of rows: a lock that dies with its owner.

The operating system's lock (flock) on a small file is what counts: it vanishes with the process,
however that ends. The file's content tells others who holds it. Content that is left behind is the
trace of an owner that was killed:

- on this machine its lock is gone for sure, and is taken over;
- a file system may keep the locks of several machines apart. Owners touch their file every few
  seconds: a silent one of another machine is watched for a while before it is taken over;
- a file system without locks leaves the content alone to tell. A process of this machine that is
  gone is taken over; of another machine's nobody knows, and only the user may delete its file.
"""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mulo_cli.errors import OutputError
from mulo_cli.results.lock_owner import (
    Owner,
    age,
    from_json,
    this_process,
    to_json,
    why_gone,
)
from mulo_cli.results.store import not_writable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".mulo-lock"
"""Name of the lock in a folder; that of a file `rows.jsonl` is `.rows.jsonl.mulo-lock`."""

HEARTBEAT = 5.0
"""Seconds between two signs of life of an owner."""

SILENCE = 30.0
"""Seconds without one after which the owner of another machine is taken for gone; network file
systems may show a sign of life late."""

SETTLING = 0.5
"""Seconds after which, on a file system without locks, what we wrote must still be there."""

LARGEST = 2**16
"""Bytes that are read of a lock; it has a few hundred."""

UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)
"""What file systems without locks answer."""

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
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        with _locked(folder.resolve() / LOCK, folder, tell):
            yield
    finally:
        with suppress(OSError):  # it is not empty, or not ours: then it stays
            for place in made:
                place.rmdir()


@contextmanager
def locked_file(path: Path, tell: Tell) -> Iterator[None]:
    """Keep other commands away from a file for as long as the context lasts.

    Args:
        path: of the file; it need not be there. What is no regular file is not locked.
        tell: is told of a lock that was left behind.

    Raises:
        OutputError: another command is at work with it; or the lock cannot be written.
    """
    place = path.resolve()  # a file has one lock, whatever links lead to it
    if place.exists() and not place.is_file():
        yield
        return
    with _locked(place.with_name(f".{place.name}{LOCK}"), path, tell):
        yield


@contextmanager
def _locked(lock: Path, what: Path, tell: Tell) -> Iterator[None]:
    """Hold the lock at a place, in the name of what it guards."""
    descriptor = _take(lock, what, tell)
    ended = threading.Event()
    alive = threading.Thread(target=_show_life, args=(lock, ended), daemon=True)
    alive.start()
    try:
        yield
    finally:
        ended.set()
        alive.join()
        with suppress(OSError):
            os.ftruncate(descriptor, 0)  # an empty lock is nobody's, should it have to stay
            lock.unlink()  # while we hold it: whoever opened it before will see that it is gone
        os.close(descriptor)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for other processes that change a small file, and keep them waiting for as long.

    Where the file system has no locks, nobody waits.

    Raises:
        OutputError: the lock cannot be written.
    """
    lock = path.resolve().with_name(f".{path.name}{LOCK}")
    descriptor = _open(lock)
    try:
        while fcntl is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_there(descriptor, lock):
                break
            os.close(descriptor)  # who had it before us has deleted it
            descriptor = _open(lock)
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _open(lock: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return os.open(lock, flags, 0o644)
    except OSError as error:
        raise not_writable(lock, error) from error


def _take(lock: Path, what: Path, tell: Tell) -> int:
    """Return the descriptor of a lock that is ours."""
    us = this_process()
    while True:
        descriptor = _open(lock)
        try:
            if _take_open(descriptor, lock, what, us, tell):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            raise not_writable(lock, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take_open(descriptor: int, lock: Path, what: Path, us: Owner, tell: Tell) -> bool:
    """Take a lock whose file is open; False if its owner has just deleted the file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EEXIST, "something else has this name")
    kernel_locks = _flock(descriptor)
    if kernel_locks is None:
        raise _in_use(what, _named(descriptor))
    if not _is_there(descriptor, lock):
        return False
    content = _read(descriptor)
    owner = from_json(content)
    if kernel_locks:
        _pass_over(descriptor, owner, us, what, tell)
    elif content:
        _refuse_unless_gone(descriptor, owner, us, lock, what, tell)
    _write(descriptor, us)
    if not kernel_locks:
        time.sleep(SETTLING)
        if not (_is_there(descriptor, lock) and from_json(_read(descriptor)) == us):
            raise _in_use(what, _named(descriptor))
    return True


def _flock(descriptor: int) -> bool | None:
    """Take the system's lock: True if we have it, None if another has, False if there is none."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True


def _pass_over(descriptor: int, owner: Owner | None, us: Owner, what: Path, tell: Tell) -> None:
    """Say whose lock is taken over; that of another machine not before it was watched."""
    if owner is None:
        return  # new; or its owner was killed before it wrote its name
    who = owner.describe(us.since)
    if owner.host == us.host:
        gone = why_gone(owner, us) or "it has let go of the lock"
        tell(f"{str(what)!r} was left behind by {who}: {gone}; taking over")
        return
    tell(f"{str(what)!r} is locked by {who}; waiting {SILENCE:.0f} s for a sign of life of it")
    before, began = os.fstat(descriptor).st_mtime_ns, time.monotonic()
    while time.monotonic() < began + SILENCE:
        time.sleep(min(HEARTBEAT, SILENCE))
        if os.fstat(descriptor).st_mtime_ns != before:
            raise _in_use(what, owner)
    tell(f"{str(what)!r} was left behind: no sign of life of {who}; taking over")


def _refuse_unless_gone(
    descriptor: int, owner: Owner | None, us: Owner, lock: Path, what: Path, tell: Tell
) -> None:
    """Decide by the content alone, on a file system without locks."""
    gone = why_gone(owner, us) if owner is not None and owner.host == us.host else None
    if owner is None or gone is None:
        silent = age(time.time() - os.fstat(descriptor).st_mtime)
        more = f"; its last sign of life was {silent} ago"
        raise _in_use(
            what, owner, more, f"; if that process is gone for sure, delete {str(lock)!r}"
        )
    tell(f"{str(what)!r} was left behind by {owner.describe(us.since)}: {gone}; taking over")


def _is_there(descriptor: int, lock: Path) -> bool:
    """Whether a file is still the one that has the lock's name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(lock))
    except FileNotFoundError:
        return False


def _named(descriptor: int) -> Owner | None:
    """Return whom a lock names; an owner that is just taking it gets the time to write."""
    for _ in range(10):
        owner = from_json(_read(descriptor))
        if owner is not None:
            return owner
        time.sleep(SETTLING / 10)
    return None


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, LARGEST)


def _write(descriptor: int, us: Owner) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, to_json(us))


def _show_life(lock: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(lock)


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
