"""Many sums in one pass: what the statistics of a tensor are made of.

Sixteen features are made of seven numbers of every element. A reduction of its own for each would
read them again and again, or keep features that are not needed; one reduction with many operands
reads every number once, and the compiler makes the features on the way.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LONGEST = 2_048
"""Elements that are added one after another, in float32; partial sums are then added pairwise. It
keeps the relative error of a sum near 1e-7, however large the tensor is."""

SHORTEST = 64
"""Even parts are not worth being shorter; better a rest of another length."""


def sums(arrays: Sequence[Float[Array, "*p"]]) -> Float[Array, " F"]:
    """Return the sum of each of these arrays, which have one shape of at least one axis."""
    if arrays[0].size <= LONGEST:
        return jnp.stack(_in_one_pass(arrays, range(arrays[0].ndim)))
    length = arrays[0].shape[-1]
    part = _part_of(length)
    even = length // part * part
    partial = [_sums_of_parts([x[..., :even] for x in arrays], part)]
    if even < length:
        partial.append(_sums_of_parts([x[..., even:] for x in arrays], length - even))
    return jnp.sum(jnp.concatenate(partial, axis=1), axis=1)


def _part_of(length: int) -> int:
    """Return into how long parts an axis is cut: all of one length, if that is not too short."""
    if length <= LONGEST:
        return max(length, 1)
    divisor = max(size for size in range(1, LONGEST + 1) if length % size == 0)
    return divisor if divisor >= SHORTEST else LONGEST


def _sums_of_parts(arrays: Sequence[Float[Array, "*p"]], part: int) -> Float[Array, "F _"]:
    """Return the sums of all parts of the last axis, one row per array."""
    parts = [x.reshape(*x.shape[:-1], x.shape[-1] // part, part) for x in arrays]
    reduced = _in_one_pass(parts, [parts[0].ndim - 1])
    return jnp.stack([of_parts.reshape(-1) for of_parts in reduced])


def _in_one_pass(
    arrays: Sequence[Float[Array, "*p"]], axes: Sequence[int]
) -> Sequence[Float[Array, "..."]]:
    """Return each array summed over these axes."""
    zeros = tuple(jnp.zeros((), x.dtype) for x in arrays)
    return jax.lax.reduce(tuple(arrays), zeros, _add_each, axes)


def _add_each(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
