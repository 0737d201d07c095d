"""Image classification: gather stored pixels, augment them if asked to, and standardise them."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from mulo_cli.datasets.base import BatchFunction, Dataset, sample_indices, standardise
from mulo_cli.datasets.mapped import MappedRows, take_rows
from mulo_cli.datasets.options import Augment
from mulo_cli.types import Batch, Data, PRNGKey

STATISTICS_EXAMPLES = 100_000
"""Channel statistics are taken over at most this many images."""

STATISTICS_CHUNK = 256
"""Images looked at together: 256 squares of a byte are below 2^24, where float32 is exact."""

AUGMENTS = 0x61756766
"""Folded into the key of the data order for augmenting: no step has this number."""

CROP_SHARE = 8
"""Augmented images are moved by up to one part in so many of their side: 4 pixels of 32."""


def image_dataset(
    name: str,
    splits: Mapping[str, Data],
    num_classes: int,
    *,
    statistics: tuple[Any, Any],
    source: str,
    licence: str,
    augment: Augment = "none",
    classes: tuple[str, ...] = (),
    real: bool = True,
) -> Dataset:
    """Make a data set of stored images.

    Args:
        name: as records call it.
        splits: "train" and "test" -> `{inputs: uint8[n, r, c(, ch)], targets: int32[n]}`; inputs
            may be `MappedRows`.
        num_classes: `C`.
        statistics: per-channel mean and standard deviation of stored pixels.
        source: where it comes from.
        licence: its terms.
        augment: what is done to images at random.
        classes: what they are called.
        real: False for synthetic data.
    """
    mean, std = statistics
    plain = functools.partial(image_batch, mean=mean, std=std)
    return Dataset(
        name=name,
        kind="images",
        splits=splits,
        sizes={split: arrays["targets"].shape[0] for split, arrays in splits.items()},
        make_batch=functools.partial(plain, augment=augment),
        make_test_batch=plain,
        input_shape=tuple(splits["train"]["inputs"].shape[1:]),
        num_classes=num_classes,
        real=real,
        source=source,
        licence=licence,
        classes=classes,
    )


def image_batch(batch_size: int, mean: Any, std: Any, augment: Augment = "none") -> BatchFunction:
    """Build the batch function of `{inputs: uint8[n, r, c(, ch)], targets: int[n]}`.

    Args:
        batch_size: examples `B` per batch.
        mean: per-channel mean of stored pixels.
        std: per-channel standard deviation of stored pixels.
        augment: what is done to images at random, drawn from the batch's key and step.
    """

    def batch(data: Data, key: PRNGKey, step: Int[Array, ""]) -> Batch:
        images, targets = data["inputs"], data["targets"]
        index = sample_indices(key, step, batch_size, targets.shape[0])
        pixels = take_rows(images, index)
        pixels = augmented(pixels, key, step, augment)
        return Batch(standardise(pixels, mean, std), targets[index])

    return batch


def augmented(
    pixels: UInt8[Array, "B r c *ch"], key: PRNGKey, step: Int[Array, ""], augment: Augment
) -> UInt8[Array, "B r c *ch"]:
    """Return the images of a step as they were asked for; augmenting draws from a key of its own.

    Args:
        pixels: of the step's batch.
        key: of the run's data order.
        step: its number.
        augment: what is done at random.
    """
    if augment == "none":
        return pixels
    return crop_and_flip(pixels, jax.random.fold_in(jax.random.fold_in(key, AUGMENTS), step))


def crop_and_flip(pixels: UInt8[Array, "B r c *ch"], key: PRNGKey) -> UInt8[Array, "B r c *ch"]:
    """Move every image by a few pixels both ways (black comes in), and mirror half of them.

    K. He et al., *Deep residual learning for image recognition* (2016), section 4.2: padding by 4
    of 32 pixels, a random crop, a horizontal flip.
    """
    key_crop, key_flip = jax.random.split(key)
    rows, columns = pixels.shape[1:3]
    most = max(1, rows // CROP_SHARE)
    border = ((most, most), (most, most), *((0, 0),) * (pixels.ndim - 3))
    offsets = jax.random.randint(key_crop, (len(pixels), 2), 0, 2 * most + 1)
    mirrored = jax.random.bernoulli(key_flip, shape=(len(pixels),))

    def one(image: Array, offset: Int[Array, "2"], mirror: Array) -> Array:
        start = (offset[0], offset[1], *(jnp.int32(0),) * (image.ndim - 2))
        cut = jax.lax.dynamic_slice(
            jnp.pad(image, border), start, (rows, columns, *image.shape[2:])
        )
        return jnp.where(mirror, cut[:, ::-1], cut)

    return jax.vmap(one)(pixels, offsets, mirrored)


def channel_statistics(
    images: UInt8[np.ndarray, "n r c *ch"] | MappedRows,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean, standard deviation) of each channel, in stored units, as float32.

    A channel that is the same everywhere (an alpha of 255) has 1: it is divided by it.

    Above `STATISTICS_EXAMPLES` images, over so many that lie evenly spread: some sets are sorted.
    Sums are exact: in float32 over `STATISTICS_CHUNK` images (below 2^24), in float64 over chunks.
    """
    stored = images.array if isinstance(images, MappedRows) else images
    sample = stored[:: max(1, -(-len(stored) // STATISTICS_EXAMPLES))]
    total, squares = np.zeros(sample.shape[1:]), np.zeros(sample.shape[1:])
    for start in range(0, len(sample), STATISTICS_CHUNK):
        pixels = sample[start : start + STATISTICS_CHUNK].astype(np.float32)
        total += pixels.sum(axis=0)
        squares += np.einsum("n...,n...->...", pixels, pixels)
    count = len(sample) * sample.shape[1] * sample.shape[2]
    mean = total.sum(axis=(0, 1)) / count
    variance = np.maximum(squares.sum(axis=(0, 1)) / count - mean**2, 0.0)
    std = np.where(variance > 0.0, np.sqrt(variance), 1.0)
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)
