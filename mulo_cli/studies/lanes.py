"""Lanes: networks that train side by side in one compiled program, a segment of steps at a time.

Every study that trains many networks vmaps these functions: over seeds (evaluate), over
hyper-parameters of one seed (tune, transfer).
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
from mulo_cli.tasks.base import Task, task_under
from mulo_cli.types import Data, Hyper, PRNGKey

SEGMENT = 50
"""At most so many steps between two looks at the clock and at whether somebody wants to stop."""

TEST_BATCHES = 8
"""Test accuracy is measured on so many batches of the test split."""

ROOT = 0x6D756C6F
"""Folded into the root of evaluation seeds, which are thus none of meta-training's."""

VALIDATION_ROOT = 0x76616C
"""Stands for the validation batches, which all networks of a study share."""


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

    test_accuracy: Callable[[Lane, Hyper, Data], Float[Array, ""]]
    """(lane, hyper-parameters, data of the test split) -> accuracy on batches of the lane's own."""

    validation_loss: Callable[[Lane, Hyper, Data, Int[Array, " V"]], Float[Array, ""]]
    """(lane, hyper-parameters, data of the test split, numbers of batches that are the same for
    every lane) -> mean loss."""


def lane_programs(task: Task, make: MakeOptimizer, num_steps: int) -> LanePrograms:
    """Return the programs of trainings of `num_steps` steps."""
    make_test_batch = task.test_batch or task.batch

    def optimizer(hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        return make(hyper, task.roles, jnp.int32(num_steps))

    def start(key: PRNGKey, hyper: Hyper) -> Lane:
        key_init, key_data, key_test = jax.random.split(key, 3)
        return Lane(init_inner_state(task, optimizer(hyper), key_init), key_data, key_test)

    def train(
        lane: Lane, hyper: Hyper, data: Data, steps: Int[Array, " K"]
    ) -> tuple[Lane, Float[Array, " K"]]:
        trained = task_under(task, hyper)
        state, losses = unroll(trained, optimizer(hyper), lane.state, data, lane.key_data, steps)
        return lane._replace(state=state), losses

    def mean_on_test(
        lane: Lane, hyper: Hyper, key: PRNGKey, data: Data, numbers: Int[Array, " V"]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return loss and accuracy, means over these batches of the test split."""
        tested = task_under(task, hyper)

        def one(number: Array) -> tuple[Array, Array]:
            loss, aux = tested.loss(lane.state.params, make_test_batch(data, key, number))
            return loss, aux.accuracy

        losses, accuracies = jax.lax.map(one, numbers)
        return jnp.mean(losses), jnp.mean(accuracies)

    def test_accuracy(lane: Lane, hyper: Hyper, test_data: Data) -> Float[Array, ""]:
        return mean_on_test(lane, hyper, lane.key_test, test_data, jnp.arange(TEST_BATCHES))[1]

    def validation_loss(
        lane: Lane, hyper: Hyper, test_data: Data, numbers: Int[Array, " V"]
    ) -> Float[Array, ""]:
        key = jax.random.fold_in(jax.random.key(0), VALIDATION_ROOT)
        return mean_on_test(lane, hyper, key, test_data, numbers)[0]

    return LanePrograms(start, train, test_accuracy, validation_loss)


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
