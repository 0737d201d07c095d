"""Evaluate optimizers: train networks of several seeds side by side and record what happened.

Seeds train in groups, each in lanes of one program; on a CPU several groups at once. A large
network may be spread over several devices (`studies.spread`).
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mulo_cli.inner_training.sharding import located, placed, shardings, within
from mulo_cli.inner_training.state import InnerState
from mulo_cli.inner_training.traced import size_in_bytes
from mulo_cli.optimizers.base import MakeOptimizer
from mulo_cli.results.records import NOWHERE, EvaluationIdentity, EvaluationRow, SuitePlace
from mulo_cli.studies.lane_count import (
    PROGRAM_BYTES,
    UNKNOWN,
    bytes_beside_data,
    largest_programs,
    most_lanes,
    waves_at_once,
)
from mulo_cli.studies.lanes import lane_programs, seed_keys, segments
from mulo_cli.studies.loss_summaries import summarise_losses
from mulo_cli.studies.side_by_side import side_by_side
from mulo_cli.tasks.base import Task
from mulo_cli.types import Data, Hyper


@dataclass(frozen=True)
class NamedOptimizer:
    """An optimizer ready to be evaluated.

    Attributes:
        name: as the user wrote it.
        parametrization: of the networks it trains.
        make: builds it.
        hyper: its hyper-parameters; theta for a learned one.
        settings: what a row tells of it.
        recipe_digest: of the recipe that a learned one was meta-trained with.
        network: options that it asks of networks, unless theirs say otherwise; `settings` tell.
        code: digest of the user's own code that makes it; empty for ours.
    """

    name: str
    parametrization: str
    make: MakeOptimizer
    hyper: Hyper
    settings: Mapping[str, float | str]
    recipe_digest: str | None
    network: Mapping[str, str] = field(default_factory=dict)
    code: str = ""


@dataclass(frozen=True)
class EvaluationConfig:
    """How an evaluation trains.

    Attributes:
        steps: length `T` of each training.
        seeds: networks per optimizer and width; a seed is an initialisation and a data order.
        window: steps whose mean is a smoothed loss.
        at: steps at which the smoothed loss is told, ascending.
    """

    steps: int
    seeds: int
    window: int
    at: tuple[int, ...]


@dataclass(frozen=True)
class EvaluationTask:
    """A task, and the plain facts about it that a row tells.

    Attributes:
        task: what is trained.
        test_data: arrays of the test split.
        optimizee: name of the network.
        dataset: name of the data set.
        real: whether its data is real.
        width, depth, batch_size: of the task.
        place: in a suite.
        digest: of the data, where its name does not tell it.
        code: digest of the user's own code that makes the network; empty for ours.
        notes: what was assumed about the user's own network, a sentence each.
        readout: where the factor 1/fan_in of its outputs was said to act; empty for ours.
        mesh: what each network is spread over; None: it is on one device.
    """

    task: Task
    test_data: Data
    optimizee: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int
    place: SuitePlace = NOWHERE
    digest: str = ""
    code: str = ""
    notes: tuple[str, ...] = ()
    readout: str = ""
    mesh: Mesh | None = None


@dataclass(frozen=True)
class Progress:
    """Where a training of several networks is; not a result."""

    step: int
    loss: float
    """Mean over the last segment and over networks."""


def identity(
    task: EvaluationTask,
    optimizer: NamedOptimizer,
    config: EvaluationConfig,
    seed: int,
    code_version: str,
) -> EvaluationIdentity:
    """Return what a row will say of itself; nothing is trained."""
    return EvaluationIdentity(
        optimizer=optimizer.name,
        settings=optimizer.settings,
        parametrization=optimizer.parametrization,
        recipe_digest=optimizer.recipe_digest,
        task=task.optimizee,
        dataset=task.dataset,
        real=task.real,
        width=task.width,
        depth=task.depth,
        batch_size=task.batch_size,
        seed=seed,
        steps=config.steps,
        at=config.at,
        window=config.window,
        code_version=code_version,
        data=task.digest,
        **vars(task.place),
    )


def identities(
    task: EvaluationTask, optimizer: NamedOptimizer, config: EvaluationConfig, code_version: str
) -> tuple[EvaluationIdentity, ...]:
    """Return what the rows of all seeds will say of themselves."""
    return tuple(
        identity(task, optimizer, config, seed, code_version) for seed in range(config.seeds)
    )


def evaluate(
    task: EvaluationTask,
    optimizer: NamedOptimizer,
    config: EvaluationConfig,
    code_version: str,
    budget: int = UNKNOWN,
    known: Mapping[int, EvaluationRow] = MappingProxyType({}),
) -> Generator[Progress | EvaluationRow, None, None]:
    """Train one network per seed, a group of seeds in one compiled program; yield a row for each.

    Rows come as soon as their group has ended. The program trains a segment at a time; a `Progress`
    after each is the caller's opportunity to stop, and tells the mean number of steps over all
    networks. What is trained depends neither on how it is cut nor on the budget.

    Args:
        task: what is trained.
        optimizer: trains it.
        config: how.
        code_version: told in rows.
        budget: bytes that groups which train at once may take; one may always train.
        known: rows of some seeds; a group of which none is missing is not trained, and its rows
            come first. Which seeds are a group depends on what is asked for alone.
    """
    optimizer = replace(optimizer, hyper=placed(optimizer.hyper, task.mesh))
    programs = _compile(task, optimizer, config)
    seeds = range(config.seeds)
    groups = [seeds[i : i + programs.lanes] for i in seeds[:: programs.lanes]]
    waiting = [group for group in groups if not all(seed in known for seed in group)]
    passed_on = [seed for group in groups if group not in waiting for seed in group]
    yield from (known[seed] for seed in passed_on)
    most = waves_at_once(programs.memory, budget) if task.mesh is None else 1
    at_once = max(1, min(len(waiting), most))
    trainings = (_train_group(task, optimizer, config, programs, group) for group in waiting)
    done = config.steps * len(passed_on)
    with closing(side_by_side(trainings, at_once)) as records:
        for told in records:
            if isinstance(told, _Segment):
                done += told.network_steps
                yield Progress(done // config.seeds, told.loss)
                continue
            share = told.seconds / (config.steps * len(told.rows) * at_once)
            for seed, fields in told.rows.items():
                named = identity(task, optimizer, config, seed, code_version)
                yield EvaluationRow(**vars(named), **fields, seconds_per_step=share)


class _Segment(NamedTuple):
    """What a group tells after a segment: steps of all its networks, and their mean loss."""

    network_steps: int
    loss: float


class _Trained(NamedTuple):
    """What a group tells at its end: seconds of its training, and seed -> fields of its row."""

    seconds: float
    rows: dict[int, dict[str, Any]]


def _train_group(
    task: EvaluationTask,
    optimizer: NamedOptimizer,
    config: EvaluationConfig,
    programs: "_Programs",
    group: range,
) -> Iterator[_Segment | _Trained]:
    """Train the networks of some seeds; lanes too many do what the first one does.

    What was trained is told before the last segment is, after which a caller may stop.
    """
    hyper, data, used = optimizer.hyper, task.task.data, len(group)
    filled = [*group, *[group[0]] * (programs.lanes - used)]
    lanes = programs.start(seed_keys(filled), hyper)
    losses, seconds, done = [], 0.0, 0
    for steps in segments(config.steps):
        began = time.perf_counter()
        lanes, of_segment = programs.train[steps.size](lanes, hyper, data, steps)
        losses.append(np.asarray(of_segment)[:used])
        seconds += time.perf_counter() - began
        done += steps.size
        if done == config.steps:
            accuracy = np.asarray(programs.measure(lanes, hyper, task.test_data))
            rows = _fields(np.concatenate(losses, axis=1), accuracy, lanes.state, config)
            yield _Trained(seconds, dict(zip(group, rows, strict=True)))
        yield _Segment(used * steps.size, float(np.mean(losses[-1])))


def _fields(
    losses: Float[np.ndarray, "used T"],
    accuracy: Float[np.ndarray, " lanes"],
    states: InnerState,
    config: EvaluationConfig,
) -> list[dict[str, Any]]:
    """Return what the rows of a group tell of its trainings."""
    return [
        {
            **summarise_losses(of_seed, config.window, config.at),
            **sizes(states),
            "test_accuracy": float(accuracy[place]),
        }
        for place, of_seed in enumerate(losses)
    ]


def sizes(states: InnerState) -> dict[str, Any]:
    """Return the fields of a row that are told from the states of networks side by side."""
    params, remembered = jax.tree.leaves(states.params), jax.tree.leaves(states.optimizer_state)
    return {
        "parameters": sum(x.size // len(x) for x in params),
        "optimizer_state_bytes": sum(x.nbytes // len(x) for x in remembered),
    }


class _Programs(NamedTuple):
    """Compiled for a group of seeds: start, train a segment of that many steps, test accuracy."""

    lanes: int
    memory: int
    start: Callable
    train: Mapping[int, Callable]
    measure: Callable


def _compile(task: EvaluationTask, named: NamedOptimizer, config: EvaluationConfig) -> _Programs:
    """Compile the programs of a group before any clock starts.

    How many seeds it has is a function of what is asked for alone.
    """
    lane, mesh = lane_programs(task.task, named.make, config.steps), task.mesh
    data, hyper = task.task.data, named.hyper

    def compile_lanes(lanes: int) -> _Programs:
        keys, of_lanes = seed_keys(range(lanes)), jax.vmap(lane.start, (0, None))
        where = shardings(jax.eval_shape(of_lanes, keys, hyper), mesh, lanes=1)
        start = jax.jit(of_lanes, out_shardings=where).lower(keys, hyper)
        train = jax.jit(
            jax.vmap(lane.train, (0, None, None, None)),
            donate_argnums=0,
            out_shardings=(where, None),
        )
        measure = jax.jit(jax.vmap(lane.test_accuracy, (0, None, None)))
        began = located(start.out_info, where)
        trains = {
            steps.size: train.lower(began, hyper, data, steps).compile()
            for steps in segments(config.steps)
        }
        return _Programs(
            lanes=lanes,
            memory=bytes_beside_data(trains.values(), start.out_info.state, data),
            start=start.compile(),
            train=trains,
            measure=measure.lower(began, hyper, task.test_data).compile(),
        )

    of_one = jax.eval_shape(lane.start, seed_keys([0])[0], hyper).state
    with within(mesh):
        return largest_programs(
            compile_lanes,
            config.seeds,
            2 * size_in_bytes(of_one),  # and its gradient and activations, in any case
            PROGRAM_BYTES,
            most_lanes(config.seeds),
        )
