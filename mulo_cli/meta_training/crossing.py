"""What crosses processes: numbers of pairs at every step, whole states when a run is saved.

All processes call these functions in the same order. A lone process calls nobody.
"""

from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

Tree = TypeVar("Tree")
"""A pytree of the host's arrays; what comes back has the same structure, shapes and types."""

Key = TypeVar("Key")


def alone() -> bool:
    """Whether this process is the only one."""
    return jax.process_count() == 1


def everybodys(
    known: Mapping[Key, Float[np.ndarray, "..."]],
    owners: Mapping[Key, int],
    shape: tuple[int, ...],
) -> dict[Key, Float[np.ndarray, "..."]]:
    """Return the numbers of all processes.

    Args:
        known: those of this one.
        owners: of all of them, the process that knows it.
        shape: of each array.
    """
    if alone():
        return dict(known)
    mine = np.zeros((len(owners), *shape), np.float32)
    for place, key in enumerate(owners):
        if key in known:
            mine[place] = known[key]
    told = multihost_utils.process_allgather(mine.view(np.uint32)).view(np.float32)
    return {key: told[owner, place] for place, (key, owner) in enumerate(owners.items())}


def most(number: int) -> int:
    """Return the largest number that any process has."""
    return number if alone() else int(multihost_utils.process_allgather(np.array(number)).max())


def anybody(said: bool) -> bool:
    """Whether any process says yes."""
    return bool(most(int(said)))


def same_everywhere(digest: str) -> bool:
    """Whether all processes have the same digest (hexadecimal digits); all learn the same."""
    mine = np.frombuffer(bytes.fromhex(digest), np.uint8)
    return not anybody(not np.array_equal(sent(mine, 0), mine))


def sent(tree: Tree, sender: int) -> Tree:
    """Return what one process has, to the bit.

    Args:
        tree: what is sent; the others' tell shapes and types.
        sender: number of the process.
    """
    if alone():
        return tree
    # a sum with zeros, by which jax sends, would lose the sign of a zero
    plain = jax.tree.map(lambda x: np.atleast_1d(np.asarray(x)).view(np.uint8), tree)
    bits = multihost_utils.broadcast_one_to_all(plain, is_source=jax.process_index() == sender)
    return jax.tree.map(lambda b, x: np.asarray(b).view(x.dtype).reshape(x.shape), bits, tree)
