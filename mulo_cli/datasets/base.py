"""What a data set is: arrays as stored, and a pure function from (arrays, key, step) to a batch.

There are no iterators: a batch depends on nothing but its key and its step, so a resumed run needs
no cursor and two optimizers given one key see the same data.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mulo_cli.types import Batch, Data, PRNGKey

BatchFunction: TypeAlias = Callable[[Data, PRNGKey, Int[Array, ""]], Batch]
"""(data as stored, key of the run's data order, step) -> one batch."""

Kind: TypeAlias = Literal["images", "text"]
"""What examples are: pixels with one class each, or tokens with the next token at each position."""


@dataclass(frozen=True)
class Dataset:
    """A data set: classified images, or text whose next token is to be told.

    Attributes:
        name: as records call it: the catalogue's name, or the path, with the options asked for.
        kind: images, or text.
        splits: "train" and "test" -> pytree of arrays as stored.
        sizes: split -> number of examples (images; lines or tokens of text).
        make_batch: batch size -> batch function over one split's arrays.
        input_shape: shape of one example of a batch; of text `(L,)`.
        num_classes: number of classes, or the vocabulary's size `C`.
        real: False for synthetic data; evaluation rows say so.
        source: where it comes from.
        licence: its terms.
        digest: of the data itself (SHA-256), where the name and this version do not tell it.
        make_test_batch: what batches of the test split are made by, where that is not `make_batch`:
            test images are not augmented.
        classes: what the classes are called, where that is known; of text how tokens are spelled.
        notes: what was assumed or changed when it was read, a sentence each.
    """

    name: str
    kind: Kind
    splits: Mapping[str, Data]
    sizes: Mapping[str, int]
    make_batch: Callable[..., BatchFunction]
    input_shape: tuple[int, ...]
    num_classes: int
    real: bool
    source: str
    licence: str
    digest: str = ""
    make_test_batch: Callable[..., BatchFunction] | None = None
    classes: tuple[str, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """Shape and type of a batch of one example."""
        dtype = jnp.float32 if self.kind == "images" else jnp.int32
        return jax.ShapeDtypeStruct((1, *self.input_shape), dtype)


def at_length(dataset: Dataset, length: int) -> Dataset:
    """Return a text whose examples are `length` tokens long."""
    make_batch = functools.partial(dataset.make_batch, length=length)
    return replace(dataset, make_batch=make_batch, input_shape=(length,))


def digest_of(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the SHA-256 (hex) of arrays that were read: of their names, types, shapes, numbers."""
    digest = hashlib.sha256()
    for split, arrays in sorted(splits.items()):
        for name, array in sorted(arrays.items()):
            stored = np.ascontiguousarray(array)
            digest.update(f"{split}/{name} {stored.dtype} {stored.shape}\n".encode())
            digest.update(stored.data)
    return digest.hexdigest()


def sample_indices(
    key: PRNGKey, step: Int[Array, ""], batch_size: int, size: int
) -> Int[Array, " B"]:
    """Draw the examples of one batch, uniformly and with replacement."""
    return jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, size)


def standardise(pixels: Array, mean: Any, std: Any) -> Array:
    """Scale stored pixels to zero mean and unit variance over the data set."""
    return (pixels.astype(jnp.float32) - jnp.float32(mean)) / jnp.float32(std)
