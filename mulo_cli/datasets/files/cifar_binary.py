"""The binary records of CIFAR: label bytes, then a red, a green and a blue plane of 32x32.

A. Krizhevsky, *Learning multiple layers of features from tiny images* (2009). CIFAR-10 has one
label byte, CIFAR-100 two: the coarse class and the fine one, which is the class here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from mulo_cli.datasets.files.labelled import (
    Arrays,
    resize_note,
    resized,
    with_test_split,
)
from mulo_cli.datasets.files.members import Member, decoded, without_packed_copies
from mulo_cli.datasets.files.streams import first_bytes, read_small, read_up_to, unpacked
from mulo_cli.datasets.stored import StoredImages
from mulo_cli.errors import DataError, printable

NAME = re.compile(r".+\.bin(\.gz|\.xz)?", re.IGNORECASE)
SIDE = 32
PIXELS = 3 * SIDE * SIDE
READ_LIMIT = 2**30
"""Bytes of all files, once unpacked: a bound against bombs. Both of the sets have 1.8e8."""

NAMES_LIMIT = 2**20
"""Bytes of a file of class names."""


@dataclass(frozen=True)
class Records:
    """One kind of record.

    Attributes:
        bounds: number of values of each label byte; the last byte is the class.
        names: the file that tells what the classes are called.
    """

    bounds: tuple[int, ...]
    names: str

    @property
    def size(self) -> int:
        """Bytes of one record."""
        return len(self.bounds) + PIXELS

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.bounds[-1]

    def fit(self, content: UInt8[np.ndarray, " _"]) -> bool:
        """Tell whether bytes, perhaps cut within a record, have only labels that there are."""
        return all(
            bool((content[place :: self.size] < bound).all())
            for place, bound in enumerate(self.bounds)
        )


CIFAR10 = Records((10,), "batches.meta.txt")
CIFAR100 = Records((20, 100), "fine_label_names.txt")
KINDS = (CIFAR10, CIFAR100)


def is_cifar_binary(members: Sequence[Member]) -> bool:
    """Tell whether there are files of CIFAR's records among the members, by their first records."""
    return any(
        records.fit(beginning)
        for member in members
        if NAME.fullmatch(member.name)
        and len(beginning := np.frombuffer(first_bytes(member, 8 * CIFAR100.size), np.uint8))
        >= PIXELS
        for records in KINDS
    )


def read_cifar_binary(members: Sequence[Member], shown: str, resize: int = 0) -> StoredImages:
    """Read CIFAR-10 or CIFAR-100; files named `test...` are the test split.

    Args:
        members: files; those of other names are passed over.
        shown: the set's name, for errors.
        resize: side in pixels; 0 keeps 32.

    Returns:
        colour images, uint8[n, r, c, 3].

    Raises:
        DataError: a file is damaged, or it cannot be told which of the two sets this is.
    """
    contents = _read_all([member for member in members if NAME.fullmatch(member.name)])
    records = _kind(contents, members, shown)
    splits: dict[str, Arrays] = {}
    for split in ("train", "test"):
        chosen = [content for member, content in contents.items() if _split_of(member) == split]
        if chosen or split == "train":
            splits[split] = _arrays(chosen, records, f"the {split} split of {shown}")
            splits[split]["inputs"] = resized(splits[split]["inputs"], resize)
    whole, drawn = with_test_split(splits, shown)
    notes = (*resize_note((SIDE, SIDE), resize), *drawn)
    return StoredImages(whole, records.num_classes, _classes(members, records), notes)


def _split_of(member: Member) -> str:
    return "test" if member.name.lower().startswith("test") else "train"


def _read_all(members: Sequence[Member]) -> dict[Member, UInt8[np.ndarray, " _"]]:
    """Read files in the order of their names; of a file beside its packed copy only the file."""
    contents: dict[Member, UInt8[np.ndarray, " _"]] = {}
    left = READ_LIMIT
    for member in without_packed_copies(members):
        with unpacked(member) as stream:
            content = read_up_to(stream, left + 1)
        left -= len(content)
        if left < 0:
            raise DataError(
                f"{member.shown} makes this set unpack to more than {READ_LIMIT:,} bytes",
                "CIFAR's files have 30 to 150 MB each: is this the right file?",
            )
        contents[member] = np.frombuffer(content, np.uint8)
    return contents


def _kind(
    contents: Mapping[Member, UInt8[np.ndarray, " _"]], members: Sequence[Member], shown: str
) -> Records:
    """Tell which records all files have: by the file of names, by whole records, by sound labels.

    A length that is a multiple of both records is told by the labels alone.
    """
    present = {member.name for member in members}
    named = [records for records in KINDS if records.names in present]
    for member, content in contents.items():
        possible = [r for r in KINDS if len(content) and len(content) % r.size == 0]
        if not possible:
            raise DataError(
                f"{member.shown} has {len(content):,} bytes: neither whole records of CIFAR-10 "
                f"({CIFAR10.size} bytes) nor of CIFAR-100 ({CIFAR100.size})",
                "the file is cut short or damaged: fetch it again",
            )
        if not any(records.fit(content) for records in possible):
            raise DataError(
                f"{member.shown} has labels that CIFAR does not have",
                "the file is damaged, or of another format",
            )
    fitting = [
        records
        for records in KINDS
        if all(len(c) % records.size == 0 and records.fit(c) for c in contents.values())
    ]
    told = [records for records in fitting if records in named] or fitting
    if len(told) != 1:
        raise DataError(
            f"it cannot be told whether {shown} is CIFAR-10 or CIFAR-100",
            f"put the file of class names beside the others: {CIFAR10.names} or {CIFAR100.names}",
        )
    return told[0]


def _arrays(contents: Sequence[UInt8[np.ndarray, " _"]], records: Records, shown: str) -> Arrays:
    """Take records apart into images, rows first and colours last, and classes."""
    if not contents:
        raise DataError(
            f"there is no file of {shown}",
            "give the folder or the archive as published; files named test... are the test split",
        )
    labels = len(records.bounds)
    count = sum(len(content) for content in contents) // records.size
    inputs = np.empty((count, SIDE, SIDE, 3), np.uint8)
    targets = np.empty(count, np.int32)
    start = 0
    for content in contents:
        rows = content.reshape(-1, records.size)
        here = slice(start, start + len(rows))
        inputs[here] = rows[:, labels:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        targets[here] = rows[:, labels - 1]
        start += len(rows)
    return {"inputs": inputs, "targets": targets}


def _classes(members: Sequence[Member], records: Records) -> tuple[str, ...]:
    """Read what the classes are called, where a file tells it for all of them."""
    for member in members:
        if member.name == records.names:
            text = decoded(read_small(member, NAMES_LIMIT))
            names = tuple(printable(line.strip()) for line in text.splitlines() if line.strip())
            return names if len(names) == records.num_classes else ()
    return ()
