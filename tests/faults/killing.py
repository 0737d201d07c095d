"""Commands that are killed at moments which a seed chooses, and what of them was killed when."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cli.programs import environment

SEED = 8
"""Of all moments: another one tries others."""


LONGEST = 600
"""Seconds after which a command hangs, on a machine that has other work as well."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (-9: killed), after how many seconds, and what it said."""

    code: int
    seconds: float
    said: str


Moment = Callable[[float], bool]
"""Whether to kill now, asked again and again with the seconds since the start."""


class Commands:
    """Runs commands one after the other, each in a process of its own."""

    def __init__(self) -> None:
        self._zygote = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path))),
        )

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream(self._zygote.stdin).close()
        self._zygote.wait(timeout=60)
        self._stream(self._zygote.stdout).close()

    def run(self, *arguments: str, cwd: Path, kill_at: Moment = lambda _: False) -> Ended:
        """Run a command until it ends, or is killed (by SIGKILL)."""
        said, answers = cwd / "said.txt", self._stream(self._zygote.stdout)
        order = {"arguments": arguments, "cwd": str(cwd), "said": str(said)}
        started = time.monotonic()
        self._stream(self._zygote.stdin).write(json.dumps(order).encode() + b"\n")
        process = int(self._line())
        while not select.select([answers], [], [], 0)[0]:
            seconds = time.monotonic() - started
            if seconds > LONGEST or kill_at(seconds):
                os.kill(process, signal.SIGKILL)  # the zygote has not asked for it: it is still it
                break
            time.sleep(0.0003)
        code = int(self._line())
        assert time.monotonic() - started <= LONGEST, said.read_text(errors="replace")
        return Ended(code, time.monotonic() - started, said.read_text(errors="replace"))

    def _line(self) -> bytes:
        return self._stream(self._zygote.stdout).readline()

    @staticmethod
    def _stream(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None
        return stream


def chance(what: str, number: int) -> random.Random:
    """Return the source of one attempt's moments: the same in every run of the tests."""
    return random.Random(f"{SEED} {what} {number}")


def after(seconds: float) -> Moment:
    """Return the moment so long after the start."""
    return lambda now: now >= seconds


def once(happened: Callable[[], bool], times: int, later: float) -> Moment:
    """Return a moment shortly after something has begun to be true for the n-th time.

    Args:
        happened: asked again and again.
        times: n.
        later: seconds after that.
    """
    seen, was, since = 0, False, float("inf")

    def moment(now: float) -> bool:
        nonlocal seen, was, since
        now_is = happened()
        if now_is and not was:
            seen += 1
            if seen == times:
                since = now
        was = now_is
        return now >= since + later

    return moment


def saving(run: Path) -> Callable[[], bool]:
    """Return whether a checkpoint is being written."""
    return lambda: any((run / "checkpoints").glob("*.draft"))


def growing(path: Path) -> Callable[[], bool]:
    """Return whether a file has changed since this was asked last."""
    last = -1

    def has_grown() -> bool:
        nonlocal last
        size = path.stat().st_size if path.exists() else 0
        last, before = size, last
        return size != before

    return has_grown
