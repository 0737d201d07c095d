"""Which part of a tensor each device has, and work on it that needs no other part.

A mesh that has an axis called `PARTS` says that tensors are spread over it. Everything but what is
done here is written for whole tensors: the compiler cuts it up, so that a mean is always that of
the whole tensor. Going through a tensor block by block is not left to the compiler: it would gather
the tensor to cut it.
"""

import math
from collections.abc import Callable, Sequence

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PyTree

from mulo_cli.learned_optimizers.features import Elements

PARTS = "parts"
"""Axis of a mesh that tensors are spread over."""

SMALLEST = 4_096
"""Elements below which an array is not worth a message: every device has all of it."""

NARROW = 8
"""An axis shorter than this is none to cut along. What has only one longer one is a vector in
disguise (the three momenta of a vector, the moments of rows), and vectors weigh nothing."""


def part_axis(shape: Sequence[int], count: int) -> int | None:
    """Return along which axis an array is cut into equal parts; None: it stays whole.

    The widest but the last one, where that can be: sums over the last axis, which the statistics
    of a tensor begin with, are then a part's own.

    Args:
        shape: of the array. Axes in front of a tensor's own (layers, decays) do no harm as long as
            they are not the widest.
        count: of parts.

    Returns:
        The axis, counted from the last, as a negative number.
    """
    wide = [axis for axis, size in enumerate(shape) if size >= NARROW]
    if count == 1 or len(wide) < 2 or math.prod(shape) < SMALLEST:
        return None
    even = [axis for axis in wide if shape[axis] % count == 0]
    first = [axis for axis in even if axis != len(shape) - 1] or even
    return max(first, key=shape.__getitem__) - len(shape) if first else None


def part_spec(shape: Sequence[int], axis: int | None) -> PartitionSpec:
    """Return how an array is spread whose tensor is cut along this axis.

    Args:
        shape: of the array.
        axis: as `part_axis` tells; an array of size 1 along it is in every part.
    """
    if axis is None or shape[axis] == 1:
        return PartitionSpec()
    return PartitionSpec(*(None,) * (len(shape) + axis), PARTS)


def on_every_part(
    function: Callable[..., Float[Array, "*p"]], elements: Elements, *shared: PyTree
) -> Float[Array, "*p"]:
    """Return the tensor that a function makes element by element, each device its own part.

    Args:
        function: (a part of the tensor's elements, what they share) -> that part of the result.
        elements: all elements.
        shared: by all elements.
    """
    shape = elements.gradient.shape
    axis = part_axis(shape, jax.sharding.get_abstract_mesh().shape.get(PARTS, 1))
    if axis is None:
        return function(elements, *shared)
    own = jax.tree.map(lambda x: part_spec(x.shape, axis), elements)
    return jax.shard_map(
        function,
        in_specs=(own, *(PartitionSpec() for _ in shared)),
        out_specs=part_spec(shape, axis),
        check_vma=False,  # the zeros that blocks are put into are everybody's own
    )(elements, *shared)
