"""What VeLO sees of the loss: how far running averages of ten speeds are above their lowest.

L. Metz et al., "VeLO: Training versatile learned optimizers by scaling up" (2022), appendix on
features; muLO (B. Therien et al., 2025), appendix A.3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

AVERAGES = 10
LOSS_FEATURES = AVERAGES - 1

SHORTEST_LOG_HORIZON = 1.0
"""log10 of the fastest average's horizon in steps."""

SPIKE = 2.0
"""A loss counts at most this many times the largest average."""

DIFFERENCE_FLOOR = 1e-8
"""Smallest denominator of a feature."""

SEEN_ENOUGH = 3
"""Losses from which on the features are not zero."""


class LossBuffer(NamedTuple):
    """Running averages of a run's loss. In float32 c - min cancels: features are good to 5e-4."""

    means: Float[Array, "10"]
    """Exponential averages from 0, without bias correction."""
    minima: Float[Array, "10"]
    """Lowest bias-corrected averages so far."""
    seen: Int[Array, ""]
    """Losses in the averages."""


def init_loss_buffer() -> LossBuffer:
    """Return a buffer that has seen nothing."""
    return LossBuffer(
        jnp.zeros(AVERAGES), jnp.full(AVERAGES, jnp.inf, jnp.float32), jnp.zeros((), jnp.int32)
    )


def update_loss_buffer(
    buffer: LossBuffer, loss: Float[Array, ""], horizon: Float[Array, ""]
) -> LossBuffer:
    """Blend one loss into every average; a non-finite one leaves the buffer as it is.

    Args:
        buffer: before.
        loss: of the current batch, raw.
        horizon: steps `T` of the slowest average.
    """
    rates = _rates(horizon)
    seen = buffer.seen + 1
    correction = _bias_correction(rates, seen)
    bound = SPIKE * jnp.abs(jnp.max(buffer.means / correction))
    used = jnp.where(buffer.seen > 0, jnp.minimum(loss, bound), loss)
    means = jnp.exp(-rates) * buffer.means - jnp.expm1(-rates) * used
    updated = LossBuffer(means, jnp.minimum(buffer.minima, means / correction), seen)
    finite = jnp.isfinite(loss)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, buffer)


def loss_features(buffer: LossBuffer, horizon: Float[Array, ""]) -> Float[Array, "9"]:
    """Return the nine features: clip((c_j - min_j) / max(1e-8, c_{j+1} - min_j) - 1, +-1)."""
    averages = buffer.means / _bias_correction(_rates(horizon), buffer.seen)
    above = averages[:-1] - buffer.minima[:-1]
    slower_above = averages[1:] - buffer.minima[:-1]
    features = above / jnp.maximum(DIFFERENCE_FLOOR, slower_above) - 1.0
    return jnp.where(buffer.seen >= SEEN_ENOUGH, jnp.clip(features, -1.0, 1.0), 0.0)


def _rates(horizon: Float[Array, ""]) -> Float[Array, "10"]:
    """Return 1/h for ten horizons h, evenly spaced on a log scale from 10 steps to `horizon`."""
    logs = jnp.linspace(SHORTEST_LOG_HORIZON, jnp.log10(horizon), AVERAGES)
    return jnp.power(10.0, -logs)


def _bias_correction(rates: Float[Array, "10"], seen: Int[Array, ""]) -> Float[Array, "10"]:
    """Return 1 - d^seen; expm1 keeps it exact where d is nearly 1."""
    return -jnp.expm1(-rates * seen.astype(jnp.float32))
