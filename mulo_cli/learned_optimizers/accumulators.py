"""Running averages of gradients, their squares, and their factored squares; shared by all shelves.

L. Metz et al., "Practical tradeoffs between memory, compute, and performance in learned optimizers"
(2022), appendix on features; the factored moments are those of Adafactor (N. Shazeer and M. Stern,
2018). No bias correction; everything starts at zero and is kept in float32.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulo_cli.types import Concrete

SQUARED_GRADIENT_FLOOR = 1e-30
"""Added to every g^2 in the factored moments."""

ROW_MEAN_FLOOR = 1e-9
"""Added to the mean of the row moments before dividing by it."""

RECIPROCAL_FLOOR = 1e-9
"""Smallest argument of the safe reciprocal square root."""


class Decays(NamedTuple):
    """Decay of each accumulator; numbers in [0, 1] but for the momenta, which are not clipped."""

    momentum: Float[Concrete, "3"]
    second_moment: Float[Concrete, "1"]
    factored: Float[Concrete, "3"]


class Accumulators(NamedTuple):
    """The running averages of one tensor of shape `*p` (scalars count as shape (1,)).

    For two axes and more, `row` and `col` keep the reduced axis with size 1: `row` is reduced over
    the largest axis, `col` over the second largest. For vectors both are the same unreduced
    average, held once: `col` is None.
    """

    momentum: Float[Array, "3 *p"]
    second_moment: Float[Array, "*p"]
    row: Float[Array, "3 ..."]
    col: Float[Array, "3 ..."] | None


def factored_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return (largest axis d0, second largest axis d1), or None for fewer than two axes.

    Ties go as in a stable ascending sort: the last of equals is the largest.
    """
    if len(shape) < 2:
        return None
    ascending = np.argsort(shape, kind="stable")
    return int(ascending[-1]), int(ascending[-2])


def init_accumulators(tensors: Float[Concrete, "..."], *, stacked: bool = False) -> Accumulators:
    """Return zeros for one tensor (*p), or for a stack of them (S, *p).

    The full-sized ones lie where the parameter lies, and no two share a buffer: they are donated.
    """
    zeros = jnp.zeros_like(tensors, jnp.float32)
    front = tensors.shape[:1] if stacked else ()
    shape = tensors.shape[len(front) :]

    def three() -> Float[Array, "..."]:
        return jnp.stack([zeros] * 3, axis=len(front))

    def reduced(axis: int) -> Float[Array, "..."]:
        return jnp.zeros((*front, 3, *shape[:axis], 1, *shape[axis + 1 :]), jnp.float32)

    axes = factored_axes(shape)
    if axes is None:
        return Accumulators(three(), zeros, three(), None)
    return Accumulators(three(), zeros, reduced(axes[0]), reduced(axes[1]))


class Moments(NamedTuple):
    """The accumulators that are kept for every element."""

    momentum: Float[Array, "3 *p"]
    second_moment: Float[Array, "*p"]
    diagonal: Float[Array, "3 *p"] | None
    """A vector's factored moments, which are not factored; None for matrices and up."""


class Factored(NamedTuple):
    """Adafactor's moments of a matrix and up, and what follows from them."""

    row: Float[Array, "3 ..."]
    col: Float[Array, "3 ..."]
    row_root: Float[Array, "3 ..."]
    """R of g R C, the root of the rows relative to their mean; C is `safe_rsqrt(col)`."""


def moments_of(accumulators: Accumulators) -> Moments:
    """Return what is kept for every element."""
    diagonal = accumulators.row if accumulators.col is None else None
    return Moments(accumulators.momentum, accumulators.second_moment, diagonal)


def accumulators_of(moments: Moments, factored: Factored | None) -> Accumulators:
    """Put together what `moments_of` and `update_factored` took apart."""
    momentum, second_moment, diagonal = moments
    if factored is not None:
        return Accumulators(momentum, second_moment, factored.row, factored.col)
    assert diagonal is not None  # what is not factored has a diagonal
    return Accumulators(momentum, second_moment, diagonal, None)


def update_moments(moments: Moments, decays: Decays, gradient: Float[Array, "*p"]) -> Moments:
    """Blend a gradient, or a block of it, into every average that is kept for each element."""
    squared = jnp.square(gradient)
    diagonal = moments.diagonal
    return Moments(
        momentum=_ema(moments.momentum, decays.momentum, gradient),
        second_moment=_blend(moments.second_moment, jnp.reshape(decays.second_moment, ()), squared),
        diagonal=None
        if diagonal is None
        else _ema(diagonal, decays.factored, squared + SQUARED_GRADIENT_FLOOR),
    )


def update_factored(
    accumulators: Accumulators, decays: Decays, gradient: Float[Array, "*p"]
) -> Factored | None:
    """Blend a gradient into the averages of rows and columns; None: a vector has neither."""
    axes = factored_axes(gradient.shape)
    if axes is None or accumulators.col is None:
        return None
    row_mean, col_mean = (_floored_mean_square(gradient, axis) for axis in axes)
    row = _ema(accumulators.row, decays.factored, row_mean)
    col = _ema(accumulators.col, decays.factored, col_mean)
    mean = jnp.mean(row, axis=axes[1] + 1, keepdims=True)
    return Factored(row, col, safe_rsqrt(row / (mean + ROW_MEAN_FLOOR)))


def safe_rsqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return max(x, 1e-9)^-1/2."""
    return jnp.reciprocal(jnp.sqrt(jnp.maximum(x, RECIPROCAL_FLOOR)))


def _floored_mean_square(gradient: Float[Array, "*p"], axis: int) -> Float[Array, "..."]:
    """Return mean(g^2 + 1e-30), the floor added after the mean: the same, and a copy less."""
    return jnp.mean(jnp.square(gradient), axis=axis, keepdims=True) + SQUARED_GRADIENT_FLOOR


def _ema(average: Array, decays: Float[Concrete, " S"], value: Array) -> Array:
    """Blend `value` (*p) into `average` (S, *p), each slice with its own decay."""
    return _blend(average, jnp.reshape(decays, (-1, *(1,) * value.ndim)), value)


def _blend(average: Array, decay: Float[Concrete, "..."], value: Array) -> Array:
    decay = jnp.asarray(decay)
    return decay * average + (1.0 - decay) * value
