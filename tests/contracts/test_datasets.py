"""What every data set promises: batches that are pure functions of a key and a step.

An entry that is costly to load, or whose data may be absent, is held to the same shapes through
its description, so that a recipe on it can be looked at anywhere.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.datasets.base import at_length
from mulo_cli.datasets.catalogue import DATASETS
from mulo_cli.datasets.embedded import MAX_SHIFT, NOISE
from mulo_cli.datasets.options import NO_OPTIONS
from mulo_cli.datasets.tfds import BENCHMARKS
from mulo_cli.errors import DataError

BATCH = 16
MANY = 4_096
LENGTH = 24
STANDARDISED = 0.1
"""Mean and deviation of a batch of thousands come this near to 0 and 1: digits are moved and get
noise after their pixels were measured."""

SMALL_CONSTANT = 10_000
"""Bytes. A batch function may hold channel means, never the pixels."""

STANDARD_ERRORS = 5.0
"""A fair draw lands beyond this once in two million times."""

PRESENT = [name for name in sorted(DATASETS) if DATASETS[name].present]
"""What is absent is held through its description."""

IMAGES, TEXTS = (
    [name for name in PRESENT if DATASETS[name].kind == kind] for kind in ("images", "text")
)
MADE = {name for name in DATASETS if name.startswith("synthetic/")}
"""Sets whose examples are made when a batch is drawn."""


def load(name):
    return DATASETS[name].load(NO_OPTIONS)


@pytest.fixture(scope="module", params=PRESENT)
def dataset(request):
    """Return each data set; of text examples are short."""
    found = load(request.param)
    return at_length(found, LENGTH) if found.kind == "text" else found


@pytest.fixture(scope="module", params=IMAGES)
def images(request):
    return load(request.param)


@pytest.fixture(scope="module", params=TEXTS)
def text(request):
    return at_length(load(request.param), LENGTH)


def on_device(split):
    return jax.tree.map(jnp.asarray, split)


def drawn(dataset, split, key, size=MANY):
    make = jax.jit(dataset.make_batch(size))
    return jax.tree.map(np.asarray, make(on_device(dataset.splits[split]), key, jnp.int32(0)))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_description_tells_the_shapes_of_batches_without_any_data(name):
    entry = DATASETS[name]
    described = (entry.describe or entry.load)(NO_OPTIONS)
    assert (described.name, described.kind) == (name, entry.kind)
    assert described.source
    assert described.licence
    assert described.real == (name not in MADE)
    assert min(described.sizes["train"], described.sizes["test"], described.num_classes) > 0
    key, step = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))
    for arrays in described.splits.values():
        found = jax.eval_shape(described.make_batch(BATCH), arrays, key, step)
        assert found.inputs.shape == (BATCH, *described.input_shape)
        assert found.inputs.dtype == described.example.dtype
        assert found.targets.shape == (BATCH, *described.input_shape[: found.targets.ndim - 1])
        assert found.targets.ndim == (2 if entry.kind == "text" else 1)
        assert found.targets.dtype == jnp.int32


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_a_benchmark_and_its_twin_have_the_same_shapes_and_sizes(name):
    described = DATASETS[name].describe(NO_OPTIONS)
    twin = DATASETS[f"synthetic/{name}"].load(NO_OPTIONS)
    for field in ("kind", "sizes", "input_shape", "num_classes"):
        assert getattr(described, field) == getattr(twin, field), field


def test_stored_examples_are_as_many_as_sizes_say(dataset):
    assert {"train", "test"} <= dataset.splits.keys()
    for name, arrays in dataset.splits.items():
        if "inputs" in arrays:
            assert dataset.sizes[name] == len(arrays["targets"]) == arrays["inputs"].shape[0] > 0
            assert arrays["inputs"].dtype == np.uint8
        elif "tokens" in arrays:
            starts = arrays.get("starts")
            found = len(arrays["tokens"]) if starts is None else len(starts) - 1
            assert dataset.sizes[name] == found > 0
            assert arrays["tokens"].dtype in (np.uint16, np.int32)
        else:
            assert dataset.name in MADE


def test_a_batch_depends_on_its_key_and_its_step_and_on_nothing_else(dataset, getkey):
    batch = jax.jit(dataset.make_batch(BATCH))
    key, other = getkey(), getkey()
    for arrays in dataset.splits.values():
        split = on_device(arrays)
        first = batch(split, key, jnp.int32(3))
        different = [batch(split, key, jnp.int32(4)), batch(split, other, jnp.int32(3))]
        again = batch(split, key, jnp.int32(3))
        jax.tree.map(np.testing.assert_array_equal, first, again)
        for batch_elsewhere in different:
            assert not np.array_equal(first.inputs, batch_elsewhere.inputs)


def test_both_splits_give_other_examples_for_one_key(dataset, getkey):
    key = getkey()
    train, test = (drawn(dataset, split, key, BATCH) for split in ("train", "test"))
    assert not np.array_equal(train.inputs, test.inputs)


def test_the_data_is_an_argument_and_not_a_constant_of_the_program(dataset, getkey):
    for arrays in dataset.splits.values():
        traced = jax.make_jaxpr(dataset.make_batch(BATCH))(arrays, getkey(), jnp.int32(0))
        assert sum(np.asarray(constant).nbytes for constant in traced.consts) < SMALL_CONSTANT


def test_batches_follow_the_data_that_is_handed_in(dataset, getkey):
    for arrays in dataset.splits.values():
        split = on_device(arrays)
        if "inputs" in split:
            marked = {**split, "targets": jnp.full_like(split["targets"], 7)}
        elif "tokens" in split:
            marked = {**split, "tokens": jnp.full_like(split["tokens"], 7)}
        else:
            pytest.skip("its examples are made, tests/datasets/test_synthetic.py tells from what")
        targets = jax.jit(dataset.make_batch(BATCH))(marked, getkey(), jnp.int32(0)).targets
        assert set(np.asarray(targets).flat) - {-1} == {7}


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_standardised_and_labels_are_classes(images, split, getkey):
    batch = drawn(images, split, getkey())
    assert batch.inputs.shape == (MANY, *images.input_shape)
    assert abs(float(batch.inputs.mean())) < STANDARDISED
    assert abs(float(batch.inputs.std()) - 1.0) < STANDARDISED
    assert int(batch.targets.min()) >= 0
    assert int(batch.targets.max()) < images.num_classes
    assert len(np.unique(batch.targets)) > images.num_classes // 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_target_of_a_text_is_the_token_that_comes_next(text, split, getkey):
    inputs, targets = drawn(text, split, getkey())
    assert inputs.dtype == targets.dtype == np.int32
    assert inputs.shape == targets.shape == (MANY, LENGTH)
    assert inputs.min() >= 0
    assert max(inputs.max(), targets.max()) < text.num_classes
    told = targets >= 0
    assert told[:, 0].all(), "an example has something to tell"
    follows = told[:, 1:]
    np.testing.assert_array_equal(inputs[:, 1:][follows], targets[:, :-1][follows])
    assert (np.diff(told.astype(int), axis=1) <= 0).all(), "padding is at the end"
    assert len(np.unique(targets)) > 30, "texts are not one word"


@pytest.mark.parametrize("length", [1, 7, 100])
def test_examples_of_a_text_have_the_length_that_is_asked_for(text, length, getkey):
    of_length = at_length(text, length)
    batch = drawn(of_length, "test", getkey(), BATCH)
    assert batch.inputs.shape == (BATCH, length) == (BATCH, *of_length.input_shape)
    longer = drawn(at_length(text, length + 3), "test", jax.random.key(0), BATCH)
    assert longer.inputs.shape == (BATCH, length + 3)


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


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_data_that_is_not_prepared_is_an_error_that_names_the_folder_and_says_what_to_do(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("MULO_DATA_DIR", str(tmp_path))
    assert not DATASETS[name].present
    with pytest.raises(DataError) as caught:
        DATASETS[name].load(NO_OPTIONS)
    assert str(tmp_path / name) in caught.value.message
    assert f"mulo data prepare {name}" in caught.value.hint
    assert f"synthetic/{name}" in caught.value.hint
    assert not list(tmp_path.iterdir())
