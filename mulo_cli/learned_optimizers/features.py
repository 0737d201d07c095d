"""What a per-parameter network sees: features of one tensor, and the statistics that norm them.

L. Metz et al., "Practical tradeoffs between memory, compute, and performance in learned optimizers"
(2022); listed in muLO (B. Therien et al., 2025), appendix A.3, Tables 2 and 3.

Features of one row or one column are kept in their reduced shape. Nothing is ever multiplied out
to the full tensor that does not differ from element to element; and normalisation, a factor per
feature, is folded into the first layer's weights by whoever uses the features.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.learned_optimizers.accumulators import Factored, Moments, safe_rsqrt
from mulo_cli.learned_optimizers.reductions import sums

NORMALISATION_FLOOR = 1e-5
"""Added to a feature's mean square. It leaks width once features fall below about 3e-3."""

SECOND_MOMENT_FLOOR = 1e-6
"""Added to v before its reciprocal root."""

FACTORED_MOMENT_FLOOR = 1e-8
"""Added to row and column moments before their reciprocal roots."""

VECTOR_GRADIENT_FLOOR = 1e-9
"""Added to an unfactored moment that preconditions the gradient."""

TIME_SCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
"""Steps; the `x` of the 11 time features."""


def rsqrt(x: Array) -> Array:
    """Return x^-1/2."""
    return jnp.reciprocal(jnp.sqrt(x))


class Elements(NamedTuple):
    """A tensor, or a block of it: all that the features of its elements are made of."""

    gradient: Float[Array, "*p"]
    parameter: Float[Array, "*p"]
    """In the type in which the user keeps it."""
    moments: Moments
    factored: Factored | None
    """None for vectors."""


class FeatureGroup(NamedTuple):
    """Features of one tensor that share a shape (`*p`, or `*p` with an axis reduced to 1).

    `rows` are the features' places in the published order, hence in the first layer's weights.
    They are arrays of their own: stacked they would have to be written before they are used.
    """

    rows: tuple[int, ...]
    values: tuple[Float[Array, "*p"], ...]


Features: TypeAlias = Callable[[Elements], tuple[FeatureGroup, ...]]
"""The features of an architecture, before normalisation; works element by element."""

Norms: TypeAlias = Float[Array, " F"]
"""The factor of each feature, group after group, that makes its mean square one."""


class Roots(NamedTuple):
    """What gradients and momenta are divided by: Adafactor's R C, or a vector's own root."""

    row: Float[Array, "3 ..."]
    """Moments; for vectors `row` and `col` are the same unreduced average."""
    col: Float[Array, "3 ..."]
    for_gradient: tuple[Float[Array, "*p"], ...]
    """Of each decay; so are those for momenta."""
    for_momentum: tuple[Float[Array, "*p"], ...]


def roots_of(elements: Elements, vector_momentum_floor: float) -> Roots:
    """Return the factored moments and their reciprocal roots.

    Args:
        elements: of one tensor.
        vector_momentum_floor: added to an unfactored moment that preconditions the momenta.
    """
    if elements.factored is not None:
        row, col, row_roots = elements.factored
        roots = tuple(r * c for r, c in zip(row_roots, safe_rsqrt(col), strict=True))
        return Roots(row, col, roots, roots)
    diagonal = elements.moments.diagonal
    assert diagonal is not None  # what is not factored has a diagonal
    return Roots(
        row=diagonal,
        col=diagonal,
        for_gradient=tuple(safe_rsqrt(diagonal + VECTOR_GRADIENT_FLOOR)),
        for_momentum=tuple(rsqrt(diagonal + vector_momentum_floor)),
    )


def moment_group(rows: tuple[int, ...], moment: Float[Array, "3 ..."]) -> FeatureGroup:
    """Return row or column moments and their reciprocal roots, as features in their shape."""
    return FeatureGroup(rows, (*moment, *rsqrt(moment + FACTORED_MOMENT_FLOOR)))


def norms_of(groups: Sequence[FeatureGroup]) -> Norms:
    """Return rsqrt(1e-5 + mean(x^2)) of every feature of a whole tensor.

    A feature in a reduced shape repeats each of its elements equally often, hence has the mean
    square of the full one.
    """

    def mean_squares(values: Sequence[Float[Array, "*p"]]) -> Float[Array, " _"]:
        return sums([jnp.square(value) for value in values]) / values[0].size

    means = jnp.concatenate([mean_squares(group.values) for group in groups])
    return rsqrt(NORMALISATION_FLOOR + means)


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
