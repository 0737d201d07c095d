"""Who holds a lock: a process told apart from every other one, and whether it is still alive."""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from mulo_cli.errors import SHOWN, printable

PROCESSES = Path("/proc")
"""Where Linux tells of its processes."""

BOOT = PROCESSES / "sys/kernel/random/boot_id"
"""Another one after each start of the machine."""

STATE_FIELD, START_FIELD = 0, 19
"""What a process does, and when it began (in clock ticks after the start of the machine), among the
fields that follow its name in `/proc/PID/stat` (man 5 proc: fields 3 and 22 of all)."""

DEAD = ("Z", "X")
"""States of a process that has ended, and whose parent has not asked how."""

MODULE = "__main__.py"
"""What `python -m mulo_cli` is called."""

LARGEST_PID = 2**32 - 1
"""Of any system."""

MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Owner:
    """A process: its number alone is not enough, because numbers are used again.

    Attributes:
        host: name of its machine.
        boot: which start of that machine; empty where the system does not tell.
        pid: its number.
        started: when it began, in the system's own words; empty where nobody tells.
        command: what it was called with.
        since: when it took the lock, in seconds since 1970.
    """

    host: str
    boot: str
    pid: Annotated[int, Field(ge=0, le=LARGEST_PID)]
    started: str
    command: str
    since: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    kind: Literal["lock"] = "lock"

    def describe(self, now: float) -> str:
        """Return who that is, for people."""
        command = printable(self.command)
        shown = command if len(command) <= SHOWN else command[:SHOWN] + "..."
        host = printable(self.host[:SHOWN])
        return f"process {self.pid} on {host} (`{shown}`, begun {age(now - self.since)} ago)"


def this_process() -> Owner:
    """Return who we are."""
    program = Path(sys.argv[0]).name
    command = shlex.join(["mulo" if program == MODULE else program, *sys.argv[1:]])
    started = _started(os.getpid()) or ""
    return Owner(socket.gethostname(), _boot(), os.getpid(), started, command, time.time())


def to_json(owner: Owner) -> bytes:
    """Return what is written into a lock."""
    return (json.dumps(asdict(owner)) + "\n").encode()


def from_json(content: bytes) -> Owner | None:
    """Return whom a lock names; None where it is torn, or not a lock."""
    try:
        return TypeAdapter(Owner).validate_json(content)
    except ValidationError:
        return None


def is_neighbour(owner: Owner, us: Owner) -> bool:
    """Whether a process is of this machine, and of this start of it.

    A name alone is not enough: two machines may have one.
    """
    return (owner.host, owner.boot) == (us.host, us.boot)


def why_gone(owner: Owner, us: Owner, *, silent: bool) -> str | None:
    """Return why a process is surely gone; None where it lives, or nobody can tell.

    Args:
        owner: the process.
        us: who asks.
        silent: whether it has shown no sign of life for longer than it would.
    """
    if owner.host != us.host:
        return None
    if owner.boot != us.boot:  # or it is of another machine of this name, and alive
        return "the machine has been started anew since" if silent else None
    started = _started(owner.pid)
    if started is None:
        return "that process is gone"
    if started and owner.started and started != owner.started:
        return "that process is gone (its number is another one's now)"
    return None


def age(seconds: float) -> str:
    """Return a stretch of time for people, in its two largest units."""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def _boot() -> str:
    with suppress(OSError):
        return BOOT.read_text("ascii").strip()
    return ""


def _started(pid: int) -> str | None:
    """Return when a process began; None if there is none, empty if the system does not tell."""
    if PROCESSES.joinpath("self", "stat").exists():
        try:
            told = (PROCESSES / str(pid) / "stat").read_text("utf-8", errors="replace")
        except OSError:
            return None
        fields = told.rpartition(")")[2].split()
        return None if fields[STATE_FIELD] in DEAD else fields[START_FIELD]
    if sys.platform == "win32":
        return ""
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        return ""
