"""Folders and archives of image files, one folder per class: decoded into one array."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

from mulo_cli.datasets.files.image_layout import Example, lay_out
from mulo_cli.datasets.files.labelled import counted
from mulo_cli.datasets.files.members import Member
from mulo_cli.datasets.files.pictures import MAGIC_SIZE, Picture, is_image
from mulo_cli.datasets.files.room import Room
from mulo_cli.datasets.files.streams import array_limit, first_bytes, read_small
from mulo_cli.datasets.stored import StoredImages
from mulo_cli.errors import DataError
from mulo_cli.machine import usable_cores

FILE_LIMIT = 2**28
"""Bytes of one image file."""

PEEKED = 64
"""Files whose first bytes tell whether a folder is one of images."""

BATCH = 32
"""Files handed to a thread at a time."""

BATCH_BYTES = 2**26
"""Bytes of files, or of decoded images, with which a batch is full; one file may have more."""

WORKERS_LIMIT = 16
AHEAD = 4
"""Batches per thread that are read before they are wanted."""

AHEAD_BYTES = 2**29
"""Bytes of files and of decoded images that may wait: a small archive may unpack to large ones."""

DECODING_BYTES = 2**31
"""Bytes of memory that all threads together take to decode what they have; the largest image of
all takes three quarters of them alone."""

Packed: TypeAlias = tuple[int, bytes, str]
"""A row, the file of its image, and the file's name for errors."""


