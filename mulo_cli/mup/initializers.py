"""Named initializers of the published tasks, under the Maximal Update Parametrization and SP.

muLO (Therien et al., 2025), section 4 and appendix C. Fans are read from the last two axes.
"""

import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, Float

from mulo_cli.types import PRNGKey

TRUNCATION = 2.0
"""Published tasks cut the normal at two standard deviations, without correcting its variance."""


def truncated_fan_in(key: PRNGKey, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Draw fan_in^-1/2 times a standard normal cut at +-2 (true deviation 0.88 fan_in^-1/2)."""
    return truncated_normal(key, shape, shape[-2], dtype)


def truncated_normal(
    key: PRNGKey, shape: tuple[int, ...], fan_in: int, dtype=jnp.float32
) -> Float[Array, "..."]:
    """Draw fan_in^-1/2 times a standard normal cut at +-2, for a fan-in told explicitly."""
    return fan_in**-0.5 * jax.random.truncated_normal(key, -TRUNCATION, TRUNCATION, shape, dtype)


def fan_in_normal(key: PRNGKey, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Draw N(0, 1/fan_in): the transformers' weights, and tables of tokens (fan-in: their rows)."""
    return shape[-2] ** -0.5 * jax.random.normal(key, shape, dtype)


def inverse_fan_in_normal(key: PRNGKey, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Draw N(0, 1/fan_in^2): a readout whose product is not divided by its fan-in.

    "Extending muP" (A. Gupta et al., 2025), Table 2.
    """
    return jax.random.normal(key, shape, dtype) / shape[-2]


def normal(std: float) -> Initializer:
    """Return the initializer N(0, std^2), the same at every width."""
    return jax.nn.initializers.normal(stddev=std)


unit_normal: Initializer = jax.nn.initializers.normal(stddev=1.0)
"""N(0, 1): biases under muP (a bias has fan-in 1)."""

zeros: Initializer = jax.nn.initializers.zeros
"""The readout under muP (appendix C: it approaches zero in the limit), and biases under SP."""
