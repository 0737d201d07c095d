"""The meta-loop: step, validate, save; a generator of records that can be stopped and resumed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mulo_cli.artefacts.trees import tree_checksum
from mulo_cli.errors import NumericalError
from mulo_cli.gradient_estimators.base import GradientEstimator
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.meta_training.checkpoints import BestTheta, Checkpoints, Restored, RunState
from mulo_cli.meta_training.kept_programs import KeptPrograms
from mulo_cli.meta_training.meta_step import (
    MetaState,
    MetaStepInfo,
    make_init,
    make_meta_step,
    no_info,
)
from mulo_cli.meta_training.programs import (
    CompileLater,
    Program,
    Source,
    compiling_side_by_side,
)
from mulo_cli.meta_training.validation import ValidationConfig, ValidationLosses, make_validators
from mulo_cli.mup.roles import leaf_name
from mulo_cli.results.records import MetaStepRecord, ValidationRecord
from mulo_cli.tasks.base import Task
from mulo_cli.types import Theta


@dataclass(frozen=True)
class MetaTraining:
    """Everything static of a meta-training.

    Attributes:
        tasks: one per width.
        learned_optimizer: what is meta-trained.
        estimators: one per task.
        optimizer: of theta.
        validation: when and how theta is validated.
        steps: meta-steps in all.
        seed: root of all randomness.
        checkpoint_every: meta-steps between checkpoints.
        inner_steps: inner steps of one meta-step, all runs together.
    """

    tasks: tuple[Task, ...]
    learned_optimizer: LearnedOptimizer
    estimators: tuple[GradientEstimator, ...]
    optimizer: optax.GradientTransformation
    validation: ValidationConfig
    steps: int
    seed: int
    checkpoint_every: int
    inner_steps: int


@dataclass(frozen=True)
class Begun:
    """The first record: where the run begins."""

    step: int
    damaged_checkpoints: tuple[int, ...]
    best: tuple[float, int] | None
    """Lowest meta-validation loss so far, and its meta-step; None before the first."""


@dataclass(frozen=True)
class Ended:
    """The last record: the run is finished, or was saved because somebody asked it to stop."""

    begun: int
    """Meta-steps that were done before this session."""
    step: int
    finished: bool
    best: BestTheta
    theta: Theta
    checksum: str
    """Of the last theta."""


MetaRecord: TypeAlias = Begun | MetaStepRecord | ValidationRecord | Ended


def meta_train(
    training: MetaTraining,
    checkpoints: Checkpoints,
    should_stop: Callable[[], bool],
    kept: KeptPrograms | None = None,
) -> Iterator[MetaRecord]:
    """Meta-train from the newest checkpoint, or from the beginning, to the end.

    The randomness of a step is a function of the seed and the step, and everything else the step
    depends on is in the checkpoint: a resumed run ends with the same bits as an uninterrupted one.

    Args:
        training: what to do.
        checkpoints: where the run is saved.
        should_stop: asked after every record; when it says yes the run is saved and ends.
        kept: where traced programs are looked for and kept; of this very meta-training.

    Yields:
        `Begun`, then meta-step and validation records, then `Ended`.

    Raises:
        NumericalError: theta is not finite any more.
        CheckpointError: the run cannot be saved or read back.
    """
    root = jax.random.key(training.seed)
    init = make_init(training.learned_optimizer, training.estimators, training.optimizer)
    shapes = jax.eval_shape(init, root)
    restored = checkpoints.restore_latest(_shapes_of_run(shapes))
    begun = _begun(restored)
    yield begun
    step, finished = begun.step, False
    with compiling_side_by_side(kept) as compile_later:
        first = None if restored else compile_later(Source("init", init, (root,), shapes))
        programs = _compile(training, shapes, root, compile_later)
        state = restored.state if restored else _first_state(cast(Program, first)(root))
        while not should_stop():
            if step % training.validation.every == 0 or step == training.steps:
                losses = jax.device_get(programs.validate(state.meta.theta))
                state, record = _judge(training.tasks, state, losses, step)
                yield record
            finished = step == training.steps
            if finished or should_stop():
                break
            state, record = _advance(training, programs, state, step)
            yield record
            step += 1
            if step % training.checkpoint_every == 0:
                checkpoints.save(state)
    if step % training.checkpoint_every or step == 0:
        checkpoints.save(state)
    yield Ended(
        begun=begun.step,
        step=step,
        finished=finished,
        best=jax.device_get(state.best),
        theta=jax.device_get(state.meta.theta),
        checksum=tree_checksum(state.meta.theta),
    )


class _Programs(NamedTuple):
    """What the loop calls; the first call of each may wait for its compilation."""

    meta_step: Callable[[MetaState], tuple[MetaState, MetaStepInfo]]
    validate: Callable[[Theta], list[ValidationLosses]]


def _compile(
    training: MetaTraining, shapes: MetaState, root: jax.Array, compile_later: CompileLater
) -> _Programs:
    """Trace all programs and begin to compile them, the longest one first."""
    data = tuple(jax.tree.map(jnp.asarray, task.data) for task in training.tasks)
    meta_step = make_meta_step(training.estimators, training.optimizer)
    stepped = (shapes, no_info(len(training.tasks)))
    step_program = compile_later(
        Source("meta_step", meta_step, (shapes, root, data), stepped, donates_first=True)
    )
    losses = ValidationLosses(jnp.float32(0), jnp.float32(0))
    validators = make_validators(training.tasks, training.learned_optimizer, training.validation)
    validations = [
        compile_later(Source(f"validate_{i}", validate, (shapes.theta, root, of_task), losses))
        for i, (validate, of_task) in enumerate(zip(validators, data, strict=True))
    ]

    def validate(theta: Theta) -> list[ValidationLosses]:
        return [v(theta, root, of_task) for v, of_task in zip(validations, data, strict=True)]

    return _Programs(lambda state: step_program(state, root, data), validate)


def _advance(
    training: MetaTraining, programs: _Programs, state: RunState, step: int
) -> tuple[RunState, MetaStepRecord]:
    """Do one meta-step."""
    started = time.perf_counter()
    meta, info = programs.meta_step(state.meta)
    info = jax.device_get(info)
    _refuse_non_finite(meta.theta, info)
    rate = training.inner_steps / (time.perf_counter() - started)
    return RunState(meta, state.best), _step_record(training.tasks, step, info, rate)


def _begun(restored: Restored | None) -> Begun:
    """Say where the run goes on."""
    if restored is None:
        return Begun(0, (), None)
    best = restored.state.best
    known = (float(best.loss), int(best.step)) if np.isfinite(best.loss) else None
    return Begun(int(restored.state.meta.step), restored.damaged, known)


def _first_state(meta: MetaState) -> RunState:
    return RunState(meta, _best(meta.theta, float("inf"), 0))


def _shapes_of_run(meta: MetaState) -> RunState:
    """Return the shapes of a run's whole state."""

    def run(meta: MetaState) -> RunState:
        return RunState(meta, BestTheta(meta.theta, jnp.float32(0), jnp.int32(0)))

    return jax.eval_shape(run, meta)


