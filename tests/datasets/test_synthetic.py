"""Synthetic twins: shapes of their originals, one example per number, something to learn."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.datasets import synthetic
from mulo_cli.datasets.base import at_length
from mulo_cli.datasets.options import DatasetOptions
from mulo_cli.datasets.synthetic import (
    END,
    FIRST_WORD,
    FOLLOWS,
    OFFSETS,
    START,
    VOCABULARY,
    Numbers,
    noise_places,
    numbered_images,
    numbered_lines,
)

IMAGES = {
    "imagenet32": ((32, 32, 3), 1_000, 1_281_167, 50_000),
    "imagenet64": ((64, 64, 3), 1_000, 1_281_167, 50_000),
    "cifar10": ((32, 32, 3), 10, 50_000, 10_000),
    "fashion_mnist": ((28, 28), 10, 60_000, 10_000),
}
STORED_LIMIT = 40_000_000
"""Bytes of a twin's arrays; ImageNet at 64x64, itself, has 15.7e9."""

STANDARD_ERRORS = 5.0


def twin_of(name, **options):
    return getattr(synthetic, f"synthetic_{name}")(DatasetOptions(**options))


def on_device(dataset, split):
    return jax.tree.map(jnp.asarray, dataset.splits[split])


def drawn(dataset, split, size, step=0):
    make = jax.jit(dataset.make_batch(size))
    return make(on_device(dataset, split), jax.random.key(0), jnp.int32(step))


@pytest.mark.parametrize("name", IMAGES)
def test_a_twin_has_the_shapes_and_sizes_of_its_original_and_is_small(name):
    shape, num_classes, train, test = IMAGES[name]
    dataset = twin_of(name)
    assert dataset.name == f"synthetic/{name}"
    assert dataset.input_shape == shape
    assert dataset.num_classes == num_classes
    assert dataset.sizes == {"train": train, "test": test}
    assert not dataset.real
    stored = jax.tree.leaves(dataset.splits["train"])
    assert sum(array.nbytes for array in stored) < STORED_LIMIT
    batch = drawn(dataset, "test", 64)
    assert batch.inputs.shape == (64, *shape)
    assert (batch.inputs.dtype, batch.targets.dtype) == (jnp.float32, jnp.int32)
    assert abs(float(batch.inputs.mean())) < 0.05
    assert float(batch.inputs.std()) == pytest.approx(1.0, abs=0.05)


def test_the_twin_that_commands_begin_with_is_there_at_once():
    twin_of("imagenet32")  # what is imported and compiled once
    begin = time.perf_counter()
    twin_of("imagenet32")
    assert time.perf_counter() - begin < 1.0, "it takes 0.04 s"


def test_an_example_is_the_same_whenever_and_with_whatever_it_is_drawn():
    data = on_device(twin_of("cifar10"), "train")
    some = numbered_images(data["patterns"], data["noise"], jnp.array([5, 70, 59_999]))
    others = numbered_images(data["patterns"], data["noise"], jnp.array([59_999, 5]))
    np.testing.assert_array_equal(some[0][jnp.array([2, 0])], others[0])
    np.testing.assert_array_equal(some[1][jnp.array([2, 0])], others[1])


@pytest.mark.parametrize("name", ["cifar10", "imagenet32"])
def test_no_image_of_a_twin_comes_twice_in_training_or_test(name):
    """Two images of one class would have to have the noise of one place."""
    _, num_classes, train, test = IMAGES[name]
    numbers = np.arange(train + test)
    places = np.asarray(noise_places(jnp.asarray(numbers), num_classes))
    assert places.min() >= 0
    assert places.max() < OFFSETS
    assert len(np.unique(numbers % num_classes * OFFSETS + places)) == train + test


