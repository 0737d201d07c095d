"""Seats: trainings that take turns in the lanes of one compiled program.

A configuration is a value of the traced `hyper`, so a grid is a vmap. Lanes train a segment at a
time; at its border those whose training has ended are refilled from the queue, and the shape,
hence the program, stays. At the end of the queue lanes run empty: a program with fewer of them
would round differently, and an interrupted search would not end as an uninterrupted one.
"""

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mulo_cli.inner_training.traced import size_in_bytes
from mulo_cli.studies.evaluate import NamedOptimizer, Progress, sizes
from mulo_cli.studies.lanes import Lane, seed_keys
from mulo_cli.types import Concrete, Data, Hyper, PRNGKey


@dataclass(frozen=True)
class Trial:
    """One training; the optimizers of all trials of a search differ in `hyper` alone."""

    optimizer: NamedOptimizer
    seed: int


class Measured(NamedTuple):
    """What is told of one lane's segment.

    Attributes:
        losses: training loss before each step.
        validation: mean validation loss after the last one, where it is measured.
    """

    losses: Float[Concrete, "*L K"]
    validation: Float[Concrete, "*L"] | None = None


@dataclass(frozen=True)
class Ended:
    """A training that has left its lane, finished or not.

    Attributes:
        trial: it.
        segments: what was measured, in order.
        sizes: parameters and bytes of the optimizer's state.
        seconds_per_step: its share of the time.
    """

    trial: Trial
    segments: tuple[Measured, ...]
    sizes: dict[str, Any]
    seconds_per_step: float

    @property
    def losses(self) -> Float[np.ndarray, " T"]:
        """Training losses of all its steps."""
        return np.concatenate([of.losses for of in self.segments])


TrainSegment: TypeAlias = Callable[[Lane, Hyper, Data, Int[Array, " K"]], tuple[Lane, Measured]]
"""(lane, hyper-parameters, data, numbers of the steps) -> (lane, what was measured)."""

HasEnded: TypeAlias = Callable[[Sequence[Measured]], bool]
"""Whether a training ends after these segments, though it has not done all its steps."""


class SeatPrograms(NamedTuple):
    """Compiled; every argument and result but the data has a leading axis of lanes.

    Attributes:
        lanes: how many.
        memory: bytes that the lanes take, by the compiler's own account.
        numbers: numbers of a training's first steps, one segment of them.
        start: keys, hyper-parameters -> lanes.
        refill: lanes, which, keys, hyper-parameters -> lanes, these of them begun anew.
        train: lanes, hyper-parameters, numbers of the steps -> lanes, what was measured.
    """

    lanes: int
    memory: int
    numbers: Int[np.ndarray, " K"]
    start: Callable[[Key[Array, " L"], Hyper], Lane]
    refill: Callable[[Lane, Bool[np.ndarray, " L"], Key[Array, " L"], Hyper], Lane]
    train: Callable[[Lane, Hyper, Int[np.ndarray, "L K"]], tuple[Lane, Measured]]


@dataclass
class _Seat:
    """A lane's trial, and what it has gone through."""

    trial: Trial
    free: bool = True
    segments: list[Measured] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        return sum(len(of.losses) for of in self.segments)

    def take(self, trial: Trial) -> None:
        self.trial, self.free, self.segments, self.seconds = trial, False, [], 0.0

    def leave(self, sizes_of_lane: dict[str, Any]) -> Ended:
        self.free = True
        return Ended(
            self.trial, tuple(self.segments), sizes_of_lane, self.seconds / max(1, self.steps)
        )


def take_turns(
    trials: Sequence[Trial], programs: SeatPrograms, steps: int, has_ended: HasEnded
) -> Iterator[Progress | Ended]:
    """Train every trial and yield it when its lane is free, in no particular order.

    A `Progress`, after each segment, counts the steps of all trials together: one that has ended
    counts as if it had done all of them.

    Args:
        trials: at least one.
        programs: of lanes for such trials.
        steps: of a training at most; a segment may run beyond them.
        has_ended: tells those that end earlier.
    """
    queue, seats = deque(trials), [_Seat(trials[0]) for _ in range(programs.lanes)]
    _fill(seats, queue)
    state = programs.start(*_inputs(seats))
    told = 0
    while not all(seat.free for seat in seats):
        numbers = np.array([[seat.steps] for seat in seats], np.int32) + programs.numbers
        began = time.perf_counter()
        state, measured = programs.train(state, _inputs(seats)[1], numbers)
        measured = jax.tree.map(np.asarray, measured)
        running = [seat for seat in seats if not seat.free]
        seconds = (time.perf_counter() - began) / len(running)
        for lane, seat in enumerate(seats):
            seat.segments.append(jax.tree.map(lambda of, lane=lane: of[lane], measured))
            seat.seconds += seconds
            if not seat.free and (seat.steps >= steps or has_ended(seat.segments)):
                told += 1
                yield seat.leave(sizes(state.state))
        refilled = _fill(seats, queue)
        if refilled.any():
            state = programs.refill(state, refilled, *_inputs(seats))
        done = sum(seat.steps for seat in seats if not seat.free)
        finite = measured.losses[np.isfinite(measured.losses)]
        yield Progress(told * steps + done, float(np.mean(finite)) if finite.size else np.nan)


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


def compile_seats(
    start: Callable[[PRNGKey, Hyper], Lane],
    train: TrainSegment,
    data: Data,
    trial: Trial,
    numbers: Int[np.ndarray, " K"],
    lanes: int,
) -> SeatPrograms:
    """Compile lanes for trials like this one, before any clock starts.

    Args:
        start: begins one lane.
        train: trains one lane for a segment.
        data: what `train` gets; shared by all lanes.
        trial: one of them.
        numbers: of the steps of a training's first segment; all segments are as long.
        lanes: networks side by side.
    """
    begin = jax.jit(jax.vmap(start))
    keys, hyper = _inputs([_Seat(trial) for _ in range(lanes)])
    state = jax.eval_shape(begin, keys, hyper)
    trains = jax.jit(jax.vmap(train, (0, 0, None, 0)), donate_argnums=0)
    of_lanes = np.zeros((lanes, 1), np.int32) + numbers
    compiled = trains.lower(state, hyper, data, of_lanes).compile()
    return SeatPrograms(
        lanes=lanes,
        memory=max(compiled_bytes(compiled) - size_in_bytes(data), 2 * size_in_bytes(state)),
        numbers=numbers,
        start=begin,
        refill=lambda state, which, keys, hyper: _replace(state, which, begin(keys, hyper)),
        train=lambda state, hyper, numbers: compiled(state, hyper, data, numbers),
    )


@functools.partial(jax.jit, donate_argnums=0)
def _replace(state: Lane, which: Bool[Array, " L"], fresh: Lane) -> Lane:
    """Put fresh lanes in the place of some."""

    def choose(old: Array, new: Array) -> Array:
        return jnp.where(which.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, state, fresh)


def compiled_bytes(compiled: jax.stages.Compiled) -> int:
    """Return the memory that a compiled program takes, arguments and results included."""
    told = compiled.memory_analysis()
    if told is None:  # a device that does not tell
        return 0
    return (
        told.argument_size_in_bytes
        + told.output_size_in_bytes
        + told.temp_size_in_bytes
        - told.alias_size_in_bytes
    )
