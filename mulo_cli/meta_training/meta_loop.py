"""The meta-loop: step, validate, save; a generator of records that can be stopped and resumed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mulo_cli.artefacts.trees import tree_checksum
from mulo_cli.errors import NumericalError
from mulo_cli.meta_training.checkpoints import BestTheta, Checkpoints, Restored, RunState
from mulo_cli.meta_training.crossing import anybody, same_everywhere, sent
from mulo_cli.meta_training.engine import (
    Engine,
    Placed,
    Work,
    begin,
    collect,
    compile_engine,
    put_in_place,
    state_shapes,
)
from mulo_cli.meta_training.kept_programs import KeptPrograms
from mulo_cli.meta_training.layout import Layout
from mulo_cli.meta_training.meta_step import MetaState, MetaStepInfo
from mulo_cli.meta_training.programs import compiling_side_by_side
from mulo_cli.meta_training.training import MetaTraining, lay_out
from mulo_cli.meta_training.validation import ValidationLosses
from mulo_cli.mup.roles import leaf_name
from mulo_cli.results.records import MetaStepRecord, ValidationRecord
from mulo_cli.tasks.base import Task
from mulo_cli.types import Theta

MOST_SKIPPED = 20
"""Meta-steps in a row whose gradient may be not finite: a run that went wrong ends by then, as a
rule, and its pair begins anew."""


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
    saved: int
    """Meta-steps that are saved; fewer in the middle of gradients that are not finite."""
    skipped: int
    """Meta-steps, of all, that left theta as it was: their gradient was not finite."""
    finished: bool
    best: BestTheta
    theta: Theta
    checksum: str
    """Of the last theta."""


MetaRecord: TypeAlias = Begun | MetaStepRecord | ValidationRecord | Ended


def meta_train(
    training: MetaTraining,
    checkpoints: Checkpoints | None,
    should_stop: Callable[[], bool],
    kept: KeptPrograms | None = None,
    layout: Layout | None = None,
) -> Iterator[MetaRecord]:
    """Meta-train from the newest checkpoint, or from the beginning, to the end.

    The randomness of a step is a function of the seed and the step, and everything else the step
    depends on is in the checkpoint: a resumed run ends with the same bits as an uninterrupted one,
    on whatever layout each part of it is done.

    Args:
        training: what to do.
        checkpoints: where the run is saved; None in all processes but the first.
        should_stop: asked after every record; when it says yes, to any process, the run is saved
            and ends.
        kept: where traced programs are looked for and kept; of this very meta-training.
        layout: which device does what; by default that of `lay_out`.

    Yields:
        `Begun`, then meta-step and validation records, then `Ended`; in all processes alike.

    Raises:
        NumericalError: theta is not finite any more, or many gradients in a row were not.
        CheckpointError: the run cannot be saved or read back.
    """
    work = Work(training, layout or lay_out(training, jax.devices()))
    shapes = state_shapes(training)
    restored = _restore(checkpoints, shapes)
    begun = _begun(restored)
    yield begun
    step, saved, finished = begun.step, begun.step if restored else None, False
    skipped_in_a_row = 0  # nothing is saved in the middle of such

    def save(state: _Session) -> int | None:
        """Save, unless theta waits for a gradient that is finite: that may be trouble's end."""
        if skipped_in_a_row:
            return saved
        _refuse_drift(state.placed.shared.theta)
        whole = RunState(collect(work, shapes, state.placed), state.best)
        if checkpoints is not None:
            checkpoints.save(whole)
        return step

    with compiling_side_by_side(kept) as compile_later:
        engine = compile_engine(work, shapes, compile_later)
        state = _first_session(work, shapes, restored)
        while not anybody(should_stop()):
            if step % training.validation.every == 0 or step == training.steps:
                losses = engine.validate(state.placed.shared.theta)
                state, record = _judge(training.tasks, state, losses, step)
                yield record
            finished = step == training.steps
            if finished or anybody(should_stop()):
                break
            state, record = _advance(training, engine, state, step)
            skipped_in_a_row = skipped_in_a_row + 1 if record.skipped else 0
            yield record
            step += 1
            _refuse_trouble(skipped_in_a_row, saved)
            if step % training.checkpoint_every == 0:
                saved = save(state)
    if saved != step:
        saved = save(state)
    yield _ended(state, begun.step, saved or 0, finished=finished)


