"""Arrays that stay in a file: their rows are fetched, a batch at a time, while a program runs.

A data set that is too large to rest on the device is memory-mapped. Which rows a batch has is told
inside the compiled program, as for any other data set; the rows themselves come through a callback
to the host. So the same bits come out, in every engine.
"""

from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Int, Num

from mulo_cli.types import Concrete

RESIDENT_LIMIT = 4 * 2**30
"""Bytes of one split's inputs up to which they rest on the device; above, they stay in their file.

ImageNet at 32x32 (3.9 GB) rests there, at 64x64 (15.7 GB) it is fed.
"""


@jax.tree_util.register_static
class MappedRows:
    """A `.npy` file as the inputs of a split; for jax a constant structure without any leaf.

    Two of one file are equal, so that a program is compiled once for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.array = np.load(self.path, mmap_mode="r", allow_pickle=False)

    def __eq__(self, other: object) -> bool:
        """Compare files."""
        return isinstance(other, MappedRows) and self.path == other.path

    def __hash__(self) -> int:
        """Hash the file's name."""
        return hash(self.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of its elements."""
        return self.array.dtype

    def read(self, index: Int[Concrete, "..."]) -> Num[np.ndarray, "..."]:
        """Read some rows from the file."""
        return np.asarray(self.array[np.asarray(index)])


Rows: TypeAlias = Array | np.ndarray | MappedRows
"""Examples along the first axis, on the device or in a file."""


def take_rows(rows: Rows, index: Int[Array, " B"]) -> Num[Array, "B *row"]:
    """Gather rows inside a compiled program, wherever they are."""
    if not isinstance(rows, MappedRows):
        return rows[index]
    result = jax.ShapeDtypeStruct((*index.shape, *rows.shape[1:]), rows.dtype)
    return jax.pure_callback(rows.read, result, index, vmap_method="broadcast_all")