def test_an_image_is_its_classes_pattern_and_the_noise_of_its_place():
    arrays = twin_of("cifar10").splits["train"]
    numbers = jnp.array([17, 59_999])
    images, classes = numbered_images(*on_device_parts(arrays), numbers)
    assert list(classes) == [7, 9]
    for image, label, place in zip(images, classes, noise_places(numbers, 10), strict=True):
        noise = arrays["noise"][place : place + 3_072].astype(int).reshape(32, 32, 3)
        wanted = np.clip(arrays["patterns"][label] + noise, 0, 255)
        np.testing.assert_array_equal(image, wanted)


def test_the_noise_of_images_is_white():
    """No direction of the pixels has much less noise than others, so none gives classes away."""
    patterns, noise = on_device_parts(twin_of("fashion_mnist").splits["train"])
    grey = jnp.full_like(patterns[:, :7, :7], 128)
    images, _ = numbered_images(grey, noise, jnp.arange(20_000))
    variances = np.linalg.eigvalsh(np.cov(np.asarray(images).reshape(20_000, 49).T))
    # of so many samples in 49 directions: 1 +- 2 sqrt(49 / 20 000), by Marchenko and Pastur
    np.testing.assert_allclose(variances / variances.mean(), 1, atol=0.12)


def on_device_parts(arrays):
    return jnp.asarray(arrays["patterns"]), jnp.asarray(arrays["noise"])


def test_training_numbers_end_where_test_numbers_begin():
    for name in (*IMAGES, "lm1b"):
        dataset = twin_of(name)
        train, test = dataset.splits["train"], dataset.splits["test"]
        assert train["numbers"] == Numbers(0, dataset.sizes["train"])
        assert test["numbers"] == Numbers(dataset.sizes["train"], dataset.sizes["test"])
        assert all(train[key] is test[key] for key in train.keys() - {"numbers"})


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_are_balanced(split):
    targets = np.asarray(drawn(twin_of("fashion_mnist"), split, 20_000).targets)
    times = np.bincount(targets, minlength=10)
    error = np.sqrt(20_000 * 0.1 * 0.9)
    np.testing.assert_allclose(times, 2_000, atol=STANDARD_ERRORS * error)


def test_the_place_of_the_noise_tells_nothing_about_the_class():
    numbers = np.arange(60_000)
    halves = np.asarray(noise_places(jnp.asarray(numbers), 10)) >= OFFSETS // 2
    shares = [halves[numbers % 10 == label].mean() for label in range(10)]
    np.testing.assert_allclose(shares, 0.5, atol=STANDARD_ERRORS * 0.5 / np.sqrt(6_000))


def test_a_twin_can_be_augmented():
    plain, moved = twin_of("cifar10"), twin_of("cifar10", augment="crop-flip")
    assert not np.array_equal(drawn(plain, "train", 8).inputs, drawn(moved, "train", 8).inputs)
    np.testing.assert_array_equal(
        drawn(plain, "train", 8).targets, drawn(moved, "train", 8).targets
    )


def test_a_small_network_learns_a_twin_and_is_as_good_on_its_test_split():
    dataset = twin_of("fashion_mnist")
    make = dataset.make_batch(128)
    data = {split: on_device(dataset, split) for split in ("train", "test")}
    one, two = jax.random.split(jax.random.key(1))
    params = {
        "first": jax.random.normal(one, (784, 32)) / 28,
        "last": jax.random.normal(two, (32, 10)) / 32,
    }
    tx = optax.adam(3e-3)

    def loss_of(params, data, step):
        batch = make(data, jax.random.key(2), step)
        hidden = jax.nn.relu(batch.inputs.reshape(128, -1) @ params["first"])
        logits = hidden @ params["last"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets).mean()

    @jax.jit
    def step(carry, i):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params, data["train"], i)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32
            updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(150))
    guessing = np.log(10)
    assert losses[0] > 0.9 * guessing, "it is not known beforehand"
    assert losses[-10:].mean() < 0.5 * guessing
    assert loss_of(params, data["test"], jnp.int32(0)) < 0.5 * guessing


@pytest.fixture(scope="module")
def lines():
    """Return 40 000 lines of the training split, whole."""
    successors = jnp.asarray(twin_of("lm1b").splits["train"]["successors"])
    make = jax.jit(numbered_lines, static_argnums=2)
    return np.asarray(make(successors, jnp.arange(40_000), 160))


