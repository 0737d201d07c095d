"""What is worth telling while a meta-training runs."""

from collections.abc import Mapping

from mulo_cli.cli.tables import with_unit
from mulo_cli.results.records import MetaStepRecord, ValidationRecord

SMOOTHING = 0.9
"""Decay of the running mean of meta-losses that is shown."""


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
        if self.validation is not None:
            parts.append(f"validation {self.validation:.3f}")
        if self.meta_loss is not None:
            parts.append(f"meta-loss {self.meta_loss:.3f}")
        if self.best is not None:
            parts.append(f"best validation {self.best[0]:.3f} (step {self.best[1]})")
        if self.rate is not None:
            parts.append(f"{with_unit(self.rate)} inner steps/s")
        return " · ".join(parts) or "compiling"


def _smooth(average: float | None, by_task: Mapping[str, float]) -> float:
    mean = sum(by_task.values()) / len(by_task)
    return mean if average is None else SMOOTHING * average + (1 - SMOOTHING) * mean
