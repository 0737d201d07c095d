"""Working through a large tensor block by block, so that its temporaries stay small.

Features and the network make some hundred numbers of every element. Made for a whole tensor at once
they would outweigh the network that is being trained; made for a block, they fit the cache.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

LARGE = 8_192
"""Elements beyond which a tensor is worked through in blocks."""

BLOCKS = 16
"""Blocks of a large tensor, or more: temporaries are a sixteenth of what they would be."""

SMALLEST_BLOCK, LARGEST_BLOCK = 4_096, 16_384
"""Elements of a block: enough for cores to share, and what a cache holds of its hidden units."""

TOO_UNEVEN = 4
"""A divisor this many times smaller than the block aimed at is not worth its even blocks."""


class Blocks(NamedTuple):
    """How a tensor is cut: along one axis, `count` slabs of `size` and a `rest` (in indices).

    The axis is counted from the last, as a negative number.
    """

    axis: int
    size: int
    count: int
    rest: int


Slabs: TypeAlias = PyTree[Float[Array, "..."]]
"""Arrays (*p) or (S, *p) of one tensor; an axis along which one does not vary has size 1."""


def blocks_of(shape: tuple[int, ...]) -> Blocks | None:
    """Return how a tensor of this shape is cut; None: it is small enough as it is."""
    elements = math.prod(shape)
    if elements <= LARGE:
        return None
    wanted = min(max(elements // BLOCKS, SMALLEST_BLOCK), LARGEST_BLOCK)
    # slabs along the first axis lie together in memory, unless one of them is too much already
    axis = 0 if elements // shape[0] <= wanted else max(range(len(shape)), key=shape.__getitem__)
    length = shape[axis]
    most = min(max(wanted * length // elements, 1), length)
    divisor = max(size for size in range(1, most + 1) if length % size == 0)
    size = divisor if divisor * TOO_UNEVEN > most else most
    return Blocks(axis - len(shape), size, length // size, length % size)


def map_over_blocks(
    function: Callable[[Slabs], Float[Array, "*p"]],
    slabs: Slabs,
    blocks: Blocks,
    shape: tuple[int, ...],
) -> Float[Array, "*p"]:
    """Return the tensor that `function` makes of every block."""

    def put(i: int | Int[Array, ""], whole: Array, size: int) -> Array:
        start = i * blocks.size
        block = function(_cut(slabs, blocks, start, size))
        return jax.lax.dynamic_update_slice_in_dim(whole, block, start, blocks.axis)

    whole = jax.lax.fori_loop(
        0, blocks.count, lambda i, whole: put(i, whole, blocks.size), jnp.zeros(shape)
    )
    return put(blocks.count, whole, blocks.rest) if blocks.rest else whole


def _cut(slabs: Slabs, blocks: Blocks, start: int | Int[Array, ""], size: int) -> Slabs:
    """Return one block; what does not vary along the axis is part of every block."""

    def cut(x: Array) -> Array:
        if x.shape[blocks.axis] == 1:
            return x
        return jax.lax.dynamic_slice_in_dim(x, start, size, blocks.axis)

    return jax.tree.map(cut, slabs)
