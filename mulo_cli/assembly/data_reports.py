"""What `mulo data` answers: a line for each data set there is, and one set looked at closely."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mulo_cli.assembly.datasets import dataset_options, find_dataset
from mulo_cli.datasets.base import Dataset, Kind
from mulo_cli.datasets.catalogue import DATASETS, DatasetEntry, prepared_entry
from mulo_cli.datasets.images import channel_statistics
from mulo_cli.datasets.mapped import MappedRows
from mulo_cli.datasets.options import NO_OPTIONS
from mulo_cli.datasets.prepared import data_folder, prepared_names, read_card, verify
from mulo_cli.datasets.tokenizers import spelled
from mulo_cli.errors import DataError
from mulo_cli.recipes.references import parse_named
from mulo_cli.types import Data

FREQUENT = 10
"""Tokens that are told, of the most frequent ones."""

EXAMPLES = 5
"""Texts that are shown."""

SHEET = 64
"""Images on a contact sheet."""

COUNTED = 2**24
"""Numbers that are counted at a time: numpy makes 8 bytes of each."""


@dataclass(frozen=True)
class DataRow:
    """A data set that can be named.

    Attributes:
        name: as it is named after --dataset.
        examples: images, or text.
        present: whether it can be used here and now.
        place: where it is prepared, or would be; None: it needs no place.
        train: number of training examples.
        test: number of test examples.
        shape: of an image; None of text, whose length a network sets.
        num_classes: number of classes, or the vocabulary's size.
        real: False for synthetic data.
        options: what can be said about it.
        source: where it comes from.
        licence: its terms.
        notes: what was assumed or changed when it was read or prepared.
        complaint: why it cannot be used though something is there.
    """

    name: str
    examples: Kind | None
    present: bool
    place: str | None
    train: int | None
    test: int | None
    shape: tuple[int, ...] | None
    num_classes: int | None
    real: bool
    options: tuple[str, ...]
    source: str
    licence: str
    notes: tuple[str, ...] = ()
    complaint: str | None = None
    kind: Literal["data"] = "data"


@dataclass(frozen=True)
class Balance:
    """How many training images each class has, in the order of targets."""

    names: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ImageFacts:
    """What can be measured on stored training images; mean and std per channel, stored units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    balance: Balance


@dataclass(frozen=True)
class TextFacts:
    """What can be measured on a stored text.

    Attributes:
        tokens: split -> how many there are.
        used: tokens of the vocabulary that the training split has.
        frequent: the most frequent tokens and their shares.
        counts: of every token in the training split, the most frequent first.
        examples: how the training split begins.
    """

    tokens: Mapping[str, int]
    used: int
    frequent: tuple[tuple[str, float], ...]
    counts: tuple[int, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True)
class DataReport:
    """One data set, looked at closely.

    Attributes:
        row: what the list says of it.
        verified: files whose checksum is the one of its card; None: nobody asked.
        images: None of text, and of images that are made in the batch, or not there.
        text: None of images, and of text that is made in the batch, or not there.
    """

    row: DataRow
    verified: tuple[str, ...] | None
    images: ImageFacts | None
    text: TextFacts | None
    kind: Literal["data-report"] = "data-report"


def list_datasets() -> Iterator[DataRow]:
    """Yield the catalogue and the user's prepared sets; a damaged one says why."""
    for name, entry in DATASETS.items():
        yield _safe_row(name, entry)
    for name in prepared_names():
        if name not in DATASETS:
            yield prepared_row(name)


def prepared_row(name: str) -> DataRow:
    """Return the row of a set in the folder of data."""
    try:
        entry = prepared_entry(data_folder() / name)
    except DataError as error:
        return _broken(name, None, str(data_folder() / name), error)
    return _safe_row(name, entry)


def _safe_row(name: str, entry: DatasetEntry) -> DataRow:
    try:
        return row_of(name, entry, (entry.describe or entry.load)(NO_OPTIONS))
    except DataError as error:
        return _broken(name, entry.kind, str(entry.place()) if entry.place else None, error)


def row_of(name: str, entry: DatasetEntry, found: Dataset) -> DataRow:
    """Return what is told about a data set."""
    return DataRow(
        name=name,
        examples=found.kind,
        present=entry.present,
        place=str(entry.place()) if entry.place else None,
        train=found.sizes["train"],
        test=found.sizes["test"],
        shape=found.input_shape if found.kind == "images" else None,
        num_classes=found.num_classes,
        real=found.real,
        options=entry.options,
        source=found.source,
        licence=found.licence,
        notes=found.notes,
    )


def _broken(name: str, kind: Kind | None, place: str | None, error: DataError) -> DataRow:
    return DataRow(
        name, kind, False, place, None, None, None, None, True, (), "", "", complaint=error.message
    )


@dataclass(frozen=True)
class Shown:
    """A report, and the data set it is about."""

    report: DataReport
    dataset: Dataset


