"""Progress of a meta-training: a live bar on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Mapping
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

from mulo_cli.cli.tables import duration, with_unit
from mulo_cli.cli.terminal import Terminal
from mulo_cli.results.records import MetaStepRecord, ValidationRecord

SMOOTHING = 0.9
"""Decay of the running mean of meta-losses that is shown."""

PLAIN_SECONDS = 15.0
"""Between two plain lines."""


@runtime_checkable
class MetaProgress(Protocol):
    """A display of a meta-training."""

    def start(self, step: int, total: int) -> None:
        """Begin at a meta-step."""

    def update(self, seen: "Seen") -> None:
        """Show what has been seen."""

    def stop(self) -> None:
        """End, however the run ended."""


class Seen:
    """What has been seen of a run so far: smoothed meta-loss, best validation, speed."""

    def __init__(self) -> None:
        self.step = 0
        self.meta_loss: float | None = None
        self.validation: float | None = None
        self.best: tuple[float, int] | None = None
        self.rate: float | None = None
        self.fresh_validation = False

    def resume(self, step: int, best: tuple[float, int] | None) -> None:
        """Start from what a former session had reached."""
        self.step, self.best = step, best

    def add(self, record: MetaStepRecord | ValidationRecord) -> None:
        """Take in one record."""
        self.fresh_validation = isinstance(record, ValidationRecord)
        if isinstance(record, ValidationRecord):
            self.validation = sum(record.mean_loss.values()) / len(record.mean_loss)
            if record.best:
                self.best = (self.validation, record.step)
            return
        self.step = record.step + 1
        self.meta_loss = _smooth(self.meta_loss, record.meta_loss)
        self.rate = record.inner_steps_per_second

    def describe(self) -> str:
        """Return everything in one line."""
        parts = []
        if self.meta_loss is not None:
            parts.append(f"meta-loss {self.meta_loss:.3f}")
        if self.best is not None:
            parts.append(f"best validation {self.best[0]:.3f} (step {self.best[1]})")
        if self.rate is not None:
            parts.append(f"{with_unit(self.rate)} inner steps/s")
        return " · ".join(parts) or "compiling"


class LiveProgress:
    """A bar on a terminal's stderr; it vanishes at the end and leaves the summary line."""

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

    def start(self, step: int, total: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task("compiling", total=total, completed=step)
        self._progress.start()

    def update(self, seen: Seen) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=seen.step, description=seen.describe())

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class PlainProgress:
    """A line at each validation, and every so often between them."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._total = self._first = 0
        self._began = self._next = 0.0

    def start(self, step: int, total: int) -> None:
        """Say where the run begins."""
        self._total, self._first = total, step

    def update(self, seen: Seen) -> None:
        """Write a line if there is something to say, or it is time."""
        now = time.monotonic()
        if seen.step <= self._first + 1:
            self._began = now  # the first step compiles: it tells nothing about the others
        if not seen.fresh_validation and now < self._next:
            return
        self._next = now + PLAIN_SECONDS
        validation = f" · validation {seen.validation:.3f}" if seen.fresh_validation else ""
        self._terminal.info(
            f"meta-step {seen.step}/{self._total}{validation} · {seen.describe()}"
            f"{self._time_left(seen.step, now)}"
        )

    def _time_left(self, step: int, now: float) -> str:
        if step <= self._first + 1:
            return ""
        seconds = (now - self._began) / (step - self._first - 1) * (self._total - step)
        return f" · about {duration(seconds)} left" if seconds else ""

    def stop(self) -> None:
        """Nothing is left to remove."""


def meta_progress(terminal: Terminal) -> MetaProgress:
    """Return the display that fits the terminal."""
    return LiveProgress(terminal) if terminal.interactive else PlainProgress(terminal)


def _smooth(average: float | None, by_task: Mapping[str, float]) -> float:
    mean = sum(by_task.values()) / len(by_task)
    return mean if average is None else SMOOTHING * average + (1 - SMOOTHING) * mean
