"""Every data set by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mulo_cli.datasets.base import Dataset, Kind
from mulo_cli.datasets.embedded import digits
from mulo_cli.datasets.options import IMAGE_OPTIONS, DatasetOptions
from mulo_cli.datasets.synthetic import synthetic_imagenet32
from mulo_cli.datasets.tfds import imagenet32, imagenet32_shapes


@dataclass(frozen=True)
class DatasetEntry:
    """One entry of the shelf.

    Attributes:
        kind: images, or text.
        load: options -> the data set with its arrays.
        describe: the same with shapes in place of arrays, where reading is expensive or the data
            may be absent; None: `load` is cheap and always works.
        options: which fields of `DatasetOptions` can be set.
    """

    kind: Kind
    load: Callable[[DatasetOptions], Dataset]
    describe: Callable[[DatasetOptions], Dataset] | None = None
    options: tuple[str, ...] = ()


DATASETS: Mapping[str, DatasetEntry] = {
    "digits": DatasetEntry("images", digits),
    "imagenet32": DatasetEntry("images", imagenet32, imagenet32_shapes, IMAGE_OPTIONS),
    "synthetic/imagenet32": DatasetEntry("images", synthetic_imagenet32),
}
