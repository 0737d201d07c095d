"""Data sets from tensorflow-datasets; the only file that imports it, when one is asked for.

Prepared data in the array_record format is read without TensorFlow (`tfds.data_source`).
"""

from typing import Any

import jax
import numpy as np

from mulo_cli.datasets.base import Dataset
from mulo_cli.datasets.images import channel_statistics, image_dataset
from mulo_cli.datasets.options import NO_OPTIONS, DatasetOptions
from mulo_cli.errors import DataError

IMAGENET32_SOURCE = "imagenet_resized/32x32 of tensorflow-datasets"
IMAGENET_LICENCE = "non-commercial research only"

READ_CHUNK = 4_096
"""Records decoded at a time."""


def imagenet32(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Load ImageNet at 32x32x3 (Chrabaszcz et al., 2017), 1 000 classes, ImageNet's terms."""
    builder = _prepared_builder("imagenet_resized/32x32")
    splits = {
        "train": _read_split(builder, "train"),
        "test": _read_split(builder, "validation"),
    }
    return image_dataset(
        "imagenet32",
        splits,
        builder.info.features["label"].num_classes,
        statistics=channel_statistics(splits["train"]["inputs"]),
        source=IMAGENET32_SOURCE,
        licence=IMAGENET_LICENCE,
        augment=options.augment,
    )


def imagenet32_shapes(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Describe ImageNet-32 without its pixels, so that recipes on it can be looked at anywhere."""
    sizes = {"train": 1_281_167, "test": 50_000}
    splits = {
        split: {
            "inputs": jax.ShapeDtypeStruct((size, 32, 32, 3), np.uint8),
            "targets": jax.ShapeDtypeStruct((size,), np.int32),
        }
        for split, size in sizes.items()
    }
    return image_dataset(
        "imagenet32",
        splits,
        1_000,
        statistics=(0.0, 1.0),
        source=IMAGENET32_SOURCE,
        licence=IMAGENET_LICENCE,
        augment=options.augment,
    )


def _prepared_builder(builder_name: str) -> Any:
    import tensorflow_datasets as tfds

    builder = tfds.builder(builder_name, file_format="array_record")
    if not builder.info.splits:
        raise DataError(
            f"data set {builder_name!r} is not prepared in {builder.data_path}",
            f"prepare it once with `tfds build {builder_name} --file_format=array_record` "
            "(this needs TensorFlow and the original archives; TFDS_DATA_DIR names the folder), "
            "or try the program on `--set task.dataset=synthetic/imagenet32`",
        )
    return builder


def _read_split(builder: Any, split: str) -> dict[str, np.ndarray]:
    """Read a whole split into memory as stored: uint8 pixels and int32 labels."""
    records = builder.as_data_source(split=split)
    shape = builder.info.features["image"].shape
    inputs = np.empty((len(records), *shape), np.uint8)
    targets = np.empty(len(records), np.int32)
    for start in range(0, len(records), READ_CHUNK):
        rows = range(start, min(start + READ_CHUNK, len(records)))
        for row, record in zip(rows, records.__getitems__(list(rows)), strict=True):
            inputs[row], targets[row] = record["image"], record["label"]
    return {"inputs": inputs, "targets": targets}