def look_at(text: str, *, verified: bool, loaded: bool) -> Shown:
    """Load a data set as a user names it, and measure it.

    Args:
        text: `NAME|PATH[:key=value,...]`.
        verified: whether the checksums of its files are compared with its card.
        loaded: whether one that is not there is an error; False tells what is known of it.

    Raises:
        UsageError: an unknown name or option.
        DataError: it is not there, damaged, or cannot be read.
    """
    reference = parse_named(text)
    entry = find_dataset(reference.name)
    options = dataset_options(reference, entry.options)
    if not (entry.present or loaded or verified) and entry.describe is not None:
        known = entry.describe(options)
        return Shown(DataReport(row_of(text, entry, known), None, None, None), known)
    dataset = entry.load(options)
    checked = _verified(entry) if verified else None
    train = dataset.splits["train"]
    stored = isinstance(train, Mapping) and ("inputs" in train or "tokens" in train)
    report = DataReport(
        row_of(text, entry, dataset),
        checked,
        _image_facts(dataset) if stored and dataset.kind == "images" else None,
        _text_facts(dataset) if stored and dataset.kind == "text" else None,
    )
    return Shown(report, dataset)


def _verified(entry: DatasetEntry) -> tuple[str, ...]:
    if entry.place is None:
        raise DataError("only prepared data sets have checksums", "leave --verify away")
    return tuple(verify(entry.place(), read_card(entry.place())))


def _image_facts(dataset: Dataset) -> ImageFacts:
    train: Any = dataset.splits["train"]
    counts = np.bincount(np.asarray(train["targets"]), minlength=dataset.num_classes)
    mean, std = channel_statistics(_inner(_stored(train["inputs"]), dataset.input_shape))
    return ImageFacts(
        mean=tuple(float(value) for value in np.atleast_1d(mean)),
        std=tuple(float(value) for value in np.atleast_1d(std)),
        balance=Balance(_class_names(dataset), tuple(int(count) for count in counts)),
    )


def _stored(inputs: Any) -> np.ndarray:
    return inputs.array if isinstance(inputs, MappedRows) else inputs


def _inner(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return images without the border that some sets store for random shifts."""
    down, right = ((images.shape[axis + 1] - shape[axis]) // 2 for axis in (0, 1))
    return images[:, down : down + shape[0], right : right + shape[1]]


def _class_names(dataset: Dataset) -> tuple[str, ...]:
    return dataset.classes or tuple(str(number) for number in range(dataset.num_classes))


def _text_facts(dataset: Dataset) -> TextFacts:
    train: Any = dataset.splits["train"]
    counts = _counts(train["tokens"], dataset.num_classes)
    order = np.argsort(-counts, kind="stable")
    total = max(1, int(counts.sum()))
    frequent = [int(token) for token in order[:FREQUENT] if counts[token]]
    return TextFacts(
        tokens={split: len(_tokens(arrays)) for split, arrays in dataset.splits.items()},
        used=int((counts > 0).sum()),
        frequent=tuple(
            (spelled(dataset.classes, [token]), float(counts[token] / total)) for token in frequent
        ),
        counts=tuple(int(count) for count in counts[order]),
        examples=tuple(_first_texts(dataset, train)),
    )


def _tokens(arrays: Any) -> np.ndarray:
    return arrays["tokens"]


def _counts(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """Count each token, a part of the text at a time."""
    parts = range(0, len(tokens), COUNTED)
    return sum(
        (np.bincount(tokens[at : at + COUNTED], minlength=vocabulary) for at in parts),
        start=np.zeros(vocabulary, np.int64),
    )


def _first_texts(dataset: Dataset, train: Any) -> Iterator[str]:
    """Yield the first lines, or the first windows of running text."""
    tokens = train["tokens"]
    (length,) = dataset.input_shape
    starts = train.get("starts", np.arange(0, len(tokens) + 1, length))
    for start, end in itertools.pairwise(starts[: EXAMPLES + 1]):
        yield spelled(dataset.classes, tokens[start : min(end, start + length)])


def sheet_images(dataset: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return images for a contact sheet, and what their classes are called.

    Stored images are spread over all classes; images that are made in the batch are one batch's.
    """
    train: Any = dataset.splits["train"]
    if "inputs" in train:
        targets = np.asarray(train["targets"])
        chosen = _spread(targets, dataset.num_classes)
        images = _inner(_stored(train["inputs"])[chosen], dataset.input_shape)
        labels = targets[chosen]
    else:
        images, labels = _drawn(dataset, train)
    names = _class_names(dataset)
    return images, tuple(names[int(label)] for label in labels)


def _spread(targets: np.ndarray, num_classes: int) -> np.ndarray:
    """Choose images such that as many classes as possible are seen, as often as each other."""
    order = np.argsort(targets, kind="stable")
    first = np.searchsorted(targets[order], np.arange(num_classes))
    rank = np.arange(len(targets)) - first[targets[order]]  # place of an image in its class
    wanted = np.lexsort((targets[order], rank))[:SHEET]
    chosen = order[np.sort(wanted)]
    return chosen[np.argsort(targets[chosen], kind="stable")]


def _drawn(dataset: Dataset, train: Data) -> tuple[np.ndarray, np.ndarray]:
    arrays = jax.tree.map(jnp.asarray, train)
    batch = dataset.make_batch(SHEET)(arrays, jax.random.key(0), jnp.int32(0))
    return np.asarray(batch.inputs), np.asarray(batch.targets)