def is_image_folder(members: Sequence[Member]) -> bool:
    """Tell whether at least half of the files in folders are images, by the first bytes of some."""
    inner = [member for member in members if len(member.parts) > 1]
    every = max(1, len(inner) // PEEKED)
    peeked = inner[::every]
    images = sum(is_image(first_bytes(member, MAGIC_SIZE)) for member in peeked)
    return 0 < len(peeked) <= 2 * images


def read_image_folders(members: Sequence[Member], shown: str, resize: int = 0) -> StoredImages:
    """Read images that lie in one folder per class.

    Args:
        members: files of a folder or an archive.
        shown: its name, for errors.
        resize: side in pixels that rows and columns are both brought to; 0 keeps them.

    Returns:
        greyscale images, uint8[n, r, c], where all are; else colour images, uint8[n, r, c, 3].

    Raises:
        DataError: no class can be told, a file is no image, or images differ in size.
    """
    layout = lay_out(members, shown)
    examples = [*layout.splits["train"], *layout.splits["test"]]
    pixels = PixelRows(len(examples), shown)
    for row, picture in _pictures(examples, resize):
        pixels.put(row, picture, examples[row].member.shown)
    inputs = pixels.rows
    targets = np.asarray([example.label for example in examples], np.int32)
    train = len(layout.splits["train"])
    splits = {
        "train": {"inputs": inputs[:train], "targets": targets[:train]},
        "test": {"inputs": inputs[train:], "targets": targets[train:]},
    }
    notes = (*layout.notes, *pixels.notes(resize))
    return StoredImages(splits, len(layout.classes), layout.classes, notes)


class PixelRows:
    """One array for all images, filled in any order; it becomes colour when the first such comes.

    Args:
        count: number of images.
        shown: the set's name, for errors.
    """

    def __init__(self, count: int, shown: str) -> None:
        self.rows: UInt8[np.ndarray, "n r c *ch"] = np.empty((count, 0, 0), np.uint8)
        self._shown = shown
        self._first = ""
        self._conversions: Counter[tuple[str, str]] = Counter()
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._grey = 0

    def put(self, row: int, picture: Picture, shown: str) -> None:
        """Put one image in its row.

        Raises:
            DataError: it differs in size from the first one.
        """
        size = picture.pixels.shape[:2]
        if not self._first:
            self._first = shown
            self._allocate(picture.pixels.shape)
        if size != self.rows.shape[1:3]:
            raise DataError(
                f"images differ in size: {self._first} has {_by(self.rows.shape[1:3])} pixels, "
                f"{shown} has {_by(size)}",
                "bring all to one size, for example with `:resize=32` behind the path "
                "(`--resize 32` of `mulo data prepare`)",
            )
        is_grey = picture.pixels.ndim == 2
        if not is_grey and self.rows.ndim == 3:
            grey = self.rows
            self._allocate((*size, 3))
            self.rows[:] = grey[..., None]
        spread = is_grey and self.rows.ndim == 4
        self.rows[row] = picture.pixels[..., None] if spread else picture.pixels
        self._grey += is_grey
        if picture.conversion:
            self._conversions[picture.conversion] += 1
        self._sizes[picture.original] += 1

    def notes(self, resize: int) -> tuple[str, ...]:
        """Say what was done to images, with numbers."""
        told = [
            f"{counted(number, kind)} {done}"
            for (kind, done), number in sorted(self._conversions.items())
        ]
        if self._grey and self.rows.ndim == 4:
            told.append(f"{counted(self._grey, 'greyscale image')} read as RGB")
        changed = {s: n for s, n in self._sizes.items() if resize and s != (resize, resize)}
        if changed:
            number = sum(changed.values())
            told.append(f"{counted(number, 'image')} brought to {resize}x{resize} pixels")
        oblong = sum(n for (columns, rows), n in changed.items() if columns != rows)
        if oblong:
            told.append(f"{counted(oblong, 'oblong image')} squeezed into the square, not cut")
        return tuple(told)

    def _allocate(self, shape: Sequence[int]) -> None:
        whole = (len(self.rows), *shape)
        size = int(np.prod(whole, dtype=np.int64))
        if size > (limit := array_limit()):
            raise DataError(
                f"the images of {self._shown} are {size:,} bytes when decoded",
                f"at most {limit:,} are read, and never more than there is free memory: make them "
                "smaller, for example with `:resize=64` behind the path",
            )
        self.rows = np.empty(whole, np.uint8)


def _by(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _pictures(examples: Sequence[Example], resize: int) -> Iterator[tuple[int, Picture]]:
    """Decode all images, each with its row: read one after the other, decoded in threads.

    Pillow decodes without holding the interpreter; an archive has one reader at a time. The first
    one comes alone: whether there is memory for all is known before the others are decoded.
    """
    order = iter(sorted(range(len(examples)), key=lambda row: examples[row].member.place))
    room = Room(DECODING_BYTES)
    ((_, first),) = told = _decode_batch([_packed(next(order), examples)], resize, None, room)
    yield from told
    expected = None if resize else first.original
    number = max(1, min(BATCH, BATCH_BYTES // max(1, first.pixels.nbytes)))
    workers = min(WORKERS_LIMIT, usable_cores())
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[int, Future[list[tuple[int, Picture]]]]] = deque()
        try:
            for batch in _batches((_packed(row, examples) for row in order), number):
                size = sum(len(content) for _, content, _ in batch) + number * first.pixels.nbytes
                waiting.append((size, pool.submit(_decode_batch, batch, resize, expected, room)))
                while len(waiting) > AHEAD * workers or _size_of(waiting) > AHEAD_BYTES:
                    yield from waiting.popleft()[1].result()
            while waiting:
                yield from waiting.popleft()[1].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _packed(row: int, examples: Sequence[Example]) -> Packed:
    member = examples[row].member
    return row, read_small(member, FILE_LIMIT), member.shown


def _batches(files: Iterable[Packed], number: int) -> Iterator[list[Packed]]:
    """Gather files: so many, or as many bytes as are enough for a thread."""
    batch: list[Packed] = []
    for file in files:
        batch.append(file)
        if len(batch) == number or sum(len(content) for _, content, _ in batch) > BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _size_of(waiting: Iterable[tuple[int, object]]) -> int:
    return sum(size for size, _ in waiting)


def _decode_batch(
    batch: list[Packed], resize: int, expected: tuple[int, int] | None, room: Room
) -> list[tuple[int, Picture]]:
    from mulo_cli.datasets.files.decoding import decode  # Pillow, only wanted here

    return [(row, decode(content, shown, resize, expected, room)) for row, content, shown in batch]
