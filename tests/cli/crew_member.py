"""Be one of several processes, do one thing, and end as `mulo meta-train` would.

    python -m tests.cli.crew_member COORDINATOR COUNT INDEX ACT [SECONDS_TO_MEET]

Run by the tests of processes that die: what counts is how the others end, not what was trained.
"""

import sys
import time

from mulo_cli.cli import distributed
from mulo_cli.cli.distributed import crew_of, refuse_unlike, together
from mulo_cli.cli.render import silence_libraries
from mulo_cli.cli.terminal import Terminal
from mulo_cli.errors import NumericalError

HEARTBEAT_SECONDS = 8
"""Users have 30: tests would wait for that."""

PATIENCE = 60.0
"""Seconds of work, for those who are to be interrupted in it."""


def work() -> None:
    """Do something that no other process has to do with."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(0.01)


def gather() -> None:
    """Ask the others, again and again."""
    from mulo_cli.meta_training.crossing import anybody

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        anybody(False)


def fail() -> None:
    """Have something to complain about."""
    raise NumericalError("theta is not finite", "start anew")


ACTS = {"work": work, "gather": gather, "fail": fail, "end": lambda: None}


def main(coordinator: str, count: str, index: str, act: str, meeting: str = "300") -> None:
    """Join the others, say so, and act."""
    distributed.MEETING_SECONDS, distributed.HEARTBEAT_SECONDS = int(meeting), HEARTBEAT_SECONDS
    silence_libraries()
    crew = crew_of(int(index), int(count), coordinator, {}, distributed=False, alone=False)
    with together(Terminal(), crew):
        if act.startswith("recipe-"):
            refuse_unlike(crew, act.removeprefix("recipe-"), "recipes")
        print("joined", flush=True)
        ACTS.get(act, lambda: None)()


if __name__ == "__main__":
    main(*sys.argv[1:])
