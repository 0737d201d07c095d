"""Telling the compiler what comes first, where its own choice would cost memory.

A state that is donated can be overwritten in place only if everything that reads the old one has
been computed before. XLA sees that by dependencies alone: `lax.optimization_barrier` is gone by the
time it decides what must be copied.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def after(earlier: Float[Array, ""], value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the value, as something that is computed after `earlier`.

    Args:
        earlier: a number that is not NaN, or one that spoils everything if it is.
        value: what shall wait for it.
    """
    return jnp.where(earlier == earlier, value, earlier)
