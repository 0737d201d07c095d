"""Which image has which class, told by folders: `train/CLASS/FILE`, `CLASS/FILE` and the like.

Only names are looked at here, and the small lists of names that some sets have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from mulo_cli.datasets.files.labelled import counted, held_out_note, held_out_rows, require_classes
from mulo_cli.datasets.files.members import Member, decoded
from mulo_cli.datasets.files.streams import read_small
from mulo_cli.errors import DataError, printable, shortened

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
"""In the order of choice: a labelled test split goes before a validation split."""

IMAGES = "images"
"""Tiny-ImageNet has one more folder within each class, and in a split without classes."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp"})
ANNOTATIONS = "_annotations.txt"
"""How its list of image and class ends, in a split without class folders."""

WORDS = "words.txt"
"""Its list of class and names to read."""

NUMBER_LENGTH = 18
"""Digits up to which a class's name is sorted as a number."""

LISTS_LIMIT = 2**27
"""Bytes of a list of names."""


@dataclass(frozen=True)
class Placed:
    """A file, and where it lies below a folder in question."""

    parts: tuple[str, ...]
    member: Member


@dataclass(frozen=True)
class Example:
    """An image file and its class."""

    member: Member
    label: int


@dataclass(frozen=True)
class Layout:
    """All images with their classes.

    Attributes:
        splits: "train" and "test" -> images in the order of their names.
        classes: names, in the order of labels.
        notes: what was passed over or assumed, as sentences.
    """

    splits: Mapping[str, tuple[Example, ...]]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


ByClass = Mapping[str, Sequence[Member]]


def lay_out(members: Sequence[Member], shown: str) -> Layout:
    """Tell the class of every image.

    Args:
        members: files of a folder or an archive.
        shown: its name, for errors.

    Raises:
        DataError: no class can be told, or a class has only test images.
    """
    files = _below_common_folder([Placed(m.parts, m) for m in members])
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    train = next((top for name in TRAIN for top in sorted(tops) if top.lower() == name), None)
    if train is None:
        by_class, notes = _by_class(files)
        splits, drawn = _held_out(_checked(by_class, shown), shown)
        layout = replace(splits, notes=(*notes, *drawn))
    else:
        layout = _split_layout(files, train, shown)
    return replace(layout, classes=_readable(layout.classes, members))


def _below_common_folder(files: list[Placed]) -> list[Placed]:
    """Leave out folders that hold everything, as many archives have one."""
    while True:
        images = [file for file in files if _is_image_name(file.parts[-1])] or files
        tops = {file.parts[0] for file in images}
        if len(tops) != 1 or not any(len(file.parts) > 2 for file in images):
            return files
        (top,) = tops
        below = {file.parts[1] for file in images if len(file.parts) > 2}
        if below == {IMAGES}:
            return files
        files = _below(files, top)


def _below(files: Sequence[Placed], top: str) -> list[Placed]:
    return [
        Placed(file.parts[1:], file.member)
        for file in files
        if file.parts[0] == top and len(file.parts) > 1
    ]


