"""Meta-validation: what the current theta does to networks that meta-training never sees.

The networks' initialisations and data orders come from a key of their own, the same at every
validation, so that two thetas are compared on equal terms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mulo_cli.inner_training.state import InnerState, init_inner_state
from mulo_cli.inner_training.step import inner_step
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.meta_training.meta_step import Stream, stream
from mulo_cli.tasks.base import Task
from mulo_cli.tasks.losses import bounded
from mulo_cli.types import Data, PRNGKey, Theta


@dataclass(frozen=True)
class ValidationConfig:
    """When and how theta is validated.

    Attributes:
        every: meta-steps between validations (theta before the first and after the last step are
            always validated).
        seeds: networks trained per task.
        steps: inner steps of each training.
        window: last steps whose mean is the final loss.
    """

    every: int
    seeds: int
    steps: int
    window: int


class ValidationLosses(NamedTuple):
    """Losses of one task, bounded like those of meta-training, averaged over seeds."""

    mean: Float[Array, ""]
    """Over all steps: what meta-training minimises, and what the best theta is chosen by."""
    final: Float[Array, ""]
    """Over the last `window` steps."""


Validate: TypeAlias = Callable[[Theta, PRNGKey, Data], ValidationLosses]


def make_validators(
    tasks: Sequence[Task], learned_optimizer: LearnedOptimizer, config: ValidationConfig
) -> tuple[Validate, ...]:
    """Return one compiled function (theta, root key, data) -> losses per task."""
    return tuple(_make_validator(task, learned_optimizer, config) for task in tasks)


def _make_validator(
    task: Task, learned_optimizer: LearnedOptimizer, config: ValidationConfig
) -> Validate:
    def validate(theta: Theta, root: PRNGKey, data: Data) -> ValidationLosses:
        optimizer = learned_optimizer.build(theta, task.roles, jnp.int32(config.steps))

        def start(key: PRNGKey) -> InnerState:
            return init_inner_state(task, optimizer, key)

        def step(
            states: InnerState, number: Int[Array, ""]
        ) -> tuple[InnerState, Float[Array, " seeds"]]:
            batches = jax.vmap(task.batch, (None, 0, None))(data, keys_data, number)
            return jax.vmap(partial(inner_step, task, optimizer))(states, batches)

        keys = jax.random.split(stream(root, Stream.VALIDATION), config.seeds)
        keys_init, keys_data = jax.vmap(jax.random.split, out_axes=1)(keys)
        # networks side by side within each step: a loop that is vmapped is traced twice over
        losses = jax.lax.scan(step, jax.vmap(start)(keys_init), jnp.arange(config.steps))[1]
        losses = bounded(losses, task.loss_ceiling)
        return ValidationLosses(jnp.mean(losses), jnp.mean(losses[-config.window :]))

    return jax.jit(validate)
