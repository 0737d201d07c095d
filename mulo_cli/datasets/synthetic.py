"""Synthetic images with the shape of a benchmark set, for machines that do not have its data.

Every class is a fixed random pattern under strong noise: there is something to learn, and it is not
memorised at once. Rows computed on it say that the data is not real.
"""

import numpy as np

from mulo_cli.datasets.base import Dataset
from mulo_cli.datasets.images import channel_statistics, image_dataset
from mulo_cli.datasets.options import NO_OPTIONS, DatasetOptions

SEED = 0
SIGNAL = 16.0
"""Standard deviation of a class pattern, in pixel levels of 0..255."""

NOISE = 48.0
"""Standard deviation of the noise on each pixel, in pixel levels."""

IMAGENET32_EXAMPLES = 8_192
"""The real set has 1 281 167: this one is for trying programs, not for results."""


def synthetic_imagenet32(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Build 32x32x3 images of 1 000 classes."""
    del options
    return _patterns("synthetic/imagenet32", (32, 32, 3), 1_000, IMAGENET32_EXAMPLES)


def _patterns(name: str, shape: tuple[int, ...], num_classes: int, examples: int) -> Dataset:
    generator = np.random.default_rng(SEED)
    patterns = generator.normal(128.0, SIGNAL, (num_classes, *shape)).astype(np.float32)

    def split(size: int) -> dict[str, np.ndarray]:
        targets = generator.integers(0, num_classes, size, dtype=np.int32)
        noise = NOISE * generator.standard_normal((size, *shape), dtype=np.float32)
        pixels = np.clip(np.rint(patterns[targets] + noise), 0, 255)
        return {"inputs": pixels.astype(np.uint8), "targets": targets}

    splits = {"train": split(examples), "test": split(examples // 8)}
    return image_dataset(
        name,
        splits,
        num_classes,
        statistics=channel_statistics(splits["train"]["inputs"]),
        source="synthetic: class patterns under noise, from a fixed seed",
        licence="none needed",
        real=False,
    )
