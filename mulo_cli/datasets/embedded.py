"""Real data that comes with an installed package, so that everything runs on a bare machine.

`digits`: 1 797 handwritten digits, 8x8 pixels of 0..16, from the UCI Machine Learning Repository
(E. Alpaydin and C. Kaynak, 1998, CC BY 4.0), as shipped inside scikit-learn.

`pydoc`: the chapters of the Python language reference that `help()` shows, some 370 000 characters
in every Python's standard library; they differ a little from version to version.
"""

import dataclasses
import functools
import platform
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from mulo_cli.datasets.base import BatchFunction, Dataset, digest_of, standardise
from mulo_cli.datasets.options import NO_OPTIONS, DatasetOptions
from mulo_cli.datasets.text import text_dataset, tokenise
from mulo_cli.datasets.text_files import split_text
from mulo_cli.errors import DataError
from mulo_cli.types import Batch, Data, PRNGKey

DIGITS_SHAPE = (8, 8)
DIGITS_TEST_SIZE = 360
DIGITS_SPLIT_SEED = 0
MAX_SHIFT = 1
"""Largest random shift in pixels, both ways and along both axes."""

NOISE = 0.1
"""Standard deviation of the noise added to standardised pixels."""


def digits(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Load the digits; batches are shifted by up to one pixel and get a little Gaussian noise.

    1 437 training images are soon memorised: shift and noise, drawn from the batch key, keep the
    training loss meaningful. The 360 test images are drawn in the same way.
    """
    del options  # it has none
    from sklearn.datasets import load_digits  # heavy: 1 s, and only wanted here

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.uint8).reshape(-1, *DIGITS_SHAPE)
    labels = np.asarray(labels, np.int32)
    order = np.random.default_rng(DIGITS_SPLIT_SEED).permutation(len(images))
    train, test = order[DIGITS_TEST_SIZE:], order[:DIGITS_TEST_SIZE]
    mean, std = float(images[train].mean()), float(images[train].std())
    return Dataset(
        name="digits",
        kind="images",
        splits={
            "train": {"inputs": _with_border(images[train]), "targets": labels[train]},
            "test": {"inputs": _with_border(images[test]), "targets": labels[test]},
        },
        sizes={"train": len(train), "test": len(test)},
        make_batch=functools.partial(_digits_batch, mean=mean, std=std),
        input_shape=DIGITS_SHAPE,
        num_classes=10,
        real=True,
        source="UCI optical recognition of handwritten digits, through scikit-learn",
        licence="CC BY 4.0",
    )


def _with_border(images: UInt8[np.ndarray, "n r c"]) -> UInt8[np.ndarray, "n rr cc"]:
    return np.pad(images, ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT)))


def _digits_batch(batch_size: int, mean: float, std: float) -> BatchFunction:
    def batch(data: Data, key: PRNGKey, step: Int[Array, ""]) -> Batch:
        images, targets = data["inputs"], data["targets"]
        key_choice, key_noise = jax.random.split(jax.random.fold_in(key, step))
        limits = jnp.array([images.shape[0], 2 * MAX_SHIFT + 1, 2 * MAX_SHIFT + 1])
        choice = jax.random.randint(key_choice, (batch_size, 3), 0, limits)
        index = choice[:, 0]
        pixels = _cut(images, index, choice[:, 1:])
        noise = NOISE * jax.random.normal(key_noise, pixels.shape)
        return Batch(standardise(pixels, mean, std) + noise, targets[index])

    return batch


def _cut(
    images: UInt8[Array, "n rr cc"], index: Int[Array, " B"], offsets: Int[Array, "B 2"]
) -> UInt8[Array, "B r c"]:
    """Cut each chosen image out of its bordered original at its offset."""
    window = (1, images.shape[1] - 2 * MAX_SHIFT, images.shape[2] - 2 * MAX_SHIFT)

    def cut(i: Int[Array, ""], offset: Int[Array, "2"]) -> Array:
        return jax.lax.dynamic_slice(images, (i, offset[0], offset[1]), window)[0]

    return jax.vmap(cut)(index, offsets)


def pydoc(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Load the Python language reference as a text; its last tenth is the test split.

    A chapter that is a part of another one is left out: a fifth of the text, which would otherwise
    be in both splits.

    Raises:
        DataError: this Python came without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            "this Python's standard library came without pydoc_data.topics",
            "install it (Debian: libpython3-stdlib), or name a text file of your own",
        ) from None
    text = "\n".join(_without_parts([topics[name] for name in sorted(topics)]))
    tokens = tokenise(split_text(text), options)
    dataset = text_dataset(
        "pydoc",
        tokens,
        source=(
            f"the language reference in the standard library of Python "
            f"{platform.python_version()} ({len(text)} characters)"
        ),
        licence="PSF-2.0",
    )
    return dataclasses.replace(dataset, digest=digest_of(tokens.splits))


def _without_parts(chapters: Sequence[str]) -> list[str]:
    """Leave out chapters whose body is in a longer one, with other spaces and underlines."""
    bodies = [chapter.partition("\n\n")[2] for chapter in chapters]
    plain = [" ".join(word for word in body.split() if word.strip('*=-^~"')) for body in bodies]
    return [
        chapter
        for chapter, body in zip(chapters, plain, strict=True)
        if not any(body in other and len(body) < len(other) for other in plain)
    ]
