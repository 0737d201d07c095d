"""Many inner steps in one compiled loop."""

import jax
import optax
from jaxtyping import Array, Float, Int

from mulo_cli.inner_training.state import InnerState
from mulo_cli.inner_training.step import inner_step
from mulo_cli.tasks.base import Task
from mulo_cli.types import Data, PRNGKey


def unroll(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    state: InnerState,
    data: Data,
    key: PRNGKey,
    steps: Int[Array, " K"],
) -> tuple[InnerState, Float[Array, " K"]]:
    """Train one step for each number in `steps`, on the data order that `key` stands for.

    The batch of a step depends on the key and on the step's number alone, so unrolling in parts is
    the same as unrolling at once. The numbers are an argument, not read from `state`, so that runs
    side by side (both signs of an antithetic pair) share one gather.

    Returns:
        The last state, and the loss of each step's batch before that step's update.
    """

    def step(state: InnerState, number: Int[Array, ""]) -> tuple[InnerState, Float[Array, ""]]:
        return inner_step(task, optimizer, state, task.batch(data, key, number))

    return jax.lax.scan(step, state, steps)