def _best(theta: Theta, loss: float, step: int) -> BestTheta:
    """Keep a copy of theta: the meta-step donates its own."""
    copy = jax.tree.map(lambda leaf: np.array(leaf, copy=True), theta)
    return BestTheta(*jax.device_put((copy, np.float32(loss), np.int32(step))))


def _judge(
    tasks: tuple[Task, ...], state: RunState, losses: list[ValidationLosses], step: int
) -> tuple[RunState, ValidationRecord]:
    """Keep theta if no earlier one had a lower loss averaged over tasks."""
    loss = float(np.mean([of_task.mean for of_task in losses]))
    # a theta that is validated again after resuming is the best once more
    better = loss < float(state.best.loss) or step == int(state.best.step)
    if better:
        state = state._replace(best=_best(state.meta.theta, loss, step))
    record = ValidationRecord(
        step=step,
        mean_loss={t.name: float(of.mean) for t, of in zip(tasks, losses, strict=True)},
        final_loss={t.name: float(of.final) for t, of in zip(tasks, losses, strict=True)},
        best=better,
    )
    return state, record


def _step_record(
    tasks: tuple[Task, ...], step: int, info: MetaStepInfo, rate: float
) -> MetaStepRecord:
    estimates = {task.name: of_task for task, of_task in zip(tasks, info.estimates, strict=True)}
    return MetaStepRecord(
        step=step,
        meta_loss={task: float(e.meta_loss) for task, e in estimates.items()},
        gradient_norm=float(info.gradient_norm),
        signal_to_noise={task: float(e.signal_to_noise) for task, e in estimates.items()},
        perturbation_norm={task: float(e.perturbation_norm) for task, e in estimates.items()},
        diverged_pairs={task: int(e.diverged_pairs) for task, e in estimates.items()},
        inner_steps_per_second=rate,
    )


def _refuse_non_finite(theta: Theta, info: MetaStepInfo) -> None:
    if info.theta_is_finite:
        return
    for path, leaf in jax.tree.leaves_with_path(jax.device_get(theta)):
        if not np.isfinite(leaf).all():
            raise NumericalError(
                f"meta-parameter {leaf_name(path)!r} is not finite after a meta-step",
                "the checkpoints are from before; lower meta_optimizer.learning_rate or "
                "estimator.sigma and start anew",
            )
