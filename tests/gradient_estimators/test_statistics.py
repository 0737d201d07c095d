"""What estimators promise: PES is unbiased for whole runs, truncated ES is not.

In the linear world x <- a x + theta with loss x^2/2 every x is linear in theta, so that the mean
loss of a run is quadratic in theta: smoothing by Gaussian perturbations adds a constant to it, and
the gradient of the smoothed loss is that of the loss itself, known in closed form.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.gradient_estimators.antithetic import EstimatorConfig
from mulo_cli.gradient_estimators.base import EstimatorState
from mulo_cli.gradient_estimators.catalogue import GRADIENT_ESTIMATORS
from mulo_cli.inner_training.state import init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.tasks.losses import bounded
from tests.worlds import (
    DECAY,
    START,
    descent_optimizer,
    digits_task,
    linear_optimizer,
    quadratic_task,
    small_optimizer,
)

HORIZON, TRUNCATION, PAIRS, RUNS = 20, 5, 2_000, 5
THETA = 0.3
STANDARD_ERRORS = 4.0
"""A fair estimator lands beyond this once in 16 000 times."""


def analytic_gradient() -> float:
    """Return d/dtheta of the mean over t < T of x_t^2 / 2, x_t = a^t x_0 + theta (1-a^t)/(1-a)."""
    powers = DECAY ** np.arange(HORIZON)
    slopes = (1 - powers) / (1 - DECAY)
    return float(np.mean((powers * START + THETA * slopes) * slopes))


def estimates(name: str, sigma: float = 0.1) -> np.ndarray:
    """Return independent estimates, each the mean over a whole number of runs' truncations."""
    config = EstimatorConfig(PAIRS, PAIRS, sigma, TRUNCATION, HORIZON, HORIZON)
    task, optimizer = quadratic_task(), linear_optimizer(THETA)
    estimator = GRADIENT_ESTIMATORS[name](task, optimizer, config)
    theta = optimizer.init(jax.random.key(0))
    estimate = jax.jit(estimator.estimate)
    state = estimator.init(theta)
    gradients = []
    for step in range(HORIZON // TRUNCATION * (RUNS + 1)):
        gradient, state, _ = estimate(jax.random.key(100 + step), theta, state, task.data)
        gradients.append(float(gradient["push"]))
    settled = gradients[HORIZON // TRUNCATION :]  # the first runs were cut short at random
    return np.array(settled).reshape(RUNS, -1).mean(axis=1)


def test_pes_agrees_with_the_analytic_gradient():
    found = estimates("pes")
    error = found.std(ddof=1) / np.sqrt(RUNS)
    assert abs(found.mean() - analytic_gradient()) < STANDARD_ERRORS * error
    assert error < 0.05 * analytic_gradient(), "the test must be able to fail"


def test_truncated_es_does_not():
    found = estimates("truncated-es")
    error = found.std(ddof=1) / np.sqrt(RUNS)
    assert abs(found.mean() - analytic_gradient()) > 10 * STANDARD_ERRORS * error


def full_antithetic_es(task, optimizer, config, key, theta, data):
    """Return the textbook estimate: every pair trains one whole run from a fresh start."""

    def pair(i):
        key_run, _, key_epsilon, key_data = jax.random.split(jax.random.fold_in(key, i), 4)
        flat, unravel = jax.flatten_util.ravel_pytree(theta)
        epsilon = unravel(config.sigma * jax.random.normal(key_epsilon, flat.shape))
        start = init_inner_state(task, optimizer.build(theta, task.roles, jnp.int32(0)), key_run)

        def mean_loss(sign):
            perturbed = jax.tree.map(lambda t, e: t + sign * e, theta, epsilon)
            built = optimizer.build(perturbed, task.roles, jnp.int32(config.truncation))
            steps = jnp.arange(config.truncation)
            return unroll(task, built, start, data, key_data, steps)[1]

        losses = jax.vmap(mean_loss)(jnp.array([1.0, -1.0]))
        positive, negative = jnp.mean(bounded(losses, task.loss_ceiling), axis=1)
        return jax.tree.map(lambda e: (positive - negative) / (2.0 * config.sigma**2) * e, epsilon)

    gradients = jax.vmap(pair)(jnp.arange(config.pairs))
    return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)


@pytest.mark.parametrize("name", ["pes", "truncated-es"])
def test_with_one_truncation_per_run_it_is_full_es_to_the_bit(name, getkey):
    """Every truncation restarts, so nothing is carried over and nothing accumulates."""
    task, optimizer = digits_task(8, depth=1), descent_optimizer()
    config = EstimatorConfig(4, 4, 0.01, 5, 5, 5)
    theta = optimizer.init(getkey())
    estimator = GRADIENT_ESTIMATORS[name](task, optimizer, config)
    state = estimator.init(theta)
    for key in (getkey(), getkey()):
        # not as one compiled program each: fused multiply-adds round as the fusion happens to fall
        runs, reports = estimator.unroll(key, theta, state.runs, task.data, jnp.int32(0))
        found, accumulated, _ = estimator.credit(key, theta, state.accumulated, reports)
        state = EstimatorState(runs, accumulated)
        expected = full_antithetic_es(task, optimizer, config, key, theta, task.data)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_perturbations_accumulate_within_a_run_and_are_forgotten_at_its_end():
    config = EstimatorConfig(PAIRS, PAIRS, 0.1, TRUNCATION, HORIZON, HORIZON)
    task, optimizer = quadratic_task(), linear_optimizer()
    estimator = GRADIENT_ESTIMATORS["pes"](task, optimizer, config)
    theta = optimizer.init(jax.random.key(0))
    state = estimator.init(theta)
    ended = jnp.full_like(state.runs.inner.step, HORIZON)  # so that all begin together, in full
    runs = state.runs._replace(
        inner=state.runs.inner._replace(step=ended), horizon=jnp.full(PAIRS, HORIZON)
    )
    state = state._replace(runs=runs)
    spreads = []
    for step in range(2 * HORIZON // TRUNCATION):
        _, state, _ = jax.jit(estimator.estimate)(jax.random.key(step), theta, state, task.data)
        spreads.append(float(jnp.std(state.accumulated["push"])))
    per_run = HORIZON // TRUNCATION
    expected = 0.1 * np.sqrt(np.tile(np.arange(1, per_run + 1), 2))
    np.testing.assert_allclose(spreads, expected, rtol=STANDARD_ERRORS / np.sqrt(2 * PAIRS))


def test_a_diverged_run_is_counted_and_bounded(getkey):
    task, optimizer = digits_task(8, depth=1), small_optimizer()
    exploding = jax.tree.map(lambda x: 1e4 * jnp.ones_like(x), optimizer.init(getkey()))
    config = EstimatorConfig(2, 2, 0.01, 5, 20, 20)
    estimator = GRADIENT_ESTIMATORS["pes"](task, optimizer, config)
    state = estimator.init(exploding)
    gradient, _, info = jax.jit(estimator.estimate)(getkey(), exploding, state, task.data)
    assert int(info.diverged_pairs) == 2
    assert float(info.meta_loss) <= task.loss_ceiling
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_blocks_of_pairs_draw_what_one_block_draws(getkey):
    """Bits may depend on the block size; the randomness of a pair may not."""
    task, optimizer = digits_task(8, depth=1), linear_optimizer(0.01)
    theta, key = optimizer.init(getkey()), getkey()
    gradients = []
    for block in (2, 4):
        estimator = GRADIENT_ESTIMATORS["pes"](
            task, optimizer, EstimatorConfig(4, block, 0.01, 5, 10, 20)
        )
        state = estimator.init(theta)
        gradient, state, _ = jax.jit(estimator.estimate)(key, theta, state, task.data)
        gradients.append(gradient)
        steps = np.asarray(state.runs.inner.step)
        np.testing.assert_array_equal(steps, np.full((4, 2), 5))
    # tolerance: rounding of float32 losses near 2.3, divided by 2 sigma^2 = 2e-4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-3), *gradients)