def _is_image_name(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _by_class(files: Sequence[Placed]) -> tuple[dict[str, list[Member]], tuple[str, ...]]:
    """Gather files by their class's folder, and say which images lie outside of all."""
    nested = {file.parts[0] for file in files if len(file.parts) == 3 and file.parts[1] == IMAGES}
    classes: dict[str, list[Member]] = {}
    outside = 0
    for file in files:
        name = file.parts[0]
        direct = len(file.parts) == 2
        if len(file.parts) == 1:
            outside += _is_image_name(name)
        elif direct and name in nested and not _is_image_name(file.parts[1]):
            continue  # Tiny-ImageNet's list of boxes beside images/
        elif direct or (len(file.parts) == 3 and name in nested):
            classes.setdefault(name, []).append(file.member)
        else:
            raise DataError(
                f"{file.member.shown} lies deeper than CLASS/FILE",
                "lay files out as CLASS/FILE, or train/CLASS/FILE and test/CLASS/FILE",
            )
    told = (f"{counted(outside, 'image')} in no class folder and passed over",) if outside else ()
    return {name: sorted(classes[name], key=_order) for name in sorted(classes, key=_natural)}, told


def _order(member: Member) -> tuple[tuple[str, ...], int]:
    return member.parts, member.place


def _natural(name: str) -> tuple[int, int, str]:
    """Sort classes called by numbers as numbers, before all others."""
    is_number = name.isascii() and name.isdecimal() and len(name) <= NUMBER_LENGTH
    return (0, int(name), name) if is_number else (1, 0, name)


def _checked(by_class: ByClass, shown: str) -> ByClass:
    require_classes(len(by_class), shown)
    return by_class


def _examples(by_class: ByClass, classes: Sequence[str], where: str) -> tuple[Example, ...]:
    strange = [name for name in by_class if name not in classes]
    if strange:
        raise DataError(
            f"{where}/ has images of {shortened(strange[0])}, which no training image shows",
            "both splits need the same class folders",
        )
    return tuple(
        Example(member, label)
        for label, name in enumerate(classes)
        for member in by_class.get(name, ())
    )


def _held_out(by_class: ByClass, shown: str) -> tuple[Layout, tuple[str, ...]]:
    """Draw a test split."""
    examples = _examples(by_class, tuple(by_class), "")
    labels = np.asarray([example.label for example in examples])
    rows = dict(zip(("train", "test"), held_out_rows(labels, shown), strict=True))
    splits = {split: tuple(examples[row] for row in rows[split]) for split in rows}
    note = held_out_note(len(splits["test"]), len(examples))
    return Layout(splits, tuple(by_class)), (note,)


def _split_layout(files: Sequence[Placed], train: str, shown: str) -> Layout:
    """Lay out train/ and the first labelled one of test/, val/ and their like."""
    by_class, told = _by_class(_below(files, train))
    _checked(by_class, f"{train}/ of {shown}")
    notes = list(told)
    tops = sorted({file.parts[0] for file in files if len(file.parts) > 1} - {train})
    spelled = [top for name in TEST for top in tops if top.lower() == name]
    notes += [f"{top}/ is no split and was passed over" for top in tops if top not in spelled]
    chosen: str | None = None
    test: ByClass = {}
    for top in spelled:
        found, told = _test_by_class(_below(files, top), top, by_class)
        if found and chosen is None:
            chosen, test = top, found
            notes += told
        else:
            notes.append(
                f"{top}/ was passed over: {chosen}/ is the test split"
                if found
                else f"{top}/ has no labels and was passed over"
            )
    if chosen is None:
        layout, drawn = _held_out(by_class, f"{train}/ of {shown}")
        return replace(layout, notes=(*notes, *drawn))
    classes = tuple(by_class)
    splits = {
        "train": _examples(by_class, classes, train),
        "test": _examples(test, classes, chosen),
    }
    return Layout(splits, classes, tuple(notes))


def _test_by_class(
    files: list[Placed], top: str, train: ByClass
) -> tuple[dict[str, list[Member]], tuple[str, ...]]:
    """Gather test images by class: by folders, or by Tiny-ImageNet's list; empty without labels."""
    folders = {file.parts[0] for file in files if len(file.parts) > 1}
    if folders - {IMAGES} or IMAGES in train:
        return _by_class(files)
    lists = [f.member for f in files if len(f.parts) == 1 and f.parts[0].endswith(ANNOTATIONS)]
    if not lists:
        return {}, ()
    labels = _pairs(lists[0])
    classes: dict[str, list[Member]] = {}
    for member in sorted((f.member for f in files if len(f.parts) == 2), key=_order):
        if member.name not in labels:
            raise DataError(
                f"{member.shown} is not in {lists[0].shown}",
                f"each image of {top}/images needs a line with its name and its class",
            )
        classes.setdefault(labels[member.name], []).append(member)
    return classes, ()


def _pairs(member: Member) -> dict[str, str]:
    """Read the first two columns of a list; lines of one column, if any, say nothing."""
    lines = decoded(read_small(member, LISTS_LIMIT)).splitlines()
    rows = [line.split("\t") for line in lines]
    return {row[0]: row[1].strip() for row in rows if len(row) > 1}


def _readable(classes: tuple[str, ...], members: Sequence[Member]) -> tuple[str, ...]:
    """Return names that people can read, where `words.txt` has them for all classes."""
    lists = [member for member in members if member.name == WORDS]
    words = _pairs(lists[0]) if lists else {}
    if all(words.get(name) for name in classes):
        told = [words[name].split(",")[0] for name in classes]
        classes = tuple(
            word if told.count(word) == 1 else f"{word} ({name})"
            for word, name in zip(told, classes, strict=True)
        )
    return tuple(printable(name) for name in classes)
