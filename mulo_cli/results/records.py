"""The records that engines yield: frozen, of plain numbers and strings, ready for JSON.

A number that is not finite is stored as null: JSON has no word for it.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        skipped: whether it left theta as it was, because its gradient was not finite.
    """

    step: int
    meta_loss: Mapping[str, float]
    gradient_norm: float
    signal_to_noise: Mapping[str, float]
    perturbation_norm: Mapping[str, float]
    diverged_pairs: Mapping[str, int]
    inner_steps_per_second: float
    skipped: bool = False
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


@dataclass(frozen=True, order=True)
class SuitePlace:
    """Where a task stands in a suite; nothing but empty words outside of one.

    Attributes:
        suite: its name.
        suite_task: name of the task there.
        family: of the tasks that differ from it in size alone.
        sizes: which sizes of its family it is (the widest may be `xl` and `xxl`).
    """

    suite: str = ""
    suite_task: str = ""
    family: str = ""
    sizes: tuple[str, ...] = ()


NOWHERE = SuitePlace()
"""The place of a task that was not asked for as part of a suite."""


@dataclass(frozen=True)
class EvaluationIdentity:
    """Everything that the result of one training depends on; its fields come first in a row.

    Beside it stands where the training was asked for: no result depends on that, and no hash.

    Attributes:
        optimizer: as the user named it.
        settings: what that stood for: every hyper-parameter of a hand-designed optimizer, and its
            schedule; the checksum of a learned one's theta.
        parametrization: of the network: it belongs to the optimizer.
        recipe_digest: of the recipe a learned optimizer was meta-trained with, else null.
        task: name of the network.
        real: whether the data set is real data.
        seed: of the initialisation and the order of the data.
        steps: length of the training.
        at: steps at which the smoothed loss is told.
        window: steps that it is the mean of.
        data: digest of the data, where its name and this version do not tell it; else empty.
        suite, suite_task, family, sizes: its `SuitePlace`, by which ranks are averaged.
    """

    optimizer: str
    settings: Mapping[str, float | str]
    parametrization: str
    recipe_digest: str | None
    task: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int
    seed: int
    steps: int
    at: tuple[int, ...]
    window: int
    code_version: str
    data: str = field(default="", kw_only=True)
    suite: str = field(default="", kw_only=True)
    suite_task: str = field(default="", kw_only=True)
    family: str = field(default="", kw_only=True)
    sizes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def place(self) -> SuitePlace:
        """Where it stands in a suite."""
        return SuitePlace(self.suite, self.suite_task, self.family, self.sizes)


@dataclass(frozen=True)
class EvaluationRow(EvaluationIdentity):
    """One training of one network with one optimizer.

    Attributes:
        smoothed_loss: step -> mean training loss of the `window` steps up to it, for each step in
            `at` (in JSON the steps are strings); null from the step on at which the run diverged.
        status: "diverged" if any step's loss was not finite.
        diverged_at: the first such step, counted from 1.
        test_accuracy: after the last step.
        curve: mean training loss of successive stretches of `curve_every` steps.
        parameters: of the network.
        optimizer_state_bytes: what the optimizer remembers of this one network.
        seconds_per_step: of one network; networks of several seeds are trained side by side.
    """

    smoothed_loss: Mapping[int, float | None]
    status: Literal["ok", "diverged"]
    diverged_at: int | None
    test_accuracy: float | None
    curve_every: int
    curve: tuple[float | None, ...]
    parameters: int
    optimizer_state_bytes: int
    seconds_per_step: float
    kind: Literal["evaluation"] = "evaluation"

    def __post_init__(self) -> None:
        """Hold the losses against the steps that were asked for."""
        if not self.at or set(self.at) != set(self.smoothed_loss):
            raise ValueError(f"smoothed_loss is not told at the steps of at = {list(self.at)}")

    @property
    def final_loss(self) -> float | None:
        """The smoothed loss at the last step asked for."""
        return self.smoothed_loss[self.at[-1]]


def content_hash(identity: EvaluationIdentity) -> str:
    """Return the SHA-256 (hex) of an identity; a row has the hash of its identity.

    The place in a suite is no part of it: a training is the same wherever it counts.
    """
    return identity_hash(identity, EvaluationIdentity, SuitePlace)


def identity_hash(record: Any, identity: type, aside: type | None = None) -> str:
    """Return the SHA-256 (hex) of those fields of a record that are its identity.

    Args:
        record: an identity, or a record that has one.
        identity: dataclass of the identity.
        aside: dataclass of fields that do not count.
    """
    ignored = {field.name for field in dataclasses.fields(aside)} if aside else set()
    names = {field.name for field in dataclasses.fields(identity)} - ignored
    values = {name: getattr(record, name) for name in names}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def to_plain(record: Any) -> dict[str, Any]:
    """Return a record as JSON-ready values."""
    return _finite(dataclasses.asdict(record))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
