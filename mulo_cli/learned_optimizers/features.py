"""What a per-parameter network sees: normalised features of one tensor, and their statistics.

L. Metz et al., "Practical tradeoffs between memory, compute, and performance in learned optimizers"
(2022); listed in muLO (B. Therien et al., 2025), appendix A.3, Tables 2 and 3.

Features of one row or one column are kept in their reduced shape. Nothing is ever multiplied out
to the full tensor that does not differ from element to element; and normalisation, a factor per
feature, is folded into the first layer's weights by whoever uses the features.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

NORMALISATION_FLOOR = 1e-5
"""Added to a feature's mean square. It leaks width once features fall below about 3e-3."""

TIME_SCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
"""Steps; the `x` of the 11 time features."""


def rsqrt(x: Array) -> Array:
    """Return x^-1/2."""
    return jnp.reciprocal(jnp.sqrt(x))


class FeatureGroup(NamedTuple):
    """Features of one tensor that share a shape (`*p`, or `*p` with an axis reduced to 1).

    `rows` are the features' places in the published order, hence in the first layer's weights.
    """

    rows: tuple[int, ...]
    values: Float[Array, "F *p"]


def normalised_weights(group: FeatureGroup, weights: Float[Array, "28 H"]) -> Float[Array, "F H"]:
    """Return the first layer's weights of a group, with its features' normalisation folded in.

    A feature in a reduced shape repeats each of its elements equally often, hence has the mean
    square of the full one. This is the only part of an update that looks at a whole tensor.
    """
    axes = tuple(range(1, group.values.ndim))
    mean_square = jnp.mean(jnp.square(group.values), axis=axes)
    return weights[jnp.array(group.rows)] * rsqrt(NORMALISATION_FLOOR + mean_square)[:, None]


def time_features_offset(updates_done: Array) -> Float[Array, "11"]:
    """Return tanh(t/x - 1): the formula of the published weights."""
    return jnp.tanh(_relative_time(updates_done) - 1.0)


def time_features_plain(updates_done: Array) -> Float[Array, "11"]:
    """Return tanh(t/x): the formula of the paper, Table 2."""
    return jnp.tanh(_relative_time(updates_done))


TIME_FEATURES = {"offset": time_features_offset, "plain": time_features_plain}
"""The formula variants by the name that recipes and cards use."""


def _relative_time(updates_done: Array) -> Float[Array, "11"]:
    return updates_done.astype(jnp.float32) / jnp.array(TIME_SCALES, jnp.float32)
