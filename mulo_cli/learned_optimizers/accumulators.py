"""Running averages of gradients, their squares, and their factored squares; shared by all shelves.

L. Metz et al., "Practical tradeoffs between memory, compute, and performance in learned optimizers"
(2022), appendix on features; the factored moments are those of Adafactor (N. Shazeer and M. Stern,
2018). No bias correction; everything starts at zero and is kept in float32.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SQUARED_GRADIENT_FLOOR = 1e-30
"""Added to g^2 elementwise before any mean of the factored moments."""

ROW_MEAN_FLOOR = 1e-9
"""Added to the mean of the row moments before dividing by it."""

RECIPROCAL_FLOOR = 1e-9
"""Smallest argument of the safe reciprocal square root."""


class Decays(NamedTuple):
    """Decay of each accumulator; numbers in [0, 1] but for the momenta, which are not clipped."""

    momentum: Float[Array, "3"]
    second_moment: Float[Array, "1"]
    factored: Float[Array, "3"]


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


class Preconditioner(NamedTuple):
    """Adafactor's reciprocal roots: g * row * col is the factored gradient (col None: 1)."""

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


def init_accumulators(shape: tuple[int, ...]) -> Accumulators:
    """Return zeros for one tensor."""
    axes = factored_axes(shape)
    zeros = jnp.zeros(shape, jnp.float32)
    momentum = jnp.zeros((3, *shape), jnp.float32)
    if axes is None:
        return Accumulators(momentum, zeros, momentum, None)
    return Accumulators(
        momentum, zeros, _reduced_zeros(shape, axes[0]), _reduced_zeros(shape, axes[1])
    )


def update_accumulators(
    accumulators: Accumulators, decays: Decays, gradient: Float[Array, "*p"]
) -> Accumulators:
    """Blend one gradient into every average."""
    squared = jnp.square(gradient)
    floored = squared + SQUARED_GRADIENT_FLOOR
    axes = factored_axes(gradient.shape)
    if axes is None or accumulators.col is None:
        row, col = _ema(accumulators.row, decays.factored, floored), None
    else:
        row_mean = jnp.mean(floored, axis=axes[0], keepdims=True)
        col_mean = jnp.mean(floored, axis=axes[1], keepdims=True)
        row = _ema(accumulators.row, decays.factored, row_mean)
        col = _ema(accumulators.col, decays.factored, col_mean)
    return Accumulators(
        momentum=_ema(accumulators.momentum, decays.momentum, gradient),
        second_moment=_ema(accumulators.second_moment[None], decays.second_moment, squared)[0],
        row=row,
        col=col,
    )


def preconditioner(accumulators: Accumulators, vector_floor: float) -> Preconditioner:
    """Turn factored moments into reciprocal roots.

    Args:
        accumulators: of one tensor.
        vector_floor: added to an unfactored moment before its root is taken (published systems use
            different ones for gradients and for momenta).
    """
    if accumulators.col is None:
        return Preconditioner(safe_rsqrt(accumulators.row + vector_floor), None)
    shape = jnp.broadcast_shapes(accumulators.row.shape, accumulators.col.shape)
    axes = factored_axes(shape[1:])
    assert axes is not None  # a column moment exists for matrices and up only
    mean = jnp.mean(accumulators.row, axis=axes[1] + 1, keepdims=True)
    row = safe_rsqrt(accumulators.row / (mean + ROW_MEAN_FLOOR))
    return Preconditioner(row, safe_rsqrt(accumulators.col))


def precondition(x: Float[Array, "S *p"], by: Preconditioner) -> Float[Array, "3 *p"]:
    """Multiply x, of one slice or three, by the reciprocal roots."""
    return x * by.row if by.col is None else x * by.row * by.col


def safe_rsqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return max(x, 1e-9)^-1/2."""
    return jnp.reciprocal(jnp.sqrt(jnp.maximum(x, RECIPROCAL_FLOOR)))


def _reduced_zeros(shape: tuple[int, ...], axis: int) -> Float[Array, "3 ..."]:
    return jnp.zeros((3, *shape[:axis], 1, *shape[axis + 1 :]), jnp.float32)


def _ema(average: Array, decays: Float[Array, " S"], value: Array) -> Array:
    """Blend `value` (*p) into `average` (S, *p), each slice with its own decay."""
    decay = decays.reshape(-1, *(1,) * (average.ndim - 1))
    return decay * average + (1.0 - decay) * value
