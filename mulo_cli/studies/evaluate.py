"""Evaluate optimizers: train networks of several seeds side by side and record what happened.

Definitions (ours; the papers give none): the smoothed loss at the end is the mean training loss of
the last `window` steps; a run has diverged at its first step with a non-finite loss.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulo_cli.inner_training.state import init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.optimizers.base import MakeOptimizer
from mulo_cli.results.records import EvaluationRow
from mulo_cli.tasks.base import Task
from mulo_cli.types import Data, Hyper, PRNGKey

CURVE_POINTS = 50
"""A stored curve has at most so many points."""

TEST_BATCHES = 8
"""Test accuracy is measured on so many batches of the test split."""


@dataclass(frozen=True)
class NamedOptimizer:
    """An optimizer ready to be evaluated.

    Attributes:
        name: as the user wrote it.
        parametrization: of the networks it trains.
        make: builds it.
        hyper: its hyper-parameters; theta for a learned one.
    """

    name: str
    parametrization: str
    make: MakeOptimizer
    hyper: Hyper


@dataclass(frozen=True)
class EvaluationConfig:
    """How an evaluation trains.

    Attributes:
        steps: length `T` of each training.
        seeds: networks per optimizer and width; a seed is an initialisation and a data order.
        window: last steps whose mean is the smoothed loss.
    """

    steps: int
    seeds: int
    window: int


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
    """

    task: Task
    test_data: Data
    optimizee: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int


class Trained(NamedTuple):
    """What the compiled program returns, with a leading axis of seeds."""

    losses: Float[Array, "seeds T"]
    test_accuracy: Float[Array, " seeds"]


def evaluate(
    task: EvaluationTask, optimizer: NamedOptimizer, config: EvaluationConfig, code_version: str
) -> Iterator[EvaluationRow]:
    """Train one network per seed, all in one compiled program, and yield a row for each."""
    keys = jax.vmap(jax.random.key)(jnp.arange(config.seeds))
    program = jax.jit(jax.vmap(_train(task, optimizer, config), in_axes=(0, None, None, None)))
    arguments = (keys, optimizer.hyper, task.task.data, task.test_data)
    compiled = program.lower(*arguments).compile()
    started = time.perf_counter()
    trained = jax.block_until_ready(compiled(*arguments))
    seconds_per_step = (time.perf_counter() - started) / (config.steps * config.seeds)
    for seed in range(config.seeds):
        yield EvaluationRow(
            optimizer=optimizer.name,
            parametrization=optimizer.parametrization,
            task=task.optimizee,
            dataset=task.dataset,
            real=task.real,
            width=task.width,
            depth=task.depth,
            batch_size=task.batch_size,
            seed=seed,
            steps=config.steps,
            seconds_per_step=seconds_per_step,
            code_version=code_version,
            **summarise_losses(np.asarray(trained.losses[seed]), config.window),
            test_accuracy=float(trained.test_accuracy[seed]),
        )


def summarise_losses(losses: Float[np.ndarray, " T"], window: int) -> dict:
    """Return the fields of a row that are told from the losses alone."""
    finite = np.isfinite(losses)
    diverged_at = None if finite.all() else int(np.argmin(finite)) + 1
    every = -(-len(losses) // CURVE_POINTS)
    stretches = [losses[start : start + every] for start in range(0, len(losses), every)]
    return {
        "window": window,
        "smoothed_loss": None if diverged_at else float(np.mean(losses[-window:])),
        "status": "diverged" if diverged_at else "ok",
        "diverged_at": diverged_at,
        "curve_every": every,
        "curve": tuple(float(np.mean(stretch)) for stretch in stretches),
    }


def _train(task: EvaluationTask, named: NamedOptimizer, config: EvaluationConfig):
    def train(key: PRNGKey, hyper: Hyper, data: Data, test_data: Data) -> Trained:
        key_init, key_data, key_test = jax.random.split(key, 3)
        optimizer = named.make(hyper, task.task.roles, jnp.int32(config.steps))
        state = init_inner_state(task.task, optimizer, key_init)
        steps = jnp.arange(config.steps)
        state, losses = unroll(task.task, optimizer, state, data, key_data, steps)

        def accuracy(step: Array) -> Array:
            batch = task.task.batch(test_data, key_test, step)
            return task.task.loss(state.params, batch)[1].accuracy

        return Trained(losses, jnp.mean(jax.lax.map(accuracy, jnp.arange(TEST_BATCHES))))

    return train
