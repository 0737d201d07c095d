"""What all formats share: sound labels, a test split where there is none, images of one size."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt8

from mulo_cli.errors import DataError

HELD_OUT = 10
"""One image in so many is the test split where a data set has none."""

SPLIT_SEED = 0
SHOWN_LABELS = 8

Arrays = dict[str, np.ndarray]
"""One split: inputs and targets."""


def held_out_rows(
    targets: Int[np.ndarray, " n"], shown: str
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Return sorted (rows that train, rows that test) of a set without a test split.

    Rows are shuffled and laid out class by class; then rows at even distances are drawn. Each class
    gives its share, rounded up or down, and keeps a row to train on.

    Args:
        targets: labels, 0..C-1.
        shown: the set's name, for errors.

    Raises:
        DataError: no class has an image to spare.
    """
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(len(targets))
    ordered = shuffled[np.argsort(targets[shuffled], kind="stable")]
    spare = ordered[np.bincount(targets)[targets[ordered]] > 1]
    if not spare.size:
        raise DataError(
            f"{shown} has no test split, and none can be drawn: each class has one image only",
            "add images, or a test split: a folder `test` beside `train`, or files as published",
        )
    tests = max(1, len(spare) // HELD_OUT)
    drawn = spare[(np.arange(tests) * len(spare) + len(spare) // 2) // tests]
    return np.setdiff1d(shuffled, drawn), np.sort(drawn)


def counted(number: int, kind: str) -> str:
    """Say to how many images of a kind something happened: `1 grey image was`."""
    return f"1 {kind} was" if number == 1 else f"{number:,} {kind.replace('image', 'images')} were"


def held_out_note(tests: int, count: int) -> str:
    """Say in one sentence that `tests` of `count` images were held out."""
    return (
        f"{tests:,} of {count:,} images ({100 * tests / count:.2g}%), drawn within each class with "
        "a fixed seed, are the test split"
    )


def with_test_split(
    splits: Mapping[str, Arrays], shown: str
) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """Return splits with a test split, and a note if it had to be drawn.

    Raises:
        DataError: it cannot be drawn.
    """
    if "test" in splits:
        return dict(splits), ()
    train, test = held_out_rows(splits["train"]["targets"], shown)
    drawn = {
        split: {name: array[rows] for name, array in splits["train"].items()}
        for split, rows in (("train", train), ("test", test))
    }
    return drawn, (held_out_note(len(test), len(train) + len(test)),)


def checked_pair(inputs: np.ndarray, targets: np.ndarray, shown: str) -> Arrays:
    """Return one split of as many images as labels.

    Raises:
        DataError: their numbers differ, or there are none.
    """
    if len(inputs) != len(targets):
        raise DataError(
            f"{shown} has {len(inputs):,} images and {len(targets):,} labels",
            "each image needs one label: the files may belong to different sets",
        )
    if not inputs.size:
        raise DataError(f"{shown} holds no images", "check that this is the right file")
    return {"inputs": inputs, "targets": np.asarray(targets, np.int32)}


def count_classes(splits: Mapping[str, Arrays], shown: str) -> int:
    """Return `C` where the training labels are all of 0..C-1 and the test labels some of them.

    Raises:
        DataError: they are not, or there is one class only.
    """
    train = np.unique(splits["train"]["targets"])
    if not np.array_equal(train, np.arange(len(train))):
        raise DataError(
            f"labels of {shown} are {_some(train)}: they have to be 0, 1, ... without a gap",
            "number the classes anew from 0, for example with `np.unique(labels, "
            "return_inverse=True)[1]`, and save the arrays as .npz",
        )
    strange = np.setdiff1d(splits["test"]["targets"], train) if "test" in splits else train[:0]
    if strange.size:
        raise DataError(
            f"test labels of {shown} are also {_some(strange)}: no training image has them",
            "check that both splits belong to one set",
        )
    require_classes(len(train), shown)
    return len(train)


def require_classes(count: int, shown: str) -> None:
    """Refuse a set that asks for no decision.

    Raises:
        DataError: there are fewer than two classes.
    """
    if count < 2:
        raise DataError(
            f"{shown} has {'one class only' if count else 'no classes'}",
            "classification needs two classes or more",
        )


def require_one_shape(splits: Mapping[str, Arrays], shown: str) -> None:
    """Refuse splits whose images differ in shape.

    Raises:
        DataError: they do.
    """
    shapes = {split: arrays["inputs"].shape[1:] for split, arrays in splits.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(
            f"{split} images are {'x'.join(map(str, shape))}" for split, shape in shapes.items()
        )
        raise DataError(f"{shown}: {told}", "bring both splits to one size, or use `:resize=32`")


def resized(images: UInt8[np.ndarray, "n r c *ch"], side: int) -> UInt8[np.ndarray, "n rr cc *ch"]:
    """Bring images to a square of `side` pixels; 0 leaves them as they are."""
    if side == 0 or images.shape[1:3] == (side, side):
        return images
    from mulo_cli.datasets.files.decoding import resize_all  # Pillow, only wanted here

    return resize_all(images, side)


def resize_note(shape: tuple[int, ...], side: int) -> tuple[str, ...]:
    """Say in one sentence that images of `shape` (r, c) were brought to `side`, if they were."""
    if side == 0 or shape == (side, side):
        return ()
    return (f"images of {shape[0]}x{shape[1]} pixels were brought to {side}x{side}",)


def _some(labels: np.ndarray) -> str:
    told = ", ".join(str(label) for label in labels[:SHOWN_LABELS])
    return f"{told}, ..." if len(labels) > SHOWN_LABELS else told