def test_the_twin_of_lm1b_has_its_sizes_and_a_vocabulary_of_32_000():
    dataset = twin_of("lm1b")
    assert dataset.sizes == {"train": 30_301_028, "test": 306_688}
    assert (dataset.num_classes, dataset.kind, dataset.real) == (32_000, "text", False)
    batch = drawn(at_length(dataset, 48), "test", 512)
    assert batch.inputs.shape == batch.targets.shape == (512, 48)
    inside = np.asarray(batch.targets) >= 0
    assert (np.asarray(batch.inputs[:, 0]) == START).all()
    assert (np.asarray(batch.inputs)[~inside] == START).all()
    same = np.asarray(batch.inputs[:, 1:]) == np.asarray(batch.targets[:, :-1])
    assert same[inside[:, 1:]].all()


def test_a_line_is_the_same_at_every_length_and_beside_any_other():
    successors = jnp.asarray(twin_of("lm1b").splits["test"]["successors"])
    make = jax.jit(numbered_lines, static_argnums=2)
    numbers = jnp.array([3, 30_500_000])
    long = make(successors, numbers, 30)
    np.testing.assert_array_equal(make(successors, numbers, 12), long[:, :12])
    np.testing.assert_array_equal(make(successors, numbers[::-1], 30), long[::-1])


def test_lines_have_some_30_tokens_one_end_and_padding_after_it(lines):
    lengths = (lines >= 0).sum(axis=1)
    assert lengths.mean() == pytest.approx(30.0, abs=0.5)
    assert lengths.std() > 10
    assert lengths.min() >= 2
    last = np.take_along_axis(lines, lengths[:, None] - 1, axis=1)
    assert np.mean(last == END) > 0.999, "hardly a line is longer than 160 tokens"
    assert (lines == END).sum() == (last == END).sum()
    assert not (lines == 0).any()


def test_words_follow_zipfs_law_down_to_the_end_of_the_vocabulary(lines):
    times = np.bincount(lines[lines >= 0], minlength=VOCABULARY)
    assert len(times) == VOCABULARY
    assert (times[FIRST_WORD:] > 0).mean() > 0.9
    assert (times[-3_000:] > 0).mean() > 0.9, "the tail is used"
    first = lines[:, 0]  # drawn anew
    share = np.mean(first == FIRST_WORD)
    assert share == pytest.approx(np.log(2) / np.log(VOCABULARY - FIRST_WORD + 1), abs=0.005)


def test_lines_differ(lines):
    assert len({line.tobytes() for line in lines}) > 0.999 * len(lines)


def test_a_bigram_of_training_lines_tells_test_lines_far_better_than_guessing(lines):
    data = on_device(twin_of("lm1b"), "test")
    numbers = data["numbers"].first + jnp.arange(2_000)
    test = np.asarray(numbered_lines(data["successors"], numbers, 160))
    counts = np.bincount(lines[lines >= 0], minlength=VOCABULARY) + 0.1
    unigram = counts / counts.sum()
    best = np.zeros(VOCABULARY, np.int64)
    pairs = pairs_of(lines)
    kinds, times = np.unique(pairs[:, 0] * VOCABULARY + pairs[:, 1], return_counts=True)
    order = np.argsort(times, kind="stable")
    best[kinds[order] // VOCABULARY] = kinds[order] % VOCABULARY
    before, after = pairs_of(test).T
    hit = best[before] == after
    assert hit.mean() > 0.7 * FOLLOWS
    chance = 0.6 * unigram[after] + 0.4 * hit
    assert -np.log(chance).mean() < 0.6 * np.log(VOCABULARY)
    assert -np.log(chance).mean() < 0.85 * -np.log(unigram[after]).mean(), "pairs say more"


def pairs_of(lines):
    before, after = lines[:, :-1].astype(np.int64), lines[:, 1:].astype(np.int64)
    return np.stack([before, after], axis=-1)[after >= 0]
