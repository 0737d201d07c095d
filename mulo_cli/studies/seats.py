"""Seats: trainings that go through the lanes of one compiled program together, wave by wave.

A configuration is a value of the traced `hyper`, so a grid is a vmap. The lanes of a wave keep step
and have one seed, so that a batch is drawn once for all of them. A lane whose training has ended
runs on unheeded until all of its wave have: with fewer lanes a program would round differently, and
an interrupted search would not end as an uninterrupted one. On a CPU several waves train at once.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from mulo_cli.studies.evaluate import NamedOptimizer, Progress, sizes
from mulo_cli.studies.lane_count import bytes_beside_data, waves_at_once
from mulo_cli.studies.lanes import Lane, seed_keys
from mulo_cli.studies.side_by_side import side_by_side
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


OF_ONE_SEED = Lane(state=0, key_data=None, key_test=None)  # type: ignore[arg-type]
"""Which axis of a wave is that of its lanes: keys are those of its seed."""


class SeatPrograms(NamedTuple):
    """Compiled for one wave; hyper-parameters, states and what is measured have an axis of lanes.

    Attributes:
        lanes: how many.
        memory: bytes that a wave takes, by the compiler's own account.
        at_once: waves that train side by side, if there are as many.
        numbers: numbers of a training's first steps, one segment of them.
        start: key, hyper-parameters -> lanes.
        train: lanes, hyper-parameters, numbers of the steps -> lanes, what was measured.
    """

    lanes: int
    memory: int
    at_once: int
    numbers: Int[np.ndarray, " K"]
    start: Callable[[PRNGKey, Hyper], Lane]
    train: Callable[[Lane, Hyper, Int[np.ndarray, " K"]], tuple[Lane, Measured]]


@dataclass
class _Seat:
    """A lane's trial, and what it has gone through."""

    trial: Trial
    free: bool = False
    segments: list[Measured] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        return sum(len(of.losses) for of in self.segments)

    def sit(self, measured: Measured, seconds: float) -> None:
        self.segments.append(measured)
        self.seconds += seconds

    def leave(self, sizes_of_lane: dict[str, Any]) -> Ended:
        self.free = True
        return Ended(
            self.trial, tuple(self.segments), sizes_of_lane, self.seconds / max(1, self.steps)
        )


class _Segment(NamedTuple):
    """What a wave tells after a segment: who has ended, steps that now count as done, the loss."""

    ended: tuple[Ended, ...]
    steps: int
    loss: float


def take_turns(
    trials: Sequence[Trial], programs: SeatPrograms, steps: int, has_ended: HasEnded
) -> Generator[Progress | Ended, None, None]:
    """Train every trial and yield it when it has ended, in no particular order.

    A `Progress`, after each segment of a wave, counts the steps of all trials together: one that
    has ended counts as if it had done all of them.

    Args:
        trials: at least one.
        programs: of lanes for such trials.
        steps: of a training at most; a segment may run beyond them.
        has_ended: tells those that end earlier.
    """
    waves = waves_of(trials, programs.lanes)
    programs = programs._replace(at_once=min(programs.at_once, len(waves)))
    trainings = (
        _train_wave(wave, *_inputs(wave, programs.lanes), programs, steps, has_ended)
        for wave in waves
    )
    done = 0
    with closing(side_by_side(trainings, programs.at_once)) as told:
        for segment in told:
            yield from segment.ended
            done += segment.steps
            yield Progress(done, segment.loss)


def waves_of(trials: Sequence[Trial], lanes: int) -> list[Sequence[Trial]]:
    """Return trials that train together: of one seed, as many as there are lanes."""
    seeds = dict.fromkeys(trial.seed for trial in trials)
    of_seeds = [[trial for trial in trials if trial.seed == seed] for seed in seeds]
    return [of[i : i + lanes] for of in of_seeds for i in range(0, len(of), lanes)]


def largest_seed(trials: Sequence[Trial]) -> int:
    """Return how many trials of one seed there are at most."""
    return max(Counter(trial.seed for trial in trials).values())


def _train_wave(
    wave: Sequence[Trial],
    key: PRNGKey,
    hyper: Hyper,
    programs: SeatPrograms,
    steps: int,
    has_ended: HasEnded,
) -> Iterator[_Segment]:
    """Train the trials of one wave until the last of them has ended."""
    state, seats = programs.start(key, hyper), [_Seat(trial) for trial in wave]
    numbers = programs.numbers
    while running := [(lane, seat) for lane, seat in enumerate(seats) if not seat.free]:
        began = time.perf_counter()
        state, measured = programs.train(state, hyper, numbers)
        measured = jax.tree.map(np.asarray, measured)
        share = (time.perf_counter() - began) / (len(running) * programs.at_once)
        ended, before = [], sum(min(seat.steps, steps) for _, seat in running)
        for lane, seat in running:
            seat.sit(jax.tree.map(lambda of, lane=lane: of[lane], measured), share)
            if seat.steps >= steps or has_ended(seat.segments):
                ended.append(seat.leave(sizes(state.state)))
        counted = sum(steps if seat.free else seat.steps for _, seat in running)
        losses = np.stack([seat.segments[-1].losses for _, seat in running])
        finite = losses[np.isfinite(losses)]
        loss = float(np.mean(finite)) if finite.size else np.nan
        yield _Segment(tuple(ended), counted - before, loss)
        numbers = numbers + np.int32(len(numbers))


def _inputs(wave: Sequence[Trial], lanes: int) -> tuple[PRNGKey, Hyper]:
    """Return key and hyper-parameters of a wave; lanes too many do what the first one does."""
    filled = [*wave, *[wave[0]] * (lanes - len(wave))]
    hypers = [trial.optimizer.hyper for trial in filled]
    stacked = jax.tree.map(lambda *values: np.array(values, np.float32), *hypers)
    return seed_keys([wave[0].seed])[0], stacked


def compile_seats(
    start: Callable[[PRNGKey, Hyper], Lane],
    train: TrainSegment,
    data: Data,
    trial: Trial,
    numbers: Int[np.ndarray, " K"],
    lanes: int,
    budget: int,
) -> SeatPrograms:
    """Compile lanes for trials like this one, before any clock starts.

    Args:
        start: begins one lane.
        train: trains one lane for a segment.
        data: what `train` gets; shared by all lanes.
        trial: one of them.
        numbers: of the steps of a training's first segment; all segments are as long.
        lanes: networks side by side.
        budget: bytes that all waves together may take.
    """
    key, hyper = _inputs([trial], lanes)
    begin = jax.jit(jax.vmap(start, (None, 0), OF_ONE_SEED)).lower(key, hyper)
    of_lanes = jax.vmap(train, (OF_ONE_SEED, 0, None, None), (OF_ONE_SEED, 0))
    trains = jax.jit(of_lanes, donate_argnums=0)
    compiled = trains.lower(begin.out_info, hyper, data, numbers).compile()
    memory = bytes_beside_data([compiled], begin.out_info.state, data)
    return SeatPrograms(
        lanes=lanes,
        memory=memory,
        at_once=waves_at_once(memory, budget),
        numbers=numbers,
        start=begin.compile(),
        train=lambda state, hyper, numbers: compiled(state, hyper, data, numbers),
    )
