"""Antithetic unrolls: what persistent and truncated evolution strategies have in common.

N pairs of runs, each pair with its own perturbation +-epsilon of theta; both signs share data, keys
and the state at a restart, then each sign carries its own inner state from truncation to
truncation. What an estimator adds is one function: which perturbation a loss difference is credited
to.

Pairs do not depend on layout: pair i draws from fold_in(key, i), and the unit of compiled work is a
block of `pairs_per_block` pairs (a vmap over another number of pairs rounds differently).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mulo_cli.gradient_estimators.base import EstimateInfo, GradientEstimator
from mulo_cli.gradient_estimators.horizons import (
    HorizonConfig,
    sample_first_horizon,
    sample_horizon,
)
from mulo_cli.gradient_estimators.perturbations import add, sample_perturbation, zeros_like
from mulo_cli.inner_training.state import InnerState, init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.tasks.base import Task
from mulo_cli.tasks.losses import bounded
from mulo_cli.types import Data, PRNGKey, Theta

SIGNS = (1.0, -1.0)


@dataclass(frozen=True)
class EstimatorConfig:
    """Static settings of an antithetic estimator.

    Attributes:
        pairs: antithetic pairs `N`.
        pairs_per_block: pairs in one compiled block; divides `pairs`. Bits depend on it.
        sigma: standard deviation of a perturbation.
        truncation: inner steps `K` per estimate.
        min_horizon: shortest run in steps.
        max_horizon: longest run in steps.
    """

    pairs: int
    pairs_per_block: int
    sigma: float
    truncation: int
    min_horizon: int
    max_horizon: int

    @property
    def horizons(self) -> HorizonConfig:
        """The horizons of this estimator's runs."""
        return HorizonConfig(self.min_horizon, self.max_horizon, self.truncation)


class PairState(NamedTuple):
    """What one pair carries from truncation to truncation (in an estimator's state: N of them)."""

    inner: InnerState
    """Both signs' runs: every leaf has a leading axis of 2."""
    accumulated: Theta
    """xi: the sum of this run's perturbations so far."""
    horizon: Int[Array, ""]


class PairOutcome(NamedTuple):
    """What one pair contributes to an estimate."""

    gradient: Theta
    loss: Float[Array, ""]
    perturbation_norm: Float[Array, ""]
    diverged: Bool[Array, ""]


Credit: TypeAlias = Callable[[Theta, Theta], Theta]
"""(accumulated xi, this truncation's epsilon) -> the perturbation that the losses are due to."""


def antithetic_estimator(
    task: Task, learned_optimizer: LearnedOptimizer, config: EstimatorConfig, credit: Credit
) -> GradientEstimator:
    """Build an estimator of the meta-gradient of the mean loss over runs of `task`."""

    def init(key: PRNGKey, theta: Theta) -> PairState:
        def init_pair(i: Int[Array, ""]) -> PairState:
            key_horizon, key_run = jax.random.split(jax.random.fold_in(key, i))
            horizon = sample_first_horizon(key_horizon, config.horizons)
            return start_pair(task, learned_optimizer, theta, key_run, horizon)

        return jax.vmap(init_pair)(jnp.arange(config.pairs))

    def estimate(
        key: PRNGKey, theta: Theta, state: PairState, data: Data
    ) -> tuple[Theta, PairState, EstimateInfo]:
        def estimate_pair(i: Int[Array, ""], pair: PairState) -> tuple[PairState, PairOutcome]:
            key_pair = jax.random.fold_in(key, i)
            return advance_pair(
                task, learned_optimizer, config, credit, theta, pair, data, key_pair
            )

        state, outcomes = _in_blocks(estimate_pair, state, config)
        gradient = jax.tree.map(lambda g: jnp.mean(g, axis=0), outcomes.gradient)
        return gradient, state, _summary(outcomes, gradient)

    return GradientEstimator(init, estimate)


def start_pair(
    task: Task,
    learned_optimizer: LearnedOptimizer,
    theta: Theta,
    key: PRNGKey,
    horizon: Int[Array, ""],
) -> PairState:
    """Start a run, equal for both signs, with nothing accumulated; the key is consumed."""
    optimizer = learned_optimizer.build(theta, task.roles, horizon)
    one = init_inner_state(task, optimizer, key)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), one)
    return PairState(both, zeros_like(theta), horizon)


