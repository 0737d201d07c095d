"""Lanes: networks that train side by side in one compiled program, a segment of steps at a time.

Every study that trains many networks vmaps these functions: over seeds (evaluate), over seeds and
hyper-parameters (tune).
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from mulo_cli.inner_training.state import InnerState, init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.optimizers.base import MakeOptimizer
from mulo_cli.tasks.base import Task
from mulo_cli.types import Data, Hyper, PRNGKey

SEGMENT = 50
"""At most so many steps between two looks at the clock and at whether somebody wants to stop."""

TEST_BATCHES = 8
"""Test accuracy is measured on so many batches of the test split."""

ROOT = 0x6D756C6F
"""Folded into the root of evaluation seeds, which are thus none of meta-training's."""


class Lane(NamedTuple):
    """One network in training."""

    state: InnerState
    key_data: PRNGKey
    key_test: PRNGKey


class LanePrograms(NamedTuple):
    """What can be done with a lane; plain functions, to be mapped and compiled by a study."""

    start: Callable[[PRNGKey, Hyper], Lane]
    train: Callable[[Lane, Hyper, Data, Int[Array, " K"]], tuple[Lane, Float[Array, " K"]]]
    """(lane, hyper-parameters, data, numbers of the steps) -> (lane, loss before each step)."""

    test_accuracy: Callable[[Lane, Data], Float[Array, ""]]


def lane_programs(task: Task, make: MakeOptimizer, num_steps: int) -> LanePrograms:
    """Return the programs of trainings of `num_steps` steps."""

    def optimizer(hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        return make(hyper, task.roles, jnp.int32(num_steps))

    def start(key: PRNGKey, hyper: Hyper) -> Lane:
        key_init, key_data, key_test = jax.random.split(key, 3)
        return Lane(init_inner_state(task, optimizer(hyper), key_init), key_data, key_test)

    def train(
        lane: Lane, hyper: Hyper, data: Data, steps: Int[Array, " K"]
    ) -> tuple[Lane, Float[Array, " K"]]:
        state, losses = unroll(task, optimizer(hyper), lane.state, data, lane.key_data, steps)
        return lane._replace(state=state), losses

    def test_accuracy(lane: Lane, test_data: Data) -> Float[Array, ""]:
        def accuracy(step: Array) -> Array:
            batch = (task.test_batch or task.batch)(test_data, lane.key_test, step)
            return task.loss(lane.state.params, batch)[1].accuracy

        return jnp.mean(jax.lax.map(accuracy, jnp.arange(TEST_BATCHES)))

    return LanePrograms(start, train, test_accuracy)


def seed_keys(seeds: Iterable[int]) -> Key[Array, " seeds"]:
    """Return the keys that seeds stand for: initialisation, data order and test batches."""
    root = jax.random.fold_in(jax.random.key(0), ROOT)
    return jax.vmap(lambda seed: jax.random.fold_in(root, seed))(jnp.array([*seeds], jnp.int32))


def segments(steps: int) -> list[Int[np.ndarray, " K"]]:
    """Return the numbers of all steps, a segment at a time.

    Segments are equally long where the number of steps has a suitable divisor, so that one program
    serves all of them; otherwise the last one is shorter.
    """
    divisors = [k for k in range(SEGMENT // 2, SEGMENT + 1) if steps % k == 0]
    length = max(divisors, default=SEGMENT)
    numbers = np.arange(steps, dtype=np.int32)
    return [numbers[begin : begin + length] for begin in range(0, steps, length)]