class _Session(NamedTuple):
    """A run's state while it is worked on."""

    placed: Placed
    best: BestTheta


def _restore(checkpoints: Checkpoints | None, shapes: MetaState) -> Restored | None:
    """Return what the first process reads, as arrays of every host."""
    abstract = _shapes_of_run(shapes)
    restored = None if checkpoints is None else checkpoints.restore_latest(abstract)
    if not sent(np.array(restored is not None), 0):
        return None
    nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    whole = sent(jax.device_get(restored.state) if restored else nothing, 0)
    return Restored(whole, restored.damaged if restored else ())


def _first_session(work: Work, shapes: MetaState, restored: Restored | None) -> _Session:
    """Return the state with which this session begins."""
    if restored:
        return _Session(put_in_place(work, restored.state.meta), restored.state.best)
    placed = begin(work, shapes)
    return _Session(placed, _best(placed.shared.theta, float("inf"), 0))


def _advance(
    training: MetaTraining, engine: Engine, state: _Session, step: int
) -> tuple[_Session, MetaStepRecord]:
    """Do one meta-step."""
    started = time.perf_counter()
    placed, info = engine.step(state.placed)
    info = jax.device_get(info)
    _refuse_non_finite(placed.shared.theta, info)
    rate = training.inner_steps / (time.perf_counter() - started)
    return _Session(placed, state.best), _step_record(training.tasks, step, info, rate)


def _begun(restored: Restored | None) -> Begun:
    """Say where the run goes on."""
    if restored is None:
        return Begun(0, (), None)
    best = restored.state.best
    known = (float(best.loss), int(best.step)) if np.isfinite(best.loss) else None
    return Begun(int(restored.state.meta.step), restored.damaged, known)


def _ended(state: _Session, begun: int, saved: int, *, finished: bool) -> Ended:
    shared = jax.device_get(state.placed.shared)
    return Ended(
        begun=begun,
        step=int(shared.step),
        saved=saved,
        skipped=int(shared.skipped),
        finished=finished,
        best=state.best,
        theta=shared.theta,
        checksum=tree_checksum(shared.theta),
    )


def _shapes_of_run(meta: MetaState) -> RunState:
    """Return the shapes of a run's whole state."""

    def run(meta: MetaState) -> RunState:
        return RunState(meta, BestTheta(meta.shared.theta, jnp.float32(0), jnp.int32(0)))

    return jax.eval_shape(run, meta)


def _best(theta: Theta, loss: float, step: int) -> BestTheta:
    """Keep a copy of theta on the host: the meta-step donates its own."""
    copy = jax.tree.map(lambda leaf: np.array(leaf, copy=True), jax.device_get(theta))
    return BestTheta(copy, np.array(loss, np.float32), np.array(step, np.int32))


def _judge(
    tasks: tuple[Task, ...], state: _Session, losses: list[ValidationLosses], step: int
) -> tuple[_Session, ValidationRecord]:
    """Keep theta if no earlier one had a lower loss averaged over tasks."""
    loss = float(np.mean([of_task.mean for of_task in losses]))
    # a theta that is validated again after resuming is the best once more
    better = loss < float(state.best.loss) or step == int(state.best.step)
    if better:
        state = state._replace(best=_best(state.placed.shared.theta, loss, step))
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
        skipped=bool(info.skipped),
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


def _refuse_drift(theta: Theta) -> None:
    """End a run whose processes, which all learn alike, have come to different thetas."""
    if not same_everywhere(tree_checksum(theta)):
        raise NumericalError(
            "the processes of this run have come to different meta-parameters",
            "they must run on processors of one kind, with the same versions; the last checkpoint "
            "is from before",
        )


def _refuse_trouble(skipped_in_a_row: int, saved: int | None) -> None:
    """End a run whose gradients do not become finite again; what is saved is from before."""
    if skipped_in_a_row < MOST_SKIPPED:
        return
    kept = (
        "there was no checkpoint yet"
        if saved is None
        else f"the checkpoint of meta-step {saved} is from before the trouble"
    )
    raise NumericalError(
        f"the gradients of {skipped_in_a_row} meta-steps in a row were not finite",
        f"{kept}; lower meta_optimizer.learning_rate, estimator.sigma "
        "or optimizer.step_size and start anew, or bound the task's loss",
    )
