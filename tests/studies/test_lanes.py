"""Lanes: what a seed stands for, and how many steps are trained between two looks at the clock."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.meta_training.meta_step import Stream, stream
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.studies.lanes import SEGMENT, TEST_BATCHES, lane_programs, seed_keys, segments
from tests.worlds import digits_task


@pytest.mark.parametrize("steps", [1, 2, 24, 25, 49, 50, 51, 53, 100, 101, 149, 500, 997, 5_000])
def test_segments_cover_every_step_once_in_order(steps):
    parts = segments(steps)
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(steps))
    assert all(1 <= len(part) <= SEGMENT for part in parts)
    assert {part.dtype for part in parts} == {np.dtype(np.int32)}


def test_segments_are_equal_where_the_number_of_steps_allows_it():
    for steps in range(1, 1_001):
        lengths = [len(part) for part in segments(steps)]
        suitable = [k for k in range(25, 51) if steps % k == 0]
        if suitable:
            assert lengths == [max(suitable)] * (steps // max(suitable))
        else:
            assert set(lengths[:-1]) <= {50}
            assert len(lengths) == -(-steps // 50)


def bits(keys: jax.Array) -> set[tuple[int, ...]]:
    """Return keys as plain numbers."""
    data = np.asarray(jax.random.key_data(keys))
    return {tuple(map(int, one)) for one in data.reshape(-1, data.shape[-1])}


def test_a_seed_is_one_key_however_many_are_asked_for():
    one_by_one = [seed_keys([seed]) for seed in (0, 1, 7, 2**31 - 1)]
    together = seed_keys([0, 1, 7, 2**31 - 1])
    assert bits(together) == set().union(*map(bits, one_by_one))
    assert bits(seed_keys(seed for seed in (0, 1))) == bits(together[:2])
    assert len(bits(seed_keys(range(1_000)))) == 1_000


@jax.jit
def meta_training_keys(seed):
    """Return what a run draws from: beginning, steps and validation, and what is made of them."""
    root = jax.random.key(seed)
    numbers = jnp.arange(20)

    def fan_out(key):
        return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)

    streams = jnp.stack([stream(root, which) for which in Stream])
    parts = jax.vmap(fan_out)(streams)
    return root, streams, parts, jax.vmap(jax.vmap(fan_out))(parts)


def test_evaluation_and_meta_training_share_no_key():
    """Otherwise a learned optimizer would be judged on networks that it was made on."""
    keys = seed_keys(range(20))
    ours = bits(keys) | bits(jax.vmap(lambda key: jax.random.split(key, 3))(keys))
    assert len(ours) == 80
    theirs = set().union(*(bits(k) for seed in range(20) for k in meta_training_keys(seed)))
    assert len(theirs) > 20 * 3 * 400
    assert not ours & theirs


def test_accuracy_is_the_share_of_hits_on_batches_of_the_test_split_in_the_lanes_own_order():
    task, test_data = digits_task(8, "sp", batch_size=16), build_dataset("digits").splits["test"]
    entry = OPTIMIZERS["sgd"]
    programs = lane_programs(task, entry.under("sp"), 50)
    key = seed_keys([0])[0]
    lane = programs.start(key, entry.defaults)
    found = jax.jit(programs.test_accuracy)(lane, entry.defaults, test_data)

    @jax.jit
    def hits(number):
        batch = task.batch(test_data, jax.random.split(key, 3)[2], number)
        logits = task.loss(lane.state.params, batch)[1].logits
        return jnp.argmax(logits, axis=-1) == batch.targets

    expected = [float(np.mean(hits(jnp.int32(number)))) for number in range(TEST_BATCHES)]
    assert len(set(expected)) > 1, "batches differ"
    assert float(found) == pytest.approx(np.mean(expected))
