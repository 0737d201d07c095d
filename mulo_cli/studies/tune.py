"""Tune: a grid of configurations as lanes of one compiled program.

muLO (B. Therien et al., 2025), appendix B, tunes AdamW and muAdam over some 500 configurations. A
configuration is a value of the traced `hyper`, so a grid is a vmap. Lanes train a segment at a
time; at its border those that have finished or diverged are refilled from the queue, and the
shape, hence the program, stays.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mulo_cli.optimizers.base import MakeOptimizer
from mulo_cli.results.records import EvaluationRow
from mulo_cli.studies.evaluate import (
    EvaluationConfig,
    EvaluationTask,
    NamedOptimizer,
    Progress,
    identity,
    sizes,
    summarise_losses,
)
from mulo_cli.studies.lanes import Lane, lane_programs, seed_keys, segments
from mulo_cli.types import Data, Hyper

MAX_LANES = 64
"""More lanes do not make better use of a few cores."""

LANES_BYTES = 2 * 2**30
"""What all lanes together may take, roughly."""

BYTES_PER_PARAMETER = 32
"""Of a lane in training: parameter, gradient, two moments and temporaries."""


@dataclass(frozen=True)
class Trial:
    """One training of the grid; the optimizers of all trials differ in `hyper` alone."""

    optimizer: NamedOptimizer
    seed: int


@dataclass
class _Seat:
    """A lane's trial, and what it has gone through."""

    trial: Trial
    free: bool = True
    losses: list[Float[np.ndarray, " K"]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        return sum(map(len, self.losses))

    def take(self, trial: Trial) -> None:
        self.trial, self.free, self.losses, self.seconds = trial, False, [], 0.0

    def add(self, losses: Float[np.ndarray, " K"], seconds: float) -> None:
        self.losses.append(losses)
        self.seconds += seconds

    def ended(self, steps: int) -> bool:
        """Whether it has done all steps, or has nothing to hope for."""
        return self.steps >= steps or not np.isfinite(self.losses[-1]).all()


class _Programs(NamedTuple):
    """Compiled; every argument and result but the data has a leading axis of lanes."""

    start: Callable[[Key[Array, " L"], Hyper], Lane]
    refill: Callable[[Lane, Bool[np.ndarray, " L"], Key[Array, " L"], Hyper], Lane]
    train: Callable[[Lane, Hyper, Data, Int[np.ndarray, "L K"]], tuple[Lane, Float[Array, "L K"]]]


def choose_lanes(trials: int, parameters: int) -> int:
    """Return a number of lanes that fits memory and fills every wave as well as the last.

    It depends on the whole grid and not on what is left of it, because a vmap over another number
    of lanes rounds differently.
    """
    fitting = LANES_BYTES // (BYTES_PER_PARAMETER * parameters)
    most = max(1, min(MAX_LANES, trials, fitting))
    waves = -(-trials // most)
    return -(-trials // waves)


def tune(
    task: EvaluationTask,
    trials: Sequence[Trial],
    config: EvaluationConfig,
    lanes: int,
    code_version: str,
) -> Iterator[Progress | EvaluationRow]:
    """Train every trial and yield its row when its lane is free, in no particular order.

    A `Progress`, after each segment, counts the steps of all trials together. A run that diverges
    gives up its lane at the end of its segment.

    Args:
        task: what is trained.
        trials: at least one.
        config: `seeds` is not looked at: trials name theirs.
        lanes: networks side by side.
        code_version: told in rows.
    """
    numbers = segments(config.steps)[0]
    queue, seats = deque(trials), [_Seat(trials[0]) for _ in range(lanes)]
    _fill(seats, queue)
    programs = _compile(task, trials[0].optimizer.make, config.steps, _inputs(seats), numbers)
    state = programs.start(*_inputs(seats))
    told = 0
    while not all(seat.free for seat in seats):
        steps = np.array([[seat.steps] for seat in seats], np.int32) + numbers
        hyper = _inputs(seats)[1]
        began = time.perf_counter()
        state, losses = programs.train(state, hyper, task.task.data, steps)
        losses = np.asarray(losses)
        seconds = (time.perf_counter() - began) / lanes
        for seat, of_lane in zip(seats, losses, strict=True):
            seat.add(of_lane, seconds)
            if not seat.free and seat.ended(config.steps):
                yield _row(task, seat, config, sizes(state.state), code_version)
                seat.free, told = True, told + 1
        refilled = _fill(seats, queue)
        if refilled.any():
            state = programs.refill(state, refilled, *_inputs(seats))
        running = sum(seat.steps for seat in seats if not seat.free)
        yield Progress(told * config.steps + running, float(np.mean(losses[np.isfinite(losses)])))


def _fill(seats: Sequence[_Seat], queue: deque[Trial]) -> Bool[np.ndarray, " L"]:
    """Give free seats to waiting trials; say which."""
    taken = np.zeros(len(seats), bool)
    for lane, seat in enumerate(seats):
        if seat.free and queue:
            seat.take(queue.popleft())
            taken[lane] = True
    return taken


def _inputs(seats: Sequence[_Seat]) -> tuple[Key[Array, " L"], Hyper]:
    """Return keys and hyper-parameters of all lanes; free ones keep those they had."""
    hypers = [seat.trial.optimizer.hyper for seat in seats]
    stacked = jax.tree.map(lambda *values: np.array(values, np.float32), *hypers)
    return seed_keys(seat.trial.seed for seat in seats), stacked


def _row(
    task: EvaluationTask,
    seat: _Seat,
    config: EvaluationConfig,
    sizes_of_lane: dict[str, Any],
    code_version: str,
) -> EvaluationRow:
    """Return the row of a trial; what a diverged one did not do counts as not finite."""
    done = np.concatenate(seat.losses)[: config.steps]
    losses = np.pad(done, (0, config.steps - len(done)), constant_values=np.nan)
    trial = seat.trial
    return EvaluationRow(
        **vars(identity(task, trial.optimizer, config, trial.seed, code_version)),
        **summarise_losses(losses, config.window, config.at),
        **sizes_of_lane,
        test_accuracy=None,
        seconds_per_step=seat.seconds / seat.steps,
    )


def _compile(
    task: EvaluationTask,
    make: MakeOptimizer,
    steps: int,
    inputs: tuple[Key[Array, " L"], Hyper],
    numbers: Int[np.ndarray, " K"],
) -> _Programs:
    """Compile for lanes of these inputs and segments of these lengths, before any clock starts."""
    lane = lane_programs(task.task, make, steps)
    start = jax.vmap(lane.start)

    def refill(state: Lane, which: Bool[Array, " L"], keys: Key[Array, " L"], hyper: Hyper) -> Lane:
        fresh = start(keys, hyper)

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(which.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        return jax.tree.map(choose, fresh, state)

    keys, hyper = inputs
    of_lanes = np.zeros((len(keys), 1), np.int32) + numbers
    train = jax.jit(jax.vmap(lane.train, (0, 0, None, 0)), donate_argnums=0)
    state = jax.eval_shape(start, keys, hyper)
    return _Programs(
        start=jax.jit(start),
        refill=jax.jit(refill, donate_argnums=0),
        train=train.lower(state, hyper, task.task.data, of_lanes).compile(),
    )
