"""Synthetic twins of benchmark sets, for machines that do not have their data.

A twin has the shapes and sizes of its original. Nothing of that size is stored: example i is
*computed* from its number inside the batch, and is the same whenever it is drawn. There is
something to learn from a fixed random teacher, and it is not memorised at once. Rows computed on a
twin say that the data is not real.

Images: example i is of class i mod C. To the pattern of its class comes noise: a window of one
long row of random numbers, at an offset that no other example of the class has. So no two examples
are alike; and as windows begin anywhere, their noise is white: with a pool of ready-made noise
images, networks learn the few directions in which that pool has little or none.

Lines: a Markov chain. The next token is, with probability `FOLLOWS`, the fixed successor of the
last one; else it is drawn anew, by Zipf's law.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, Integer, UInt8, UInt32
from scipy.special import ndtri

from mulo_cli.datasets.base import BatchFunction, Dataset, sample_indices, standardise
from mulo_cli.datasets.images import augmented, channel_statistics
from mulo_cli.datasets.options import NO_OPTIONS, Augment, DatasetOptions
from mulo_cli.datasets.text import LENGTH, PADDING, shifted
from mulo_cli.types import Batch, Data, PRNGKey

SEED = 0
IMAGENET_SIGNAL = 16.0
"""Standard deviation of a class pattern, in pixel levels of 0..255."""

CIFAR10_SIGNAL, FASHION_MNIST_SIGNAL = 3.0, 6.0
"""Ten patterns as strong as a thousand would be known after a hundred steps. With these, classes
lie 5 standard deviations of the noise apart: the lowest loss that is possible on new images is
0.12, at an accuracy of 0.96, and optimizers differ."""

NOISE = 48.0
"""Standard deviation of the noise on each pixel, in pixel levels."""

OFFSETS = 2**23
"""Places where the noise of an image can begin."""

MEASURED = 256
"""Images by which a twin's channels are standardised."""

STRIDE = 0x9E3779B1
"""An odd number: multiples of it modulo a power of two are a permutation."""

IMAGENET_SIZES = {"train": 1_281_167, "test": 50_000}
CIFAR10_SIZES = {"train": 50_000, "test": 10_000}
FASHION_MNIST_SIZES = {"train": 60_000, "test": 10_000}
LM1B_SIZES = {"train": 30_301_028, "test": 306_688}

VOCABULARY = 32_000
START, END, FIRST_WORD = 0, 1, 3
"""As in T5: padding is 0, an end 1, the unknown word 2 (which does not occur)."""

FOLLOWS = 0.5
"""Probability that a token is the successor of the one before it."""

MEDIAN_LENGTH = 27.0
LENGTH_SPREAD = 0.45
"""Lengths of lines are lognormal: 30 tokens on average, as LM1B's are with such a vocabulary."""

LONGEST = 256


@jax.tree_util.register_static
@dataclass(frozen=True)
class Numbers:
    """The numbers of a split's examples: for jax a constant structure, like an array's shape.

    Attributes:
        first: of them.
        size: how many there are.
    """

    first: int
    size: int


