"""Many sums in one pass: what the statistics of a tensor are made of.

Sixteen features are made of seven numbers of every element. A reduction of its own for each would
read them again and again, or keep features that are not needed; one reduction with many operands
reads every number once, and the compiler makes the features on the way.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sums(arrays: Sequence[Float[Array, "*p"]]) -> Float[Array, " F"]:
    """Return the sum of each of these arrays, which have one shape.

    Slices along the first axis are summed apart, so that cores can share the work.
    """
    axes = tuple(range(min(1, arrays[0].ndim - 1), arrays[0].ndim))
    zeros = tuple(jnp.zeros((), array.dtype) for array in arrays)
    of_slices = jnp.stack(jax.lax.reduce(tuple(arrays), zeros, _add_each, axes))
    return jnp.sum(of_slices.reshape(len(arrays), -1), axis=1)


def _add_each(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
