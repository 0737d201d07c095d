"""One hostile input, tried: it may be refused with an error of ours, and nothing else may happen.

What counts as a finding: an exception that is no `MuloError` (nor one of the file system, which
`mulo` tells as it is), more than some seconds, more than some memory, a file written or removed
outside of the chosen folder, another program started.
"""

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from mulo_cli.errors import MuloError

SECONDS = 5.0
"""Processor time of one input, looked at as often in wall time."""

WAITING = 3
"""Looks, after which it is late though others have the processor, or though nothing is done."""

HANGING = 4.0
"""Times as long, after which the process ends: something written in C hears no alarm."""

GROWTH = 2 * 2**30
"""Bytes by which the largest resident size of the process may grow while one input is read."""

FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
)
"""Events of Python's auditing that no reader of a file has a reason for."""

CHANGING = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
)
TO = ("os.symlink", "os.link")
"""Events whose first path is what a link leads to."""

PROCESS = Path("/proc/self")
RESET_PEAK = "5"
"""What Linux is told to begin anew with the largest resident size."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Finding(AssertionError):
    """Something that no input may bring about.

    Attributes:
        kind: what happened and where; equal for inputs that meet the same defect.
    """

    def __init__(self, kind: str, details: str = "") -> None:
        super().__init__(f"{kind}: {details}" if details else kind)
        self.kind = kind


class _Late(BaseException):
    """The alarm: no reader catches it by accident."""


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    Attributes:
        name: of the target.
        inputs: what it is given.
        read: (input, folder of its own) -> anything; may write into the folder only.
        cost: rough seconds of one input, for how many are tried by default.
    """

    name: str
    inputs: SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    cost: float = 0.003


class Watch:
    """Listens to Python's own auditing: what is opened for writing, moved, deleted, started."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments!r}"[:300])
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            self._note(event, arguments[0])
        elif event in CHANGING:
            for path in arguments[event in TO : 2]:
                self._note(event, path)

    def _note(self, event: str, path: Any) -> None:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str) or self.allowed is None:
            return  # a descriptor, or flags
        # of a link that is made or removed, the place of the link counts
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if event == "open":
            real = os.path.realpath(path)
        if real != os.devnull and "__pycache__" not in real and not real.startswith(self.allowed):
            self.seen.append(f"{event} {path!r}")


WATCH = Watch()


def attempt(target: Target, value: Any) -> str:
    """Try one input in a folder that is made for it; return whether it was read or refused.

    Raises:
        Finding: something happened that must not.
    """
    with tempfile.TemporaryDirectory(prefix="mulo-fuzz-") as outer:
        folder = Path(outer).resolve() / "chosen"
        folder.mkdir()
        before = _peak(anew=True)
        with _watched(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = _read(target, value, folder)
        grown = _peak() - before
        if grown > GROWTH:
            raise Finding(f"{target.name}: memory", f"grew by {grown / 2**20:.0f} MiB")
        if WATCH.seen:
            raise Finding(f"{target.name}: {WATCH.seen[0]}")
        if strange := [path.name for path in Path(outer).iterdir() if path.name != "chosen"]:
            raise Finding(f"{target.name}: left {strange} outside of its folder")
    return outcome


def _peak(*, anew: bool = False) -> int:
    """Return the largest resident size in bytes: since the last time it was begun anew.

    Where Linux does not tell, since the process began; then a former peak hides a smaller one.
    """
    try:
        if anew:
            (PROCESS / "clear_refs").write_text(RESET_PEAK)
        told = (PROCESS / "status").read_text("ascii", errors="replace")
        return int(told.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _read(target: Target, value: Any, folder: Path) -> str:
    try:
        with alarm():
            target.read(value, folder)
    except MuloError as error:
        if not (error.message and error.hint):
            raise Finding(f"{target.name}: an error without words or hint") from error
        return "refused"
    except _Late as late:
        raise Finding(f"{target.name}: more than {SECONDS:g} s at {place_of(late)}") from late
    except OSError:
        return "refused"  # `mulo` tells what the file system says
    except Finding:
        raise
    except Exception as error:
        kind = f"{target.name}: {type(error).__name__} at {place_of(error)}"
        raise Finding(kind, str(error)[:200]) from error
    return "read"


def place_of(error: BaseException) -> str:
    """Return the last place in our code that an exception came through, innermost cause first."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}mulo_cli{os.sep}" in frame.filename]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).parent.name}/{Path(frame.filename).name}:{frame.lineno}"


@contextmanager
def alarm() -> Iterator[None]:
    """Interrupt what takes too long, and end the process where that is not heard."""
    began, looks = time.process_time(), 0

    def ring(*_: Any) -> None:
        nonlocal looks
        looks += 1
        if looks == WAITING or time.process_time() - began > SECONDS:
            raise _Late

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    faulthandler.dump_traceback_later(HANGING * SECONDS, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Listen while an input is read; only its folder may be written, and the tests' cache."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder))
    WATCH.seen.clear()
    WATCH.allowed = (str(folder), os.path.realpath(cache))
    try:
        yield
    finally:
        WATCH.allowed = None
