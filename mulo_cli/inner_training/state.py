"""What one training run carries from step to step."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from mulo_cli.tasks.base import Task
from mulo_cli.types import Params, PRNGKey


class InnerState(NamedTuple):
    """State of one run; everything in it restarts when the run does."""

    params: Params
    optimizer_state: optax.OptState
    step: Int[Array, ""]
    """Updates done so far."""


def init_inner_state(
    task: Task, optimizer: optax.GradientTransformationExtraArgs, key: PRNGKey
) -> InnerState:
    """Start a run of `task` under `optimizer`; the key is consumed."""
    params = task.init(key)
    return InnerState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
