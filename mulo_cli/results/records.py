"""The records that engines yield: frozen, of plain numbers and strings, ready for JSON.

A number that is not finite is stored as null: JSON has no word for it.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class MetaStepRecord:
    """One meta-step; mappings are by task name.

    Attributes:
        step: meta-steps done before this one.
        meta_loss: bounded inner loss, averaged over the truncation, both signs and all pairs.
        gradient_norm: of the meta-gradient averaged over tasks, before clipping.
        signal_to_noise: norm of the mean gradient over pairs divided by its standard error; an
            estimate of pure noise has about 1.
        perturbation_norm: norm of the credited perturbation (PES: xi), mean over pairs.
        diverged_pairs: pairs with a loss that was not finite or above the ceiling.
        inner_steps_per_second: inner steps of all runs together.
    """

    step: int
    meta_loss: Mapping[str, float]
    gradient_norm: float
    signal_to_noise: Mapping[str, float]
    perturbation_norm: Mapping[str, float]
    diverged_pairs: Mapping[str, int]
    inner_steps_per_second: float
    kind: Literal["meta-step"] = "meta-step"


@dataclass(frozen=True)
class ValidationRecord:
    """One meta-validation; mappings are by task name.

    Attributes:
        step: meta-steps done before it.
        mean_loss: bounded loss averaged over a whole training and over seeds.
        final_loss: the same over the last steps of the window.
        best: whether no earlier theta had a lower mean loss over tasks.
    """

    step: int
    mean_loss: Mapping[str, float]
    final_loss: Mapping[str, float]
    best: bool
    kind: Literal["validation"] = "validation"


@dataclass(frozen=True)
class EvaluationRow:
    """One training of one network with one optimizer.

    Attributes:
        optimizer: as the user named it.
        parametrization: of the network: it belongs to the optimizer.
        real: whether the data set is real data.
        smoothed_loss: mean training loss of the last `window` steps; null if it diverged.
        status: "diverged" if any step's loss was not finite.
        diverged_at: the first such step, counted from 1.
        curve: mean training loss of successive stretches of `curve_every` steps.
    """

    optimizer: str
    parametrization: str
    task: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int
    seed: int
    steps: int
    window: int
    smoothed_loss: float | None
    status: Literal["ok", "diverged"]
    diverged_at: int | None
    test_accuracy: float | None
    curve_every: int
    curve: tuple[float | None, ...]
    seconds_per_step: float
    code_version: str
    kind: Literal["evaluation"] = "evaluation"


def to_plain(record: Any) -> dict[str, Any]:
    """Return a record as JSON-ready values."""
    return _finite(dataclasses.asdict(record))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