def advance_pair(
    task: Task,
    learned_optimizer: LearnedOptimizer,
    config: EstimatorConfig,
    credit: Credit,
    theta: Theta,
    pair: PairState,
    data: Data,
    key: PRNGKey,
) -> tuple[PairState, PairOutcome]:
    """Perturb theta both ways, unroll one truncation and credit the difference of the losses.

    A run at its horizon starts anew before anything else, and forgets its perturbations. The key
    is that of this pair in this truncation, and consumed.
    """
    key_run, key_horizon, key_epsilon, key_data = jax.random.split(key, 4)
    spare = start_pair(
        task, learned_optimizer, theta, key_run, sample_horizon(key_horizon, config.horizons)
    )
    pair = _select(pair.inner.step[0] >= pair.horizon, spare, pair)
    epsilon = sample_perturbation(key_epsilon, theta, config.sigma)
    accumulated = add(pair.accumulated, epsilon)
    steps = pair.inner.step[0] + jnp.arange(config.truncation)

    def unroll_sign(
        sign: Float[Array, ""], inner: InnerState
    ) -> tuple[InnerState, Float[Array, " K"]]:
        perturbed = add(theta, epsilon, sign)
        optimizer = learned_optimizer.build(perturbed, task.roles, pair.horizon)
        return unroll(task, optimizer, inner, data, key_data, steps)

    inner, losses = jax.vmap(unroll_sign)(jnp.array(SIGNS), pair.inner)
    outcome = _outcome(losses, task.loss_ceiling, credit(accumulated, epsilon), config.sigma)
    return PairState(inner, accumulated, pair.horizon), outcome


def _outcome(
    losses: Float[Array, "2 K"], ceiling: float | None, credited: Theta, sigma: float
) -> PairOutcome:
    """Turn both signs' losses into this pair's share of 1/(2 sigma^2) mean_i delta_i xi_i."""
    positive, negative = jnp.mean(bounded(losses, ceiling), axis=1)
    scale = (positive - negative) / (2.0 * sigma**2)
    above = jnp.bool_(False) if ceiling is None else losses > ceiling
    return PairOutcome(
        gradient=jax.tree.map(lambda x: scale * x, credited),
        loss=0.5 * (positive + negative),
        perturbation_norm=optax.tree.norm(credited),
        diverged=jnp.any(~jnp.isfinite(losses) | above),
    )


def _in_blocks(
    per_pair: Callable[[Int[Array, ""], PairState], tuple[PairState, PairOutcome]],
    state: PairState,
    config: EstimatorConfig,
) -> tuple[PairState, PairOutcome]:
    """Map over all pairs, one compiled block of `pairs_per_block` after another.

    The state is carried, so that it is there once: each block overwrites its own part.
    """
    size = config.pairs_per_block
    if size == config.pairs:
        return jax.vmap(per_pair)(jnp.arange(size), state)

    def advance_block(state: PairState, first: Int[Array, ""]) -> tuple[PairState, PairOutcome]:
        before = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, size), state)
        after, outcome = jax.vmap(per_pair)(first + jnp.arange(size), before)

        def put(whole: Array, part: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, part, first, axis=0)

        return jax.tree.map(put, state, after), outcome

    state, outcomes = jax.lax.scan(advance_block, state, jnp.arange(0, config.pairs, size))
    return state, jax.tree.map(lambda x: x.reshape(config.pairs, *x.shape[2:]), outcomes)


def _summary(outcomes: PairOutcome, gradient: Theta) -> EstimateInfo:
    pairs = outcomes.loss.shape[0]
    deviations = jax.tree.map(lambda g, mean: g - mean, outcomes.gradient, gradient)
    variance_of_mean = jnp.square(optax.tree.norm(deviations)) / (pairs * (pairs - 1.0))
    return EstimateInfo(
        meta_loss=jnp.mean(outcomes.loss),
        signal_to_noise=optax.tree.norm(gradient) / jnp.sqrt(variance_of_mean),
        perturbation_norm=jnp.mean(outcomes.perturbation_norm),
        diverged_pairs=jnp.sum(outcomes.diverged, dtype=jnp.int32),
    )


def _select(condition: Bool[Array, ""], if_true: PairState, if_false: PairState) -> PairState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)
