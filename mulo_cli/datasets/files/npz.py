"""Arrays saved by numpy: an `.npz`, or a folder of `.npy` files, under the usual names.

Headers are checked before anything is read, and nothing is ever unpickled.
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Num, UInt8

from mulo_cli.datasets.files.labelled import (
    Arrays,
    checked_pair,
    count_classes,
    require_one_shape,
    resize_note,
    resized,
    with_test_split,
)
from mulo_cli.datasets.files.members import ByteStream, Member, require_one_folder
from mulo_cli.datasets.files.streams import (
    HEADER_DAMAGE,
    read_exactly,
    read_up_to,
    unpacked,
)
from mulo_cli.datasets.stored import StoredImages
from mulo_cli.errors import DataError, shortened

SPELLINGS: tuple[Mapping[str, str], ...] = (
    {
        "train_inputs": "train_inputs",
        "train_targets": "train_targets",
        "test_inputs": "test_inputs",
        "test_targets": "test_targets",
    },
    {
        "train_inputs": "x_train",
        "train_targets": "y_train",
        "test_inputs": "x_test",
        "test_targets": "y_test",
    },
)
"""What arrays are called: here, and in Keras."""

HEADER_LIMIT = 2**16
"""Bytes of a header, which version 2 of the format lets be 4 GiB; those of numbers have 118."""

AXIS_LIMIT = 2**63
"""Along one axis; of more numbers not even an array that is empty otherwise can be made."""

CHANNELS_LIMIT = 4
"""More along the last axis are rather columns of images whose channels come first."""

CHECKED_ROWS = 1_024
"""Images converted at a time."""

EXACT = 1e-3
"""How far 255 times a fraction may lie from a whole number. Rounding of float32 leaves 1.5e-5; that
of float16 up to 0.06, and such images are refused rather than guessed."""


def is_arrays(members: Sequence[Member]) -> bool:
    """Tell whether there are training inputs among the members."""
    stems = {member.name.removesuffix(".npy") for member in members if _is_npy(member)}
    return any(spelling["train_inputs"] in stems for spelling in SPELLINGS)


def read_arrays(members: Sequence[Member], shown: str, resize: int = 0) -> StoredImages:
    """Read images and labels that numpy saved.

    Pixels are uint8. Other numbers are taken where nothing is lost: whole numbers of 0..255, and
    fractions n/255 of [0, 1]. All else is an error.

    Args:
        members: arrays; those of other names are passed over.
        shown: the set's name, for errors.
        resize: side in pixels; 0 keeps the stored size.

    Returns:
        images as saved, uint8[n, r, c] or uint8[n, r, c, ch].

    Raises:
        DataError: an array is missing, damaged, of another kind, or contradicts another.
    """
    arrays = {member.name.removesuffix(".npy"): member for member in members if _is_npy(member)}
    spelling = next(one for one in SPELLINGS if one["train_inputs"] in arrays)
    files = {f"{name}.npy" for name in spelling.values()}
    require_one_folder([member for member in members if member.name in files], shown)
    notes: list[str] = []
    splits: dict[str, Arrays] = {}
    for split in ("train", "test"):
        names = [spelling[f"{split}_{what}"] for what in ("inputs", "targets")]
        if split == "train" or any(name in arrays for name in names):
            found = [_wanted(arrays, name, shown) for name in names]
            pixels, told = _pixels(_read(found[0]), names[0])
            labels = _labels(_read(found[1]), names[1])
            splits[split] = checked_pair(pixels, labels, f"the {split} split of {shown}")
            notes += told
    require_one_shape(splits, shown)
    num_classes = count_classes(splits, shown)
    notes += resize_note(splits["train"]["inputs"].shape[1:3], resize)
    for one in splits.values():
        one["inputs"] = resized(one["inputs"], resize)
    whole, drawn = with_test_split(splits, shown)
    return StoredImages(whole, num_classes, notes=(*notes, *drawn))


def _is_npy(member: Member) -> bool:
    return member.name.endswith(".npy")


def _wanted(arrays: Mapping[str, Member], name: str, shown: str) -> Member:
    if name not in arrays:
        there = ", ".join(sorted(arrays))
        raise DataError(
            f"{shown} has no array {name!r}, only {shortened(there)}",
            "save train_inputs, train_targets, test_inputs and test_targets (or x_train, y_train, "
            "x_test and y_test) with `np.savez`",
        )
    return arrays[name]


def _read(member: Member) -> np.ndarray:
    """Read one array, whose header has to describe exactly what follows it."""
    with unpacked(member) as stream:
        try:
            shape, by_columns, dtype = _read_header(stream)
        except HEADER_DAMAGE as fault:
            raise DataError(
                f"{member.shown} is no array of numbers: {shortened(str(fault))}",
                "save it anew with `np.savez`",
            ) from fault
        if dtype.kind not in "buif":
            raise DataError(
                f"{member.shown} holds {shortened(str(dtype))}, not numbers",
                "pickled objects are never opened: save an array of numbers, images of one size",
            )
        content = read_exactly(stream, math.prod(shape) * dtype.itemsize, member.shown)
        array = np.frombuffer(content, dtype)
        return array.reshape(shape[::-1]).T if by_columns else array.reshape(shape)


def _read_header(stream: ByteStream) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return (shape, whether columns come first, type); numpy reads a header before it judges it.

    Raises:
        ValueError: it is none of numpy's, absurdly long, or of an absurd shape; likewise all
            others of `HEADER_DAMAGE`.
    """
    version = np.lib.format.read_magic(stream)
    width, read_header = {
        (1, 0): (2, np.lib.format.read_array_header_1_0),
        (2, 0): (4, np.lib.format.read_array_header_2_0),
    }[version]
    length = bytes(read_up_to(stream, width))
    size = int.from_bytes(length, "little")
    if size > HEADER_LIMIT:
        raise ValueError(f"its header is said to have {size:,} bytes")
    shape, by_columns, dtype = read_header(io.BytesIO(length + read_up_to(stream, size)))
    if not all(type(axis) is int and 0 <= axis < AXIS_LIMIT for axis in shape):
        raise ValueError(f"it would be of shape {shape}")
    return shape, by_columns, dtype


