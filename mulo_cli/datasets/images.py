"""Plain image classification: gather stored pixels and standardise them, without augmentation."""

from typing import Any

import numpy as np
from jaxtyping import Array, Int, UInt8

from mulo_cli.datasets.base import BatchFunction, sample_indices, standardise
from mulo_cli.types import Batch, Data, PRNGKey

STATISTICS_EXAMPLES = 100_000
"""Channel statistics are taken over at most this many images."""


def image_batch(batch_size: int, mean: Any, std: Any) -> BatchFunction:
    """Build the batch function of `{inputs: uint8[n, r, c, ch], targets: int[n]}`.

    Args:
        batch_size: examples `B` per batch.
        mean: per-channel mean of stored pixels.
        std: per-channel standard deviation of stored pixels.
    """

    def batch(data: Data, key: PRNGKey, step: Int[Array, ""]) -> Batch:
        images, targets = data["inputs"], data["targets"]
        index = sample_indices(key, step, batch_size, images.shape[0])
        return Batch(standardise(images[index], mean, std), targets[index])

    return batch


def channel_statistics(images: UInt8[np.ndarray, "n r c ch"]) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean, standard deviation) of each channel, in stored units."""
    sample = images[:STATISTICS_EXAMPLES].astype(np.float32)
    return sample.mean(axis=(0, 1, 2)), sample.std(axis=(0, 1, 2))
