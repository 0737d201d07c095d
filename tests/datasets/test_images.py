"""Augmentation: where images go, how often they are mirrored, and that nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.datasets.base import digest_of
from mulo_cli.datasets.images import (
    CROP_SHARE,
    channel_statistics,
    crop_and_flip,
    image_batch,
    image_dataset,
)
from mulo_cli.datasets.mapped import MappedRows

SIDE = 32
MOST = SIDE // CROP_SHARE
DRAWS = 8_192
STANDARD_ERRORS = 5.0
"""A fair draw lands beyond this once in two million times."""


@pytest.fixture(scope="module")
def moved():
    """Return rows and columns to which a lone bright pixel, left of the middle, was moved."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[SIDE // 2, 8] = 255
    drawn = jax.jit(crop_and_flip)(jnp.tile(image, (DRAWS, 1, 1, 1)), jax.random.key(0))
    drawn = np.asarray(drawn)
    assert (drawn.sum((1, 2, 3)) == 3 * 255).all(), "it is moved, not changed"
    return np.nonzero(drawn[..., 0])[1:]


def test_images_are_moved_by_up_to_four_of_32_pixels_each_as_often(moved):
    rows, columns = moved
    mirrored = columns >= SIDE // 2
    right = np.where(mirrored, SIDE - 1 - columns, columns) - 8
    down = rows - SIDE // 2
    places = (2 * MOST + 1) ** 2
    assert (np.abs(down).max(), np.abs(right).max()) == (MOST, MOST) == (4, 4)
    counts = np.histogram2d(down, right, bins=2 * MOST + 1)[0]
    error = np.sqrt(DRAWS / places)
    assert np.abs(counts - DRAWS / places).max() < STANDARD_ERRORS * error


def test_half_of_them_are_mirrored(moved):
    mirrored = (moved[1] >= SIDE // 2).mean()
    assert mirrored == pytest.approx(0.5, abs=STANDARD_ERRORS * 0.5 / np.sqrt(DRAWS))


def test_what_comes_in_is_black():
    drawn = np.asarray(crop_and_flip(jnp.full((256, 8, 8), 200, jnp.uint8), jax.random.key(1)))
    assert set(np.unique(drawn)) == {0, 200}
    assert (drawn == 0).any((1, 2)).mean() == pytest.approx(8 / 9, abs=0.1)


@pytest.mark.parametrize("shape", [(9, 7, 3), (9, 7), (1, 1, 3)])
def test_every_shape_keeps_its_shape(shape):
    pixels = jnp.ones((5, *shape), jnp.uint8)
    assert crop_and_flip(pixels, jax.random.key(0)).shape == (5, *shape)


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    inputs = generator.integers(0, 256, (40, 16, 16, 3), np.uint8)
    return {"inputs": jnp.asarray(inputs), "targets": jnp.arange(40)}


def batch_of(data, augment, size=64, step=0, key=0):
    make = jax.jit(image_batch(size, 128.0, 64.0, augment))
    return make(data, jax.random.key(key), jnp.int32(step))


def test_augmentation_changes_pixels_and_neither_the_choice_nor_the_classes(data):
    bare, augmented = batch_of(data, "none"), batch_of(data, "crop-flip")
    np.testing.assert_array_equal(bare.targets, augmented.targets)
    changed = (np.asarray(bare.inputs) != np.asarray(augmented.inputs)).any((1, 2, 3))
    assert changed.mean() > 0.9
    many = batch_of(data, "crop-flip", size=2_048)
    assert set(np.asarray(many.targets)) == set(range(40)), "no class is lost"


def test_the_same_key_and_step_give_the_same_augmented_batch(data):
    first, again = (batch_of(data, "crop-flip", step=3, key=5) for _ in range(2))
    np.testing.assert_array_equal(first.inputs, again.inputs)
    for other in (batch_of(data, "crop-flip", step=4, key=5), batch_of(data, "crop-flip", step=3)):
        assert not np.array_equal(first.inputs, other.inputs)


def test_one_image_in_a_batch_twice_is_augmented_in_two_ways(data):
    alone = {"inputs": data["inputs"][:1], "targets": data["targets"][:1]}
    inputs = np.asarray(batch_of(alone, "crop-flip").inputs)
    assert len({image.tobytes() for image in inputs}) > 20, "of 50 ways"


def test_statistics_of_many_pixels_are_exact():
    """Ten million pixels a channel: a float32 sum is off by a few percent there."""
    images = np.full((10_000, 32, 32, 2), (250, 3), np.uint8)
    images[::2, :, :, 0] = 240
    mean, std = channel_statistics(images)
    np.testing.assert_array_equal(mean, np.float32([245, 3]))
    np.testing.assert_array_equal(std, np.float32([5, 1]))


def test_statistics_of_a_file_are_those_of_its_array(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), np.uint8)
    np.save(tmp_path / "inputs.npy", images)
    mean, std = channel_statistics(MappedRows(tmp_path / "inputs.npy"))
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-5)


def test_a_channel_that_is_the_same_everywhere_is_no_division_by_zero():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 4), np.uint8)
    images[..., 3] = 255
    statistics = channel_statistics(images)
    data = {"inputs": jnp.asarray(images), "targets": jnp.zeros(50, jnp.int32)}
    batch = image_batch(8, *statistics)(data, jax.random.key(0), jnp.int32(0))
    assert np.isfinite(np.asarray(batch.inputs)).all()
    assert not np.asarray(batch.inputs)[..., 3].any()


def test_test_images_are_not_augmented():
    images = jnp.full((20, 8, 8, 3), 200, jnp.uint8)
    split = {"inputs": images, "targets": jnp.zeros(20, jnp.int32)}
    dataset = image_dataset(
        "plain",
        {"train": split, "test": split},
        2,
        statistics=(np.zeros(3), np.ones(3)),
        source="",
        licence="",
        augment="crop-flip",
    )
    assert dataset.make_test_batch is not None
    batches = [make(16) for make in (dataset.make_batch, dataset.make_test_batch)]
    train, test = (of(split, jax.random.key(0), jnp.int32(0)).inputs for of in batches)
    assert float(test.min()) == 200
    assert float(train.min()) == 0, "a border has come in"


def test_a_digest_tells_data_apart_and_nothing_else():
    split = {"inputs": np.zeros((3, 2), np.uint8), "targets": np.arange(3, dtype=np.int32)}
    told = digest_of({"train": split})
    assert told == digest_of({"train": {name: split[name] for name in reversed(split)}})
    others = [
        {"train": {**split, "targets": np.array([0, 2, 1], np.int32)}},
        {"train": {**split, "inputs": np.zeros((2, 3), np.uint8)}},
        {"test": split},
    ]
    assert len({told, *map(digest_of, others)}) == 4
