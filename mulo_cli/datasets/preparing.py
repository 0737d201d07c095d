"""Writing a prepared data set: its arrays part by part, its card at the end, and into place whole.

Everything is written into a directory of its own beside its place. Whatever interrupts the work,
that directory goes, and a former set stays until the new one is complete.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int, UInt8

from mulo_cli.datasets.images import channel_statistics
from mulo_cli.datasets.mapped import MappedRows
from mulo_cli.datasets.prepared import (
    CARD,
    FORMAT,
    SPELLINGS,
    Card,
    Channels,
    Reading,
    StoredFile,
    checksum,
)
from mulo_cli.datasets.stored import StoredImages
from mulo_cli.datasets.text import StoredTokens
from mulo_cli.errors import DataError, OutputError

BLOCK = 4_096
"""Images that are handed on at a time."""

ImageBlock: TypeAlias = tuple[UInt8[np.ndarray, "m r c *ch"], Int[np.ndarray, " m"]]
"""Some images and their classes."""


@dataclass(frozen=True)
class Progress:
    """How far the preparation is; a total of 0 is not known yet."""

    done: int
    total: int
    text: str


@dataclass(frozen=True)
class ImageStream:
    """Images that come in blocks, because all of them may be more than memory holds.

    Attributes:
        shape: of one image.
        num_classes: `C`.
        classes: what they are called.
        sizes: split -> number of images that will come.
        blocks: split -> its images.
        notes: what was assumed or changed, a sentence each.
    """

    shape: tuple[int, ...]
    num_classes: int
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    blocks: Callable[[str], Iterator[ImageBlock]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """What a card says about where a set comes from."""

    name: str
    source: str
    licence: str


def stream_of(stored: StoredImages) -> ImageStream:
    """Hand on images that are in memory already."""

    def blocks(split: str) -> Iterator[ImageBlock]:
        inputs, targets = stored.splits[split]["inputs"], stored.splits[split]["targets"]
        for start in range(0, len(targets), BLOCK):
            yield inputs[start : start + BLOCK], targets[start : start + BLOCK]

    return ImageStream(
        shape=stored.splits["train"]["inputs"].shape[1:],
        num_classes=stored.num_classes,
        classes=stored.classes,
        sizes={split: len(arrays["targets"]) for split, arrays in stored.splits.items()},
        blocks=blocks,
        notes=stored.notes,
    )


@contextmanager
def draft_of(place: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a directory to write into; it takes its place when the context ends well.

    Two that prepare the same set at once have each their own directory.

    Raises:
        DataError: the place is taken, or was taken meanwhile.
        OutputError: the file system refuses; a former set is still there.
    """
    _refuse_taken(place, overwrite=overwrite)
    if place.exists() and not (place / CARD).exists():
        raise DataError(
            f"{str(place)!r} is in the way, and is no prepared data set", "move it, or rename yours"
        )
    # not tempfile's: a set may be shared, and its directories are for their owner alone
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex[:12]}")
    try:
        draft.mkdir(parents=True)
        yield draft
        _refuse_taken(place, overwrite=overwrite)
        _put_in_place(draft, place)
    except OSError as error:
        raise OutputError(
            f"cannot write the data set {str(place)!r}: {error.strerror or error}",
            "free some space, or name another folder of data with MULO_DATA_DIR",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _refuse_taken(place: Path, *, overwrite: bool) -> None:
    if place.exists() and not overwrite:
        raise DataError(
            f"{place.name!r} has been prepared already, in {str(place)!r}",
            "`--overwrite` prepares it again, and replaces it when the new one is complete",
        )


def _put_in_place(draft: Path, place: Path) -> None:
    """Move a complete directory to its place; a former one goes only when that has worked."""
    former = draft.with_name(f"{draft.name}.former")
    if place.exists():
        place.rename(former)
    try:
        draft.rename(place)
    except OSError:
        if former.exists():
            former.rename(place)
        raise
    shutil.rmtree(former, ignore_errors=True)


def write_images(draft: Path, stream: ImageStream, origin: Origin) -> Iterator[Progress]:
    """Write images and their card.

    Raises:
        DataError: more or fewer images came than were announced, or of another shape.
        OutputError: there is no room for them.
    """
    total = sum(stream.sizes.values())
    _refuse_without_room(draft, total * int(np.prod(stream.shape)))
    done = 0
    for split, size in stream.sizes.items():
        for count in _write_split(draft, stream, split, size):
            yield Progress(done + count, total, f"{split} images written")
        done += size
    yield Progress(total, total, "measuring, and taking checksums")
    mean, std = channel_statistics(MappedRows(draft / "train_inputs.npy"))
    write_card(
        draft,
        Card(
            format=FORMAT,
            name=origin.name,
            kind="images",
            num_classes=stream.num_classes,
            classes=stream.classes,
            source=origin.source,
            licence=origin.licence,
            sizes=dict(stream.sizes),
            notes=stream.notes,
            files=_describe_files(draft),
            channels=Channels(_plain(mean), _plain(std)),
        ),
    )


def _plain(of_channels: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.atleast_1d(of_channels))


def _write_split(draft: Path, stream: ImageStream, split: str, size: int) -> Iterator[int]:
    """Write one split; yield how many of its images are written."""
    shape = (size, *stream.shape)
    inputs = np.lib.format.open_memmap(
        draft / f"{split}_inputs.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    targets = np.empty(size, np.int32)
    count = 0
    for images, labels in stream.blocks(split):
        end = count + len(labels)
        if images.shape[1:] != stream.shape or end > size:
            raise DataError(
                f"the {split} split has images of shape {images.shape[1:]}, number {end}, where "
                f"{size} of shape {stream.shape} were announced",
                "the source is another one than it says, or damaged",
            )
        inputs[count:end], targets[count:end] = images, labels
        count = end
        yield count
    if count < size:
        raise DataError(
            f"the {split} split ends after {count} of {size} images",
            "the source is incomplete: fetch it again",
        )
    inputs.flush()
    np.save(draft / f"{split}_targets.npy", targets)


def _refuse_without_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"the arrays need {needed} bytes, and {str(folder.parent)!r} has {free} left",
            "free some space, or name another folder of data with MULO_DATA_DIR",
        )


def write_text(draft: Path, stored: StoredTokens, origin: Origin) -> Iterator[Progress]:
    """Write a text's tokens, how they are spelled, and their card."""
    total = sum(len(arrays["tokens"]) for arrays in stored.splits.values())
    yield Progress(0, total, "writing tokens")
    _refuse_without_room(draft, sum(a.nbytes for s in stored.splits.values() for a in s.values()))
    for split, arrays in stored.splits.items():
        for name, array in arrays.items():
            np.save(draft / f"{split}_{name}.npy", array)
    (draft / SPELLINGS).write_text(json.dumps(stored.spellings), "utf-8")
    yield Progress(total, total, "taking checksums")
    sizes = {
        split: len(arrays["starts"]) - 1 if stored.unit == "line" else len(arrays["tokens"])
        for split, arrays in stored.splits.items()
    }
    write_card(
        draft,
        Card(
            format=FORMAT,
            name=origin.name,
            kind="text",
            num_classes=stored.vocabulary,
            classes=(),
            source=origin.source,
            licence=origin.licence,
            sizes=sizes,
            notes=stored.notes,
            files=_describe_files(draft),
            reading=Reading(stored.unit, stored.start),
        ),
    )


def _describe_files(draft: Path) -> dict[str, StoredFile]:
    """Return what a card says about the files that are there."""
    found = {}
    for path in sorted(path for path in draft.iterdir() if path.is_file()):
        facts = (path.stat().st_size, checksum(path))
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            found[path.name] = StoredFile(*facts, array.shape, str(array.dtype))
        else:
            found[path.name] = StoredFile(*facts)
    return found


def write_card(draft: Path, card: Card) -> None:
    """Write the card, the last file of a prepared set."""
    text = json.dumps(asdict(card), indent=1, ensure_ascii=False)
    (draft / CARD).write_text(text + "\n", "utf-8")
