"""Blocks of one kind, one after the other, compiled once: their parameters are stacked.

`nn.scan` keeps the parameters of all blocks in one array per leaf, with a first axis that counts
blocks. For roles and learned optimizers every slice is a tensor of its own; here the outputs that
flax captures are taken apart again, so that nobody sees how blocks are kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

STACK_NAMES = frozenset({"blocks", "hidden"})
"""What networks call a stack; blocks that are kept apart are `blocks_0`, `blocks_1` ..."""

Activations = Float[Array, "B *shape D"]


def repeat(
    make_block: Callable[[str], nn.Module],
    x: Activations,
    depth: int,
    name: str,
    *,
    stacked: bool,
    after: Callable[[Activations], Activations] = lambda x: x,
) -> Activations:
    """Apply `depth` blocks, each followed by `after`.

    Args:
        make_block: name -> block; called inside the network that the blocks belong to.
        x: what the first block reads; all blocks keep its shape.
        depth: number of blocks.
        name: of the stack, one of `STACK_NAMES`.
        stacked: one array per leaf for all blocks, compiled once; else `name_0`, `name_1` ...
        after: what follows each block and has no parameters.
    """
    if not stacked or not depth:
        for number in range(depth):
            x = after(make_block(f"{name}_{number}")(x))
        return x

    def body(block: nn.Module, x: Activations, _: None) -> tuple[Activations, None]:
        return after(block(x)), None

    scanned = nn.scan(
        body,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True},
        length=depth,
    )
    return scanned(make_block(name), x, None)[0]


def taken_apart(captured: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return what flax captured of a network with every stack as blocks of their own.

    Args:
        captured: the collection "intermediates"; leaves under a stack's name have a first axis
            that counts blocks.
    """
    apart: OrderedDict[str, Any] = OrderedDict()
    for name, inner in captured.items():
        if name not in STACK_NAMES:
            apart[name] = inner
            continue
        (depth,) = {leaf.shape[0] for leaf in jax.tree.leaves(inner)}
        for number in range(depth):
            apart[f"{name}_{number}"] = jax.tree.map(lambda x, i=number: x[i], inner)
    return apart
