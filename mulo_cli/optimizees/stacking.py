"""Blocks of one kind, one after the other, compiled once: their parameters are stacked.

`nn.scan` keeps the parameters of all blocks in one array per leaf, with a first axis that counts
blocks. For roles and learned optimizers every slice is a tensor of its own, and what is captured of
its modules is taken apart again (`tasks/layers.py`), so that nobody sees how blocks are kept.
"""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

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
        name: of the stack.
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
