"""How long each inner run lasts before it restarts.

Log-uniform horizons are those of the muLO meta-training code; a multiple of the truncation, so that
a restart always falls on the border of a truncation.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mulo_cli.types import PRNGKey


@dataclass(frozen=True)
class HorizonConfig:
    """Log-uniform horizons `T` in [minimum, maximum] steps, rounded up to multiples of K."""

    minimum: int
    maximum: int
    truncation: int


def sample_horizon(key: PRNGKey, config: HorizonConfig) -> Int[Array, ""]:
    """Draw the horizon of a run that starts anew."""
    log_minimum, log_maximum = jnp.log(config.minimum), jnp.log(config.maximum)
    steps = jnp.exp(jax.random.uniform(key, (), minval=log_minimum, maxval=log_maximum))
    truncations = jnp.ceil(steps / config.truncation).astype(jnp.int32)
    # exp(log(maximum)) may round to above the maximum
    most = -(-config.maximum // config.truncation)
    return config.truncation * jnp.minimum(truncations, most)


def sample_first_horizon(key: PRNGKey, config: HorizonConfig) -> Int[Array, ""]:
    """Draw the horizon of a pair's very first run: T - K U{0 .. T/K - 1}.

    Shorter by a random number of truncations, so that the pairs do not restart together.
    """
    key_horizon, key_cut = jax.random.split(key)
    horizon = sample_horizon(key_horizon, config)
    cut = jax.random.randint(key_cut, (), 0, horizon // config.truncation)
    return horizon - config.truncation * cut
