"""Every data set by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mulo_cli.datasets.base import Dataset
from mulo_cli.datasets.embedded import digits
from mulo_cli.datasets.synthetic import synthetic_imagenet32
from mulo_cli.datasets.tfds import imagenet32, imagenet32_shapes


@dataclass(frozen=True)
class DatasetEntry:
    """One entry of the shelf.

    Attributes:
        load: reads the arrays.
        describe: the same with shapes in place of arrays, where reading is expensive or the data
            may be absent; None: `load` is cheap and always works.
    """

    load: Callable[[], Dataset]
    describe: Callable[[], Dataset] | None = None


DATASETS: Mapping[str, DatasetEntry] = {
    "digits": DatasetEntry(digits),
    "imagenet32": DatasetEntry(imagenet32, imagenet32_shapes),
    "synthetic/imagenet32": DatasetEntry(synthetic_imagenet32),
}
