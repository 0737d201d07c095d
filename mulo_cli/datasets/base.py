"""What a data set is: arrays as stored, and a pure function from (arrays, key, step) to a batch.

There are no iterators: a batch depends on nothing but its key and its step, so a resumed run needs
no cursor and two optimizers given one key see the same data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mulo_cli.types import Batch, Data, PRNGKey

BatchFunction: TypeAlias = Callable[[Data, PRNGKey, Int[Array, ""]], Batch]
"""(data as stored, key of the run's data order, step) -> one batch."""


@dataclass(frozen=True)
class Dataset:
    """A data set of classified examples.

    Attributes:
        name: the catalogue's name.
        splits: split name -> pytree of arrays as stored (for images `inputs` uint8 and `targets`).
        make_batch: batch size -> batch function over one split's arrays.
        input_shape: shape of one normalised example.
        num_classes: number of classes `C`.
        real: False for synthetic data; evaluation rows say so.
        source: where it comes from, and its licence.
    """

    name: str
    splits: Mapping[str, Data]
    make_batch: Callable[[int], BatchFunction]
    input_shape: tuple[int, ...]
    num_classes: int
    real: bool
    source: str

    def size(self, split: str) -> int:
        """Return the number of examples in a split."""
        return jax.tree.leaves(self.splits[split])[0].shape[0]


def sample_indices(
    key: PRNGKey, step: Int[Array, ""], batch_size: int, size: int
) -> Int[Array, " B"]:
    """Draw the examples of one batch, uniformly and with replacement."""
    return jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, size)


def standardise(pixels: Array, mean: Any, std: Any) -> Array:
    """Scale stored pixels to zero mean and unit variance over the data set."""
    return (pixels.astype(jnp.float32) - jnp.float32(mean)) / jnp.float32(std)
