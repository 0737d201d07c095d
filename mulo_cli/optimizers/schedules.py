"""Schedules of the learning rate, by name.

muLO (B. Therien et al., 2025), Tables 7 and 9: tuned baselines "with a schedule" use a linear
warm-up and a cosine decay to a tenth of the peak. The papers do not say how long the warm-up is.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int

FINAL_FRACTION = 0.1
"""Of the peak, at the end of the cosine."""

WARMUP_FRACTION = 0.05
"""Of all steps: ours."""

MakeSchedule: TypeAlias = Callable[[float | Array, Int[Array, ""]], optax.ScalarOrSchedule]
"""(learning rate, steps of the run) -> what optax takes for a learning rate."""


def constant(learning_rate: float | Array, num_steps: Int[Array, ""]) -> optax.ScalarOrSchedule:
    """Return the learning rate itself."""
    del num_steps
    return learning_rate


def warmup_cosine(
    learning_rate: float | Array, num_steps: Int[Array, ""]
) -> optax.ScalarOrSchedule:
    """Return a linear warm-up to the learning rate, then a cosine to a tenth of it.

    The first of `w` warm-up steps already moves: its rate is 1/w of the peak. Both arguments may
    be traced, which optax's own schedules refuse.
    """
    steps = jnp.asarray(num_steps, jnp.float32)
    warmup = jnp.maximum(1.0, jnp.round(WARMUP_FRACTION * steps))

    def schedule(count: ArrayLike) -> Float[Array, ""]:
        number = jnp.asarray(count, jnp.float32) + 1.0
        progress = jnp.clip((number - warmup) / jnp.maximum(1.0, steps - warmup), 0.0, 1.0)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        decayed = FINAL_FRACTION + (1.0 - FINAL_FRACTION) * cosine
        return learning_rate * jnp.minimum(number / warmup, decayed)

    return schedule


SCHEDULES: Mapping[str, MakeSchedule] = {"constant": constant, "warmup-cosine": warmup_cosine}