def synthetic_imagenet32(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Build a twin of ImageNet at 32x32 pixels, with 1 000 classes."""
    return _images(
        "synthetic/imagenet32", (32, 32, 3), 1_000, IMAGENET_SIZES, IMAGENET_SIGNAL, options
    )


def synthetic_imagenet64(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Build a twin of ImageNet at 64x64 pixels, with 1 000 classes."""
    return _images(
        "synthetic/imagenet64", (64, 64, 3), 1_000, IMAGENET_SIZES, IMAGENET_SIGNAL, options
    )


def synthetic_cifar10(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Build a twin of CIFAR-10."""
    return _images("synthetic/cifar10", (32, 32, 3), 10, CIFAR10_SIZES, CIFAR10_SIGNAL, options)


def synthetic_fashion_mnist(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Build a twin of Fashion-MNIST."""
    sizes, signal = FASHION_MNIST_SIZES, FASHION_MNIST_SIGNAL
    return _images("synthetic/fashion_mnist", (28, 28), 10, sizes, signal, options)


def synthetic_lm1b(options: DatasetOptions = NO_OPTIONS) -> Dataset:
    """Build a twin of the One Billion Word benchmark, in a vocabulary of 32 000 tokens."""
    del options  # its tokens are given
    words = np.random.default_rng(SEED).permutation(VOCABULARY - FIRST_WORD) + FIRST_WORD
    successors = np.concatenate([np.arange(FIRST_WORD), words]).astype(np.uint16)
    return Dataset(
        name="synthetic/lm1b",
        kind="text",
        splits=_numbered({"successors": successors}, LM1B_SIZES),
        sizes=LM1B_SIZES,
        make_batch=lines_batch,
        input_shape=(LENGTH,),
        num_classes=VOCABULARY,
        real=False,
        source="synthetic: a Markov chain with a fixed random successor of each token",
        licence="none needed",
    )


def images_batch(
    batch_size: int, mean: np.ndarray, std: np.ndarray, augment: Augment = "none"
) -> BatchFunction:
    """Build the batch function of a twin's patterns, noise and range of numbers.

    Args:
        batch_size: examples `B` per batch.
        mean: per-channel mean of pixels.
        std: per-channel standard deviation of pixels.
        augment: what is done to images at random.
    """

    def batch(data: Data, key: PRNGKey, step: Int[Array, ""]) -> Batch:
        numbers = _draw(data["numbers"], key, step, batch_size)
        pixels, targets = numbered_images(data["patterns"], data["noise"], numbers)
        pixels = augmented(pixels, key, step, augment)
        return Batch(standardise(pixels, mean, std), targets)

    return batch


def numbered_images(
    patterns: UInt8[Array, "C r c *ch"], noise: Int8[Array, " n"], numbers: Int[Array, " B"]
) -> tuple[UInt8[Array, "B r c *ch"], Int[Array, " B"]]:
    """Return the images of these numbers, and their classes."""
    num_classes, *shape = patterns.shape
    classes, places = numbers % num_classes, noise_places(numbers, num_classes)

    def window(place: Int[Array, ""]) -> Int8[Array, "..."]:
        return jax.lax.dynamic_slice(noise, (place,), (math.prod(shape),)).reshape(shape)

    levels = patterns[classes].astype(jnp.int16) + jax.vmap(window)(places).astype(jnp.int16)
    return jnp.clip(levels, 0, 255).astype(jnp.uint8), classes


def noise_places(numbers: Int[Array, " B"], num_classes: int) -> Int[Array, " B"]:
    """Return where the noise of each example begins.

    Examples of one class take places far apart, one after the other, from one that depends on the
    class; after `OFFSETS` examples of a class they would come again.
    """
    turns = (numbers // num_classes).astype(jnp.uint32) * jnp.uint32(STRIDE)
    first = mixed((numbers % num_classes).astype(jnp.uint32))
    return ((turns + first) % jnp.uint32(OFFSETS)).astype(jnp.int32)


def lines_batch(batch_size: int, length: int = LENGTH) -> BatchFunction:
    """Build the batch function of a twin's successors and range of numbers.

    Args:
        batch_size: examples `B` per batch.
        length: positions `L` of an example: longer lines are cut, shorter ones padded.
    """

    def batch(data: Data, key: PRNGKey, step: Int[Array, ""]) -> Batch:
        numbers = _draw(data["numbers"], key, step, batch_size)
        return shifted(numbered_lines(data["successors"], numbers, length), START)

    return batch


def numbered_lines(
    successors: Integer[Array, " C"], numbers: Int[Array, " B"], length: int
) -> Int[Array, "B L"]:
    """Return the lines of these numbers: words, an end, and padding up to the length."""
    seeds = mixed(numbers.astype(jnp.uint32))
    positions = jnp.arange(length, dtype=jnp.uint32)
    draws = mixed(seeds[:, None] + positions * jnp.uint32(STRIDE))
    drawn = _zipf(_uniform(mixed(draws + jnp.uint32(1))))
    follows = (_uniform(draws) < FOLLOWS) & (positions > 0)

    def step(last: Int[Array, " B"], now: tuple[Array, Array]) -> tuple[Array, Array]:
        word = jnp.where(now[0], successors[last].astype(jnp.int32), now[1])
        return word, word

    _, words = jax.lax.scan(step, jnp.zeros_like(drawn[:, 0]), (follows.T, drawn.T))
    before_end = positions.astype(jnp.int32) - _line_lengths(seeds)[:, None] + 1
    return jnp.where(before_end < 0, words.T, jnp.where(before_end == 0, END, PADDING))


def mixed(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Mix the bits of numbers: the finaliser of A. Appleby's MurmurHash3, a permutation."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def _uniform(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Return numbers of (0, 1), from the 23 leading bits."""
    return ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-23


def _zipf(uniform: Float[Array, "..."]) -> Int[Array, "..."]:
    """Draw words: the r-th has the probability log(1 + 1/r) / log(n + 1), close to Zipf's 1/r."""
    words = VOCABULARY - FIRST_WORD
    rank = jnp.floor(jnp.exp(uniform * math.log(words + 1))).astype(jnp.int32)
    return jnp.clip(rank, 1, words) + FIRST_WORD - 1


def _line_lengths(seeds: UInt32[Array, " B"]) -> Int[Array, " B"]:
    """Return how many tokens lines have, their ends included."""
    normal = jax.scipy.special.ndtri(_uniform(mixed(seeds ^ jnp.uint32(STRIDE))))
    lengths = jnp.round(MEDIAN_LENGTH * jnp.exp(LENGTH_SPREAD * normal)).astype(jnp.int32)
    return jnp.clip(lengths, 2, LONGEST)


def _images(
    name: str,
    shape: tuple[int, ...],
    num_classes: int,
    sizes: dict[str, int],
    signal: float,
    options: DatasetOptions,
) -> Dataset:
    generator = np.random.default_rng(SEED)
    patterns = _normal(generator, (num_classes, *shape), signal).view(np.uint8) + np.uint8(128)
    noise = _normal(generator, (OFFSETS + math.prod(shape),), NOISE)
    sample, _ = numbered_images(jnp.asarray(patterns), jnp.asarray(noise), jnp.arange(MEASURED))
    mean, std = channel_statistics(np.asarray(sample).reshape(*sample.shape[:3], -1))
    plain = functools.partial(images_batch, mean=mean, std=std)
    return Dataset(
        name=name,
        kind="images",
        splits=_numbered({"patterns": patterns, "noise": noise}, sizes),
        sizes=sizes,
        make_batch=functools.partial(plain, augment=options.augment),
        make_test_batch=plain,
        input_shape=shape,
        num_classes=num_classes,
        real=False,
        source="synthetic: class patterns under noise, from a fixed seed",
        licence="none needed",
    )


def _normal(
    generator: np.random.Generator, shape: tuple[int, ...], deviation: float
) -> Int8[np.ndarray, "..."]:
    """Draw from 256 quantiles of a normal distribution: ten times faster than from all of it."""
    quantiles = ndtri((np.arange(256) + 0.5) / 256)
    levels = np.rint(deviation * quantiles).clip(-127, 127).astype(np.int8)
    return levels[generator.integers(0, 256, shape, np.uint8)]


def _numbered(teacher: dict[str, np.ndarray], sizes: dict[str, int]) -> dict[str, Data]:
    """Give both splits one teacher; the test split's numbers follow the training split's."""
    train, test = sizes["train"], sizes["test"]
    return {
        "train": {**teacher, "numbers": Numbers(0, train)},
        "test": {**teacher, "numbers": Numbers(train, test)},
    }


def _draw(
    numbers: Numbers, key: PRNGKey, step: Int[Array, ""], batch_size: int
) -> Int[Array, " B"]:
    return numbers.first + sample_indices(key, step, batch_size, numbers.size)
