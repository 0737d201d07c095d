"""Every data set by name; beside them what a user has prepared, and files as they are."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from mulo_cli.datasets.base import Dataset, Kind, digest_of
from mulo_cli.datasets.embedded import digits, pydoc
from mulo_cli.datasets.files.archives import refuse_special
from mulo_cli.datasets.files.reading import ARCHIVES, looks_like_images, read_images
from mulo_cli.datasets.images import channel_statistics, image_dataset
from mulo_cli.datasets.options import (
    IMAGE_FILE_OPTIONS,
    IMAGE_OPTIONS,
    PREPARED_IMAGE_OPTIONS,
    TEXT_OPTIONS,
    DatasetOptions,
)
from mulo_cli.datasets.prepared import (
    data_folder,
    describe_prepared,
    is_prepared,
    load_prepared,
    read_card,
)
from mulo_cli.datasets.synthetic import (
    synthetic_cifar10,
    synthetic_fashion_mnist,
    synthetic_imagenet32,
    synthetic_imagenet64,
    synthetic_lm1b,
)
from mulo_cli.datasets.text import LENGTH, line_batch, text_dataset, tokenise
from mulo_cli.datasets.text_files import looks_like_text, read_text
from mulo_cli.datasets.tfds import BENCHMARKS
from mulo_cli.errors import DataError, shortened_path
from mulo_cli.types import Data

LM1B_LINE = 30
"""Tokens of a sentence of lm1b, roughly: what is known of its size before it is prepared."""


@dataclass(frozen=True)
class DatasetEntry:
    """One entry of the shelf.

    Attributes:
        kind: images, or text.
        load: options -> the data set with its arrays.
        describe: the same with shapes in place of arrays, where reading is expensive or the data
            may be absent; None: `load` is cheap and always works.
        options: which fields of `DatasetOptions` can be set.
        place: the directory of a set that has to be prepared; None: it is always there.
    """

    kind: Kind
    load: Callable[[DatasetOptions], Dataset]
    describe: Callable[[DatasetOptions], Dataset] | None = None
    options: tuple[str, ...] = ()
    place: Callable[[], Path] | None = None

    @property
    def present(self) -> bool:
        """Whether it can be loaded here and now."""
        return self.place is None or is_prepared(self.place())


def _benchmark(name: str) -> DatasetEntry:
    """Return the entry of a published set, which is there once it has been prepared."""

    def place() -> Path:
        return data_folder() / name

    def load(options: DatasetOptions) -> Dataset:
        if not is_prepared(place()):
            raise DataError(
                f"data set {name!r} is not prepared: there is no {str(place())!r}",
                f"prepare it once with `mulo data prepare {name}`, or try the program on "
                f"synthetic/{name}",
            )
        return load_prepared(place(), options)

    def describe(options: DatasetOptions) -> Dataset:
        if is_prepared(place()):
            return describe_prepared(place(), options)
        return _described_text(name) if kind == "text" else _described_images(name, options)

    kind = BENCHMARKS[name].kind
    options = PREPARED_IMAGE_OPTIONS if kind == "images" else ()
    return DatasetEntry(kind, load, describe, options, place)


def _described_images(name: str, options: DatasetOptions) -> Dataset:
    """Describe images without their pixels, so that recipes on them can be looked at anywhere."""
    known = BENCHMARKS[name]
    splits: dict[str, Data] = {
        split: {
            "inputs": jax.ShapeDtypeStruct((size, *known.shape), np.uint8),
            "targets": jax.ShapeDtypeStruct((size,), np.int32),
        }
        for split, size in known.sizes.items()
    }
    return image_dataset(
        name,
        splits,
        known.num_classes,
        statistics=(0.0, 1.0),
        source=known.source,
        licence=known.licence,
        augment=options.augment,
    )


def _described_text(name: str) -> Dataset:
    known = BENCHMARKS[name]
    splits: dict[str, Data] = {
        split: {
            "tokens": jax.ShapeDtypeStruct((size * LM1B_LINE,), np.uint16),
            "starts": jax.ShapeDtypeStruct((size + 1,), np.int32),
        }
        for split, size in known.sizes.items()
    }
    return Dataset(
        name=name,
        kind="text",
        splits=splits,
        sizes=known.sizes,
        make_batch=functools.partial(line_batch, start=0),
        input_shape=(LENGTH,),
        num_classes=known.num_classes,
        real=True,
        source=known.source,
        licence=known.licence,
    )


DATASETS: Mapping[str, DatasetEntry] = {
    "digits": DatasetEntry("images", digits),
    "pydoc": DatasetEntry("text", pydoc, options=TEXT_OPTIONS),
    **{name: _benchmark(name) for name in BENCHMARKS},
    "synthetic/imagenet32": DatasetEntry("images", synthetic_imagenet32, options=IMAGE_OPTIONS),
    "synthetic/imagenet64": DatasetEntry("images", synthetic_imagenet64, options=IMAGE_OPTIONS),
    "synthetic/cifar10": DatasetEntry("images", synthetic_cifar10, options=IMAGE_OPTIONS),
    "synthetic/fashion_mnist": DatasetEntry(
        "images", synthetic_fashion_mnist, options=IMAGE_OPTIONS
    ),
    "synthetic/lm1b": DatasetEntry("text", synthetic_lm1b),
}


def prepared_entry(folder: Path) -> DatasetEntry:
    """Return the entry of a prepared directory.

    Raises:
        DataError: it is damaged.
    """
    kind = read_card(folder).kind
    return DatasetEntry(
        kind,
        functools.partial(load_prepared, folder),
        functools.partial(describe_prepared, folder),
        PREPARED_IMAGE_OPTIONS if kind == "images" else (),
        lambda: folder,
    )


def entry_at(path: Path) -> DatasetEntry:
    """Return the entry of a file or folder: a prepared set, else images, else text.

    Raises:
        DataError: it is none of them.
    """
    refuse_special(path)
    if is_prepared(path):
        return prepared_entry(path)
    if looks_like_images(path):
        return DatasetEntry("images", functools.partial(_images_at, path), None, IMAGE_FILE_OPTIONS)
    if looks_like_text(path):
        return DatasetEntry("text", functools.partial(_text_at, path), None, TEXT_OPTIONS)
    if path.name.lower().endswith(ARCHIVES):
        read_images(path)  # says what is wrong with the archive
    raise DataError(
        f"{shortened_path(path)} holds neither images nor text that can be read",
        "images: one folder per class, idx, CIFAR's binary version, npz; text: UTF-8; each as a "
        "folder, a file or an archive",
    )


def _images_at(path: Path, options: DatasetOptions) -> Dataset:
    stored = read_images(path, options.resize)
    dataset = image_dataset(
        path.name,
        stored.splits,
        stored.num_classes,
        statistics=channel_statistics(stored.splits["train"]["inputs"]),
        source=f"the files of {path.name}",
        licence="unknown",
        augment=options.augment,
        classes=stored.classes,
    )
    return replace(dataset, notes=stored.notes, digest=digest_of(stored.splits))


def _text_at(path: Path, options: DatasetOptions) -> Dataset:
    tokens = tokenise(read_text(path), options)
    source = f"the text of {path.name}"
    dataset = text_dataset(path.name, tokens, source=source, licence="unknown")
    return replace(dataset, notes=tokens.notes, digest=digest_of(tokens.splits))
