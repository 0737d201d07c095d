"""Prepared data sets: one directory of plain arrays and a card, read without any other library.

A directory holds `train_inputs.npy`, `train_targets.npy` and the same of `test` (of text:
`train_tokens.npy`, `train_starts.npy` where an example is a line, and `spellings.json`), and
`dataset.json`. `preparing` writes it beside its place and moves it there when it is complete.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from pydantic import TypeAdapter, ValidationError

from mulo_cli.datasets.base import Dataset, Kind
from mulo_cli.datasets.files.streams import HEADER_DAMAGE
from mulo_cli.datasets.images import image_dataset
from mulo_cli.datasets.mapped import RESIDENT_LIMIT, MappedRows
from mulo_cli.datasets.options import DatasetOptions, Feed, Unit
from mulo_cli.datasets.text import LENGTH, line_batch, stream_batch
from mulo_cli.errors import DataError, shortened
from mulo_cli.folders import below_home, user_caches
from mulo_cli.types import Data

FOLDER_VARIABLE = "MULO_DATA_DIR"
CARD = "dataset.json"
FORMAT = 1
SPELLINGS = "spellings.json"
LARGEST_CARD = 2**26
"""Bytes of a card that are read; a thousand classes take some 30 000."""

ARRAYS: Mapping[Kind, tuple[str, ...]] = {
    "images": ("inputs", "targets"),
    "text": ("tokens", "starts"),
}
"""What a split of each kind may have."""

KNOWN_FILES = {SPELLINGS} | {
    f"{split}_{name}.npy" for split in ("train", "test") for of in ARRAYS.values() for name in of
}
"""What a card may speak of; whoever reads one opens nothing else."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a prepared set: what must be found there; shape and type are of arrays."""

    bytes: int
    sha256: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Channels:
    """Mean and standard deviation of each channel of the training images, in stored units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Reading:
    """How the tokens of a text are to be read: what an example is, and what a line begins with."""

    unit: Unit
    start: int


@dataclass(frozen=True)
class Card:
    """What `dataset.json` says.

    Attributes:
        format: version of this form.
        name: of the data set.
        kind: images, or text.
        num_classes: number of classes, or the vocabulary's size.
        classes: what classes are called; empty where that is not known, and of text, whose
            tokens' spellings have a file of their own.
        source: where it comes from.
        licence: its terms.
        sizes: split -> number of examples.
        notes: what was assumed or changed when it was prepared, a sentence each.
        files: name -> what must be found there.
        channels: of images.
        reading: of text.
    """

    format: int
    name: str
    kind: Kind
    num_classes: int
    classes: tuple[str, ...]
    source: str
    licence: str
    sizes: Mapping[str, int]
    notes: tuple[str, ...]
    files: Mapping[str, StoredFile]
    channels: Channels | None = None
    reading: Reading | None = None


_CARD = TypeAdapter(Card)


def data_folder() -> Path:
    """Return where prepared sets are: `MULO_DATA_DIR`, else the user's folder for caches."""
    if said := os.environ.get(FOLDER_VARIABLE):
        return below_home(said)
    return user_caches() / "mulo" / "data"


def is_prepared(folder: Path) -> bool:
    """Whether a directory is a prepared set, or the remains of one."""
    return (folder / CARD).is_file()


def prepared_names() -> tuple[str, ...]:
    """Return the names of all sets in the folder of data; drafts have a dot in front."""
    try:
        found = sorted(path.name for path in data_folder().iterdir() if is_prepared(path))
    except OSError:
        return ()
    return tuple(name for name in found if not name.startswith("."))


def read_card(folder: Path) -> Card:
    """Read a card, and compare the arrays with it: that they are there, their sizes and shapes.

    Raises:
        DataError: the set is damaged, or of another version; the message names the file.
    """
    path = folder / CARD
    try:
        if path.stat().st_size > LARGEST_CARD:
            raise _damaged(path, "it is far too long")
        card = _CARD.validate_json(path.read_bytes())
    except OSError as error:
        raise _damaged(path, error.strerror or "it cannot be read") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = shortened(".".join(map(str, first["loc"])))[1:-1]
        raise _damaged(path, f"{where}: {first['msg']}" if where else first["msg"]) from error
    if card.format != FORMAT:
        raise _damaged(path, f"its format is {card.format}, and this version reads {FORMAT}")
    for name in card.files:
        if name not in KNOWN_FILES:
            raise _damaged(path, f"it names {shortened(name)}, which is no file of a data set")
    for split in ("train", "test"):
        _check_split(folder, card, split)
    return card


def _check_split(folder: Path, card: Card, split: str) -> None:
    """Hold a split against its card: the arrays of its kind, as many examples as it says."""
    arrays = _arrays(folder, card, split)
    if card.kind == "images":
        wanted = ("inputs", "targets")
        complete = card.channels is not None
    else:
        wanted = ("tokens", "starts") if _of_lines(card) else ("tokens",)
        complete = card.reading is not None and SPELLINGS in card.files
    if tuple(arrays) != wanted or not complete:
        raise _damaged(folder / CARD, f"it lacks what {card.kind} need")
    counts = {len(array) for name, array in arrays.items() if name in ("inputs", "targets")}
    size = len(arrays[wanted[-1]]) - (1 if _of_lines(card) else 0)
    if counts - {size} or card.sizes.get(split) != size:
        raise _damaged(
            folder / CARD, f"it says {card.sizes.get(split)} {split} examples, there are {size}"
        )