def _labels(labels: np.ndarray, name: str) -> np.ndarray:
    """Return labels of one axis."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        shape = "x".join(map(str, labels.shape))
        raise DataError(
            f"{name} is {labels.dtype} of {shape}: labels are one whole number per image",
            "of one-hot labels `labels.argmax(axis=1)` is wanted",
        )
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise DataError(
            f"{name} has labels from {labels.min()} to {labels.max()}",
            "number the classes 0, 1, ...",
        )
    return labels


def _pixels(
    images: Num[np.ndarray, "..."], name: str
) -> tuple[UInt8[np.ndarray, "n r c *ch"], tuple[str, ...]]:
    """Return pixels as bytes, and what had to be done for it."""
    shape = "x".join(map(str, images.shape))
    if images.ndim not in (3, 4) or images.shape[3:] > (CHANNELS_LIMIT,):
        raise DataError(
            f"{name} is {shape}: images are [n, rows, columns] or [n, rows, columns, channels]",
            "where channels come first, `images.transpose(0, 2, 3, 1)` brings them to the end",
        )
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images), ()
    scale = 1
    if images.dtype.kind == "f" and images.size and images.max() <= 1:
        scale = 255
    result = np.empty(images.shape, np.uint8)
    for start, block, whole in _scaled_blocks(images, scale):
        if not _are_bytes(block, whole):
            raise DataError(
                f"{name} is {images.dtype} with values that are neither 0, 1, ..., 255 nor "
                "0, 1/255, ..., 1",
                "save pixels as uint8, for example `np.uint8(np.rint(255 * images))` if they lie "
                "between 0 and 1; they are standardised during training",
            )
        result[start : start + len(whole)] = whole
    times = " times 255" if scale == 255 else ""
    return result, (f"{name} was {images.dtype} and became uint8{times}, without a loss",)


def _are_bytes(values: np.ndarray, whole: np.ndarray) -> bool:
    """Tell whether values are whole numbers that a byte holds."""
    if not np.isfinite(values).all() or whole.min() < 0 or whole.max() > 255:
        return False
    return bool((np.abs(values - whole) <= EXACT).all())


def _scaled_blocks(
    images: Num[np.ndarray, "..."], scale: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Go through images and give (first row, values, whole numbers beside them)."""
    for start in range(0, len(images), CHECKED_ROWS):
        block = images[start : start + CHECKED_ROWS].astype(np.float64) * scale
        yield start, block, np.rint(block)
