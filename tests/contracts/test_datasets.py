"""What every data set promises: batches that are pure functions of a key and a step.

An entry that is costly to load, or whose data may be absent, is held to the same shapes through
its description, so that a recipe on it can be looked at anywhere.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.datasets.catalogue import DATASETS
from mulo_cli.datasets.embedded import MAX_SHIFT, NOISE
from mulo_cli.datasets.options import NO_OPTIONS
from mulo_cli.errors import DataError

BATCH = 16
MANY = 4_096
STANDARDISED = 0.1
"""Mean and deviation of a batch of thousands come this near to 0 and 1: digits are moved and get
noise after their pixels were measured."""

SMALL_CONSTANT = 10_000
"""Bytes. A batch function may hold channel means, never the pixels."""

STANDARD_ERRORS = 5.0
"""A fair draw lands beyond this once in two million times."""


@pytest.fixture(scope="module", params=sorted(DATASETS))
def dataset(request):
    """Return each data set with its arrays; one that is not prepared here is passed over."""
    entry = DATASETS[request.param]
    try:
        return entry.load(NO_OPTIONS)
    except DataError as error:
        if entry.describe is None:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def batch(dataset):
    """Return the compiled batch function of the training split's data, which is traced."""
    return jax.jit(dataset.make_batch(BATCH))


@pytest.fixture(params=["train", "test"])
def split(request, dataset):
    return dataset.splits[request.param]


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_description_tells_the_shapes_of_batches_without_any_data(name):
    entry = DATASETS[name]
    described = (entry.describe or entry.load)(NO_OPTIONS)
    assert described.name == name
    assert described.source
    key, step = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))
    for arrays in described.splits.values():
        found = jax.eval_shape(described.make_batch(BATCH), arrays, key, step)
        assert found.inputs.shape == (BATCH, *described.input_shape)
        assert found.targets.shape == (BATCH,)
        assert (found.inputs.dtype, found.targets.dtype) == (jnp.float32, jnp.int32)


def test_every_split_has_as_many_targets_as_inputs(dataset):
    assert {"train", "test"} <= dataset.splits.keys()
    for name, arrays in dataset.splits.items():
        assert dataset.sizes[name] == len(arrays["inputs"]) == len(arrays["targets"]) > 0
        assert arrays["inputs"].dtype == np.uint8


def test_a_batch_depends_on_its_key_and_its_step_and_on_nothing_else(batch, split, getkey):
    key, other = getkey(), getkey()
    first = batch(split, key, jnp.int32(3))
    different = [batch(split, key, jnp.int32(4)), batch(split, other, jnp.int32(3))]
    again = batch(split, key, jnp.int32(3))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for batch_elsewhere in different:
        assert not np.array_equal(first.inputs, batch_elsewhere.inputs)


def test_the_data_is_an_argument_and_not_a_constant_of_the_program(dataset, split, getkey):
    traced = jax.make_jaxpr(dataset.make_batch(BATCH))(split, getkey(), jnp.int32(0))
    assert sum(np.asarray(constant).nbytes for constant in traced.consts) < SMALL_CONSTANT


def test_batches_follow_the_data_that_is_handed_in(batch, split, getkey):
    marked = {**split, "targets": np.full_like(split["targets"], 7)}
    assert set(np.asarray(batch(marked, getkey(), jnp.int32(0)).targets)) == {7}


def test_batches_are_standardised_and_labels_are_classes(dataset, split, getkey):
    drawn = jax.jit(dataset.make_batch(MANY))(split, getkey(), jnp.int32(0))
    assert drawn.inputs.shape == (MANY, *dataset.input_shape)
    assert abs(float(drawn.inputs.mean())) < STANDARDISED
    assert abs(float(drawn.inputs.std()) - 1.0) < STANDARDISED
    assert int(drawn.targets.min()) >= 0
    assert int(drawn.targets.max()) < dataset.num_classes
    assert len(np.unique(drawn.targets)) > dataset.num_classes // 2


@pytest.fixture(scope="module")
def drawn_digits():
    """Return stored images, and some 20 drawings of each together with the image's number."""
    dataset = DATASETS["digits"].load(NO_OPTIONS)
    stored = dataset.splits["train"]["inputs"]
    numbered = {"inputs": stored, "targets": np.arange(len(stored), dtype=np.int32)}
    make = jax.jit(dataset.make_batch(20 * len(stored)))
    drawn = make(numbered, jax.random.key(0), jnp.int32(0))
    return stored, np.asarray(drawn.inputs), np.asarray(drawn.targets)


def test_every_training_digit_is_drawn_and_none_is_preferred(drawn_digits):
    stored, _, numbers = drawn_digits
    times = np.bincount(numbers, minlength=len(stored))
    assert len(times) == len(stored)
    assert times.min() > 0, "the chance that any of them is missed is 3e-6"
    # 20 draws each on average: the counts are Poisson, and their variance is their mean
    assert times.var() == pytest.approx(20.0, rel=STANDARD_ERRORS * np.sqrt(2 / len(stored)))


def test_a_digit_is_moved_by_at_most_one_pixel_and_gets_a_little_noise(drawn_digits):
    stored, inputs, numbers = drawn_digits
    original = stored[:, MAX_SHIFT:-MAX_SHIFT, MAX_SHIFT:-MAX_SHIFT]
    standardised = (stored - original.mean()) / original.std()
    shifts = [(down, right) for down in range(3) for right in range(3)]
    assert MAX_SHIFT == 1
    moved = [standardised[numbers, d : d + 8, r : r + 8] - inputs for d, r in shifts]
    errors = np.array([np.square(residual).mean(axis=(1, 2)) for residual in moved])
    nearest = errors.argmin(axis=0)
    noise = np.array(moved)[nearest, np.arange(len(numbers))]
    assert noise.std() == pytest.approx(NOISE, rel=0.01)
    assert np.abs(noise).max() < 7 * NOISE, "no other shift could be meant"
    share = np.bincount(nearest, minlength=9) / len(numbers)
    error = np.sqrt(1 / 9 * 8 / 9 / len(numbers))
    np.testing.assert_allclose(share, 1 / 9, atol=STANDARD_ERRORS * error)


def test_training_and_test_digits_are_the_whole_set_and_share_no_image():
    splits = DATASETS["digits"].load(NO_OPTIONS).splits
    train, test = splits["train"]["inputs"], splits["test"]["inputs"]
    assert len(train) + len(test) == 1_797
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_data_that_is_not_prepared_is_an_error_that_names_the_folder_and_says_what_to_do(tmp_path):
    script = (
        "from mulo_cli.datasets.catalogue import DATASETS\n"
        "from mulo_cli.datasets.options import NO_OPTIONS\n"
        "from mulo_cli.errors import DataError\n"
        "try:\n    DATASETS['imagenet32'].load(NO_OPTIONS)\n"
        "except DataError as error:\n    print(error.message)\n    print(error.hint)\n"
    )
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    message, hint = done.stdout.splitlines()
    assert str(tmp_path) in message
    assert "imagenet_resized/32x32" in message
    assert "tfds build imagenet_resized/32x32" in hint
    assert "synthetic/imagenet32" in hint
    assert not list(tmp_path.iterdir())