def _of_lines(card: Card) -> bool:
    return card.reading is not None and card.reading.unit == "line"


def _arrays(folder: Path, card: Card, split: str) -> dict[str, np.ndarray]:
    """Map the arrays of a split into memory, each held against the card."""
    names = {name: f"{split}_{name}.npy" for name in ARRAYS[card.kind]}
    return {
        name: _mapped(folder / file, card.files[file])
        for name, file in names.items()
        if file in card.files
    }


def _mapped(path: Path, said: StoredFile) -> np.ndarray:
    _check_size(path, said)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*HEADER_DAMAGE, EOFError) as error:
        raise _damaged(path, shortened(str(error))) from error
    if (array.shape, str(array.dtype)) != (said.shape, said.dtype):
        raise _damaged(
            path,
            f"it holds {array.dtype} {array.shape} instead of "
            f"{shortened(said.dtype)[1:-1]} {shortened(said.shape)}",
        )
    return array


def _check_size(path: Path, said: StoredFile) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise _damaged(path, error.strerror or "it cannot be read") from error
    if not path.is_file():
        raise _damaged(path, "it is no file")
    if found != said.bytes:
        raise _damaged(path, f"it has {found} bytes instead of {said.bytes}")


def _spellings(folder: Path, card: Card) -> tuple[str, ...]:
    """Read how tokens are spelled."""
    path = folder / SPELLINGS
    _check_size(path, card.files[SPELLINGS])
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, shortened(str(error))) from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise _damaged(path, "it is no list of spellings")
    if len(found) != card.num_classes:
        raise _damaged(path, f"it has {len(found)} spellings of {card.num_classes} tokens")
    return tuple(found)


def _damaged(path: Path, why: str) -> DataError:
    name = shortened(path.parent.name)[1:-1]
    return DataError(
        f"the prepared data set {str(path.parent)!r} is damaged: {path.name}: {why}",
        f"prepare it again: `mulo data prepare {name} --overwrite`, with the same --from if there "
        "was one",
    )


def verify(folder: Path, card: Card) -> Iterator[str]:
    """Compare the checksum of every file; yield the name of each that is as it was.

    Raises:
        DataError: a file has changed.
    """
    for name, said in card.files.items():
        if checksum(folder / name) != said.sha256:
            raise _damaged(folder / name, "its checksum is not the one in the card")
        yield name


def checksum(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_prepared(folder: Path, options: DatasetOptions) -> Dataset:
    """Load a prepared set.

    Images whose pixels are to be fed stay in their file; all other arrays are mapped into memory,
    and come to the device with whoever asks for them.

    Raises:
        DataError: it is damaged.
    """
    card = read_card(folder)
    splits = {split: dict(_arrays(folder, card, split)) for split in ("train", "test")}
    if card.kind == "text":
        return _text(folder, card, splits)
    fed: dict[str, Data] = {
        split: {**arrays, "inputs": _fed(folder, split, arrays["inputs"], options.feed)}
        for split, arrays in splits.items()
    }
    return _images(card, fed, options)


def describe_prepared(folder: Path, options: DatasetOptions) -> Dataset:
    """Return the same with shapes in place of arrays."""
    card = read_card(folder)
    splits: dict[str, Data] = {
        split: {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype)
            for name, array in _arrays(folder, card, split).items()
        }
        for split in ("train", "test")
    }
    if card.kind == "text":
        return _text(folder, card, splits)
    return _images(card, splits, options)


def _fed(folder: Path, split: str, inputs: np.ndarray, feed: Feed) -> np.ndarray | MappedRows:
    """Return pixels as they are given to programs: an array, or the file they stay in."""
    stays = feed == "always" or (feed == "auto" and inputs.nbytes > RESIDENT_LIMIT)
    return MappedRows(folder / f"{split}_inputs.npy") if stays else inputs


def _images(card: Card, splits: Mapping[str, Data], options: DatasetOptions) -> Dataset:
    assert card.channels is not None  # `read_card` has seen to it
    dataset = image_dataset(
        card.name,
        splits,
        card.num_classes,
        statistics=(
            np.array(card.channels.mean, np.float32),
            np.array(card.channels.std, np.float32),
        ),
        source=card.source,
        licence=card.licence,
        augment=options.augment,
        classes=card.classes,
    )
    return replace(dataset, notes=card.notes, digest=_digest(card))


def _digest(card: Card) -> str:
    """Return the SHA-256 (hex) of a card's checksums: what was prepared, whatever it is called."""
    told = "\n".join(f"{name} {file.sha256}" for name, file in sorted(card.files.items()))
    return hashlib.sha256(told.encode()).hexdigest()


def _text(folder: Path, card: Card, splits: Mapping[str, Data]) -> Dataset:
    assert card.reading is not None  # `read_card` has seen to it
    of_lines = functools.partial(line_batch, start=card.reading.start)
    return Dataset(
        name=card.name,
        kind="text",
        splits=splits,
        sizes=card.sizes,
        make_batch=of_lines if card.reading.unit == "line" else stream_batch,
        input_shape=(LENGTH,),
        num_classes=card.num_classes,
        real=True,
        source=card.source,
        licence=card.licence,
        classes=_spellings(folder, card),
        notes=card.notes,
        digest=_digest(card),
    )
