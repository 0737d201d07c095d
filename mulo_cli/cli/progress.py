"""Progress of long work: a live bar on a terminal, a plain line now and then elsewhere."""

import time
from typing import Protocol, runtime_checkable

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mulo_cli.cli.tables import duration
from mulo_cli.cli.terminal import Terminal

PLAIN_SECONDS = 15.0
"""Between two plain lines."""


@runtime_checkable
class Display(Protocol):
    """Shows how far a command is."""

    def start(self, done: int, total: int) -> None:
        """Begin."""

    def show(self, done: int, text: str, *, important: bool = False) -> None:
        """Say how much is done, and something about it; what is important is always said."""

    def stop(self) -> None:
        """End, however the work ended."""


class LiveDisplay:
    """A bar on a terminal's stderr; it vanishes at the end and leaves the result."""

    def __init__(self, terminal: Terminal) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=terminal.err,
            transient=True,
        )

    def start(self, done: int, total: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task("compiling", total=total, completed=done)
        self._progress.start()

    def show(self, done: int, text: str, *, important: bool = False) -> None:
        """Move the bar."""
        del important  # everything is shown
        self._progress.update(self._task, completed=done, description=text)

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class PlainDisplay:
    """A line for what is important, and every so often between.

    Args:
        terminal: whose stderr the lines go to.
        noun: what is counted.
    """

    def __init__(self, terminal: Terminal, noun: str) -> None:
        self._terminal, self._noun = terminal, noun
        self._total = 0
        self._first: tuple[int, float] | None = None
        self._next = 0.0

    def start(self, done: int, total: int) -> None:
        """Take notice of how much there is to do."""
        del done
        self._total = total

    def show(self, done: int, text: str, *, important: bool = False) -> None:
        """Write a line if there is something to say, or it is time."""
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)  # what came before was compilation: it tells nothing
        if not important and now < self._next:
            return
        self._next = now + PLAIN_SECONDS
        left = self._time_left(done, now)
        self._terminal.info(f"{self._noun} {done}/{self._total} · {text}{left}")

    def _time_left(self, done: int, now: float) -> str:
        assert self._first is not None  # `show` has just seen to it
        since, began = self._first
        if done <= since or done >= self._total:
            return ""
        seconds = (now - began) / (done - since) * (self._total - done)
        return f" · about {duration(seconds)} left"

    def stop(self) -> None:
        """Nothing is left to remove."""


def display(terminal: Terminal, noun: str) -> Display:
    """Return the display that fits the terminal; `noun` is what is counted."""
    return LiveDisplay(terminal) if terminal.interactive else PlainDisplay(terminal, noun)
