"""Schedules: up in a straight line, down along a cosine, never at a standstill."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.mup.roles import infer_roles
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.optimizers.schedules import SCHEDULES, constant, warmup_cosine

LENGTHS = [1, 2, 3, 10, 19, 20, 30, 40, 100, 999, 1000, 25_000]
PEAK = 0.25

ROUNDING = 1e-6
"""Relative to the peak: a handful of float32 operations."""


@pytest.fixture(autouse=True)
def optax_promotes():
    """Let optax add one to its count of steps, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@jax.jit
def rates_at(learning_rate, num_steps, counts):
    """Return the rates at some counts of updates done, as a compiled program sees them."""
    return jax.vmap(warmup_cosine(learning_rate, num_steps))(counts)


@functools.cache
def rates(num_steps: int) -> np.ndarray:
    """Return the rate of every step of a run."""
    # one program for all lengths: the longest
    counts = np.minimum(np.arange(max(LENGTHS)), num_steps - 1)
    return np.asarray(rates_at(PEAK, num_steps, counts))[:num_steps]


def init(key):
    """Return the params of the smallest network there is."""
    del key
    return {"x": jnp.ones(1)}


PARAMS, ROLES = init(None), infer_roles(init, init)


def warmup_steps(num_steps: int) -> int:
    """Return a twentieth of the steps, and at least one."""
    return max(1, round(num_steps / 20))


def test_schedules_have_the_names_that_users_write():
    assert set(SCHEDULES) == {"constant", "warmup-cosine"}
    assert SCHEDULES["warmup-cosine"] is warmup_cosine
    assert constant(PEAK, jnp.int32(7)) == PEAK


@pytest.mark.parametrize("num_steps", LENGTHS)
def test_it_climbs_in_a_straight_line_from_above_zero_to_the_learning_rate(num_steps):
    warmup = warmup_steps(num_steps)
    line = PEAK * np.arange(1, warmup + 1) / warmup
    np.testing.assert_allclose(rates(num_steps)[:warmup], line, rtol=ROUNDING)
    assert rates(num_steps)[warmup - 1] == rates(num_steps).max() == PEAK


@pytest.mark.parametrize("num_steps", LENGTHS)
def test_it_descends_along_half_a_cosine_to_a_tenth(num_steps):
    warmup = warmup_steps(num_steps)
    after = rates(num_steps)[warmup - 1 :]
    angle = np.pi * np.arange(len(after)) / max(1, len(after) - 1)
    cosine = PEAK * (0.1 + 0.9 * (1 + np.cos(angle)) / 2)
    np.testing.assert_allclose(after, cosine, rtol=0, atol=ROUNDING * PEAK)
    if num_steps > 1:
        assert rates(num_steps)[-1] == pytest.approx(PEAK / 10, rel=ROUNDING)
    # neighbours on the flat ends of the cosine may be equal but for rounding
    assert (np.diff(after) <= ROUNDING * PEAK).all()


@pytest.mark.parametrize("num_steps", LENGTHS)
def test_no_step_stands_still(num_steps):
    lowest = min(1 / warmup_steps(num_steps), 1 / 10)
    assert rates(num_steps).min() >= (1 - ROUNDING) * lowest * PEAK


def test_the_shortest_runs_have_the_rates_that_one_would_write_by_hand():
    np.testing.assert_allclose(rates(1), [PEAK], rtol=ROUNDING)
    np.testing.assert_allclose(rates(2), [PEAK, 0.1 * PEAK], rtol=ROUNDING)
    np.testing.assert_allclose(rates(3), [PEAK, 0.55 * PEAK, 0.1 * PEAK], rtol=ROUNDING)


def test_beyond_the_end_it_stays_where_it_was():
    found = rates_at(PEAK, 10, np.arange(9, 9 + max(LENGTHS)))
    np.testing.assert_allclose(found, 0.1 * PEAK, rtol=ROUNDING)


def test_rates_and_lengths_may_be_traced_and_mapped_over():
    peaks, lengths = np.array([0.1, 0.5], np.float32), np.array([10, 40, 100], np.int32)
    counts = np.arange(10)

    @jax.jit
    def grid(peaks, lengths):
        def one(peak, num_steps):
            return jax.vmap(warmup_cosine(peak, num_steps))(counts)

        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(peaks, lengths)

    found = grid(peaks, lengths)
    expected = [[(peak / PEAK) * rates(int(n))[:10] for n in lengths] for peak in peaks]
    np.testing.assert_allclose(found, expected, rtol=5 * ROUNDING)


def test_an_optimizer_under_a_schedule_moves_by_the_rate_of_each_step():
    """The first update is made with the first rate, the last with the last."""
    num_steps = 40

    @jax.jit
    def moves(hyper, num_steps):
        built = OPTIMIZERS["sgd"].under("sp", "warmup-cosine")(hyper, ROLES, num_steps)

        def step(state, _):
            updates, state = built.update(PARAMS, state, PARAMS)
            return state, -updates["x"][0]

        return jax.lax.scan(step, built.init(PARAMS), length=40)[1]

    found = moves({"learning_rate": jnp.float32(PEAK)}, jnp.int32(num_steps))
    np.testing.assert_allclose(found, rates(num_steps), rtol=5 * ROUNDING)


def test_a_constant_schedule_remembers_nothing():
    for schedule, leaves in (("constant", 0), ("warmup-cosine", 1)):
        make = OPTIMIZERS["sgd"].under("sp", schedule)
        built = make(OPTIMIZERS["sgd"].defaults, ROLES, jnp.int32(3))
        assert isinstance(built, optax.GradientTransformationExtraArgs)
        assert len(jax.tree.leaves(built.init(PARAMS))) == leaves
