"""The idx format of the MNIST family: four files, plain or gzip.

Y. LeCun, C. Cortes and C. J. C. Burges, *The MNIST database of handwritten digits*: two zero bytes,
one for the type of elements (8: unsigned bytes), one for the number of axes, then each axis as a
big-endian 32-bit number, then the elements.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from mulo_cli.datasets.files.labelled import (
    Arrays,
    checked_pair,
    count_classes,
    require_one_shape,
    resize_note,
    resized,
    with_test_split,
)
from mulo_cli.datasets.files.members import Member, require_one_folder
from mulo_cli.datasets.files.streams import read_exactly, read_up_to, unpacked
from mulo_cli.datasets.stored import StoredImages
from mulo_cli.errors import DataError, shortened

UNSIGNED_BYTES = 8
NAME = re.compile(
    r"(?P<set>.*?)[-_.]?(?P<split>train|t10k|test)[-_.](?P<what>images|labels)"
    r"[-_.]idx[13][-_.]ubyte(\.gz)?",
    re.IGNORECASE,
)
"""`train-images-idx3-ubyte.gz`, `t10k-labels.idx1-ubyte`, `emnist-letters-test-images-idx3-ubyte`
and their like."""

AXES = {"images": 3, "labels": 1}


def is_idx(members: Sequence[Member]) -> bool:
    """Tell whether there are idx files among the members."""
    return any(NAME.fullmatch(member.name) for member in members)


def read_idx(members: Sequence[Member], shown: str, resize: int = 0) -> StoredImages:
    """Read a set of idx files.

    Args:
        members: files; those of other names are passed over.
        shown: the set's name, for errors.
        resize: side in pixels; 0 keeps the stored size.

    Returns:
        greyscale images, uint8[n, r, c].

    Raises:
        DataError: a file is missing, damaged or contradicts another.
    """
    files = _files(members, shown)
    splits: dict[str, Arrays] = {}
    for split in ("train", "test"):
        if any(key[0] == split for key in files) or split == "train":
            images, labels = (_read(_wanted(files, split, what, shown), what) for what in AXES)
            splits[split] = checked_pair(images, labels, f"the {split} split of {shown}")
    if resize == 0:
        require_one_shape(splits, shown)
    num_classes = count_classes(splits, shown)
    told = resize_note(splits["train"]["inputs"].shape[1:3], resize)
    for arrays in splits.values():
        arrays["inputs"] = resized(arrays["inputs"], resize)
    whole, drawn = with_test_split(splits, shown)
    return StoredImages(whole, num_classes, notes=(*told, *drawn))


def _files(members: Sequence[Member], shown: str) -> dict[tuple[str, str], Member]:
    """Return (split, images or labels) -> file; of two spellings the one that is not packed."""
    require_one_folder([member for member in members if NAME.fullmatch(member.name)], shown)
    found: dict[tuple[str, str], Member] = {}
    sets = set()
    for member in sorted(members, key=lambda one: one.name.lower().endswith(".gz")):
        match = NAME.fullmatch(member.name)
        if match:
            sets.add(match["set"])
            split = "train" if match["split"].lower() == "train" else "test"
            found.setdefault((split, match["what"].lower()), member)
    if len(sets) > 1:
        names = ", ".join(shortened(name) for name in sorted(sets))
        raise DataError(
            f"{shown} holds several sets: {names}", "put the four files of one into a folder"
        )
    return found


def _wanted(files: dict[tuple[str, str], Member], split: str, what: str, shown: str) -> Member:
    if (split, what) not in files:
        raise DataError(
            f"{shown} has no {what} of the {split} split",
            "give the folder with the files as published: train-images-idx3-ubyte, "
            "train-labels-idx1-ubyte and the same for t10k (.gz or not)",
        )
    return files[split, what]


def _read(member: Member, what: str) -> np.ndarray:
    """Read one file, whose header has to describe exactly what follows it."""
    axes = AXES[what]
    with unpacked(member) as stream:
        magic = bytes(read_up_to(stream, 4))
        if magic != bytes((0, 0, UNSIGNED_BYTES, axes)):
            raise DataError(
                f"{member.shown} does not begin as a file of {what}: "
                f"{magic.hex(' ') or 'nothing'} instead of 00 00 08 {axes:02x}",
                "the file is damaged, of another format, or images and labels are exchanged",
            )
        shape = np.frombuffer(bytes(read_up_to(stream, 4 * axes)).ljust(4 * axes, b"\0"), ">u4")
        sizes = tuple(int(size) for size in shape)
        content = read_exactly(stream, math.prod(sizes), member.shown)
        return np.frombuffer(content, np.uint8).reshape(sizes)
