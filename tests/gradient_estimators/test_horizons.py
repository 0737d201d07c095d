"""Horizons are log-uniform, multiples of the truncation, and first ones are staggered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.gradient_estimators.horizons import (
    HorizonConfig,
    sample_first_horizon,
    sample_horizon,
)

CONFIG = HorizonConfig(100, 1_000, 50)
DRAWS = 20_000


def draws(sample) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return np.asarray(jax.vmap(lambda key: sample(key, CONFIG))(keys))


def test_horizons_are_multiples_of_the_truncation_within_their_bounds():
    horizons = draws(sample_horizon)
    assert set(np.unique(horizons)) <= set(range(100, 1_001, 50))
    assert horizons.min() <= 150
    assert horizons.max() == 1_000


def test_horizons_are_log_uniform():
    """A horizon is at most T with probability log(T/100)/log(10), for any multiple T of 50."""
    horizons = draws(sample_horizon)
    for bound in (200, 400, 800):
        share = np.mean(horizons <= bound)
        expected = np.log(bound / 100) / np.log(10)
        np.testing.assert_allclose(share, expected, atol=4 * 0.5 / np.sqrt(DRAWS))


def test_first_horizons_are_cut_by_any_number_of_truncations():
    horizons = draws(sample_first_horizon)
    assert set(np.unique(horizons)) == set(range(50, 1_001, 50))
    fixed = HorizonConfig(400, 400, 50)
    keys = jax.random.split(jax.random.key(1), DRAWS)
    first = np.asarray(jax.vmap(lambda key: sample_first_horizon(key, fixed))(keys))
    shares = np.unique(first, return_counts=True)[1] / DRAWS
    np.testing.assert_allclose(shares, 1 / 8, atol=4 * np.sqrt(1 / 8 / DRAWS))
    assert first.dtype == jnp.int32


@pytest.mark.parametrize("steps", [50, 100, 350, 500, 1_000, 1_050])
def test_a_fixed_horizon_is_that_horizon_whatever_logarithms_round_to(steps):
    fixed = HorizonConfig(steps, steps, 50)
    keys = jax.random.split(jax.random.key(2), 100)
    horizons = np.asarray(jax.vmap(lambda key: sample_horizon(key, fixed))(keys))
    np.testing.assert_array_equal(horizons, steps)
