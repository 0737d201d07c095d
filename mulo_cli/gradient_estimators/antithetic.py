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
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mulo_cli.gradient_estimators.base import (
    EstimateInfo,
    EstimatorState,
    GradientEstimator,
    PairReports,
)
from mulo_cli.gradient_estimators.horizons import (
    HorizonConfig,
    sample_first_horizon,
    sample_horizon,
)
from mulo_cli.gradient_estimators.perturbations import add, sample_perturbation
from mulo_cli.inner_training.state import InnerState, init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.tasks.base import Task
from mulo_cli.tasks.losses import bounded
from mulo_cli.types import Data, PRNGKey, Theta

SIGNS = (1.0, -1.0)

NOT_BEGUN = 0
"""Horizon of a pair before its first run: it is at its end, and begins at the next truncation."""


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
    """What one pair carries from truncation to truncation (in an estimator's runs: N of them)."""

    inner: InnerState
    """Both signs' runs: every leaf has a leading axis of 2."""
    horizon: Int[Array, ""]


class PairKeys(NamedTuple):
    """What one pair draws from in one truncation."""

    run: PRNGKey
    horizon: PRNGKey
    epsilon: PRNGKey
    data: PRNGKey


Credit: TypeAlias = Callable[[Theta, Theta], Theta]
"""(accumulated xi, this truncation's epsilon) -> the perturbation that the losses are due to."""


def antithetic_estimator(
    task: Task, learned_optimizer: LearnedOptimizer, config: EstimatorConfig, credit: Credit
) -> GradientEstimator:
    """Build an estimator of the meta-gradient of the mean loss over runs of `task`."""

    def init(theta: Theta) -> EstimatorState:
        start = partial(start_pair, task, learned_optimizer)
        shapes = jax.eval_shape(start, theta, jax.random.key(0), jnp.int32(NOT_BEGUN))
        return EstimatorState(_zeros(config.pairs, shapes), _zeros(config.pairs, theta))

    def unroll_pairs(
        key: PRNGKey,
        theta: Theta,
        runs: PairState,
        data: Data,
        first: Int[Array, ""],
    ) -> tuple[PairState, PairReports]:
        def advance(i: Int[Array, ""], pair: PairState) -> tuple[PairState, PairReports]:
            keys = pair_keys(key, i)
            return advance_pair(task, learned_optimizer, config, theta, pair, data, keys)

        return jax.vmap(advance)(first + jnp.arange(config.pairs_per_block), runs)

    return GradientEstimator(
        config.pairs,
        config.pairs_per_block,
        init,
        unroll_pairs,
        partial(credit_pairs, config.sigma, credit),
    )


def pair_keys(key: PRNGKey, pair: Int[Array, ""]) -> PairKeys:
    """Return the keys of one pair; `key` is that of the estimate."""
    return PairKeys(*jax.random.split(jax.random.fold_in(key, pair), len(PairKeys._fields)))


def start_pair(
    task: Task,
    learned_optimizer: LearnedOptimizer,
    theta: Theta,
    key: PRNGKey,
    horizon: Int[Array, ""],
) -> PairState:
    """Start a run, equal for both signs; the key is consumed."""
    optimizer = learned_optimizer.build(theta, task.roles, horizon)
    one = init_inner_state(task, optimizer, key)
    return PairState(jax.tree.map(lambda x: jnp.stack([x, x]), one), horizon)


def advance_pair(
    task: Task,
    learned_optimizer: LearnedOptimizer,
    config: EstimatorConfig,
    theta: Theta,
    pair: PairState,
    data: Data,
    keys: PairKeys,
) -> tuple[PairState, PairReports]:
    """Perturb theta both ways and unroll one truncation.

    A run at its horizon starts anew before anything else. The keys are those of this pair in this
    truncation, and consumed.
    """
    restarted = pair.inner.step[0] >= pair.horizon
    horizon = _next_horizon(keys.horizon, pair.horizon, config.horizons)
    pair = _select(restarted, start_pair(task, learned_optimizer, theta, keys.run, horizon), pair)
    epsilon = sample_perturbation(keys.epsilon, theta, config.sigma)
    steps = pair.inner.step[0] + jnp.arange(config.truncation)

    def unroll_sign(
        sign: Float[Array, ""], inner: InnerState
    ) -> tuple[InnerState, Float[Array, " K"]]:
        perturbed = add(theta, epsilon, sign)
        optimizer = learned_optimizer.build(perturbed, task.roles, pair.horizon)
        return unroll(task, optimizer, inner, data, keys.data, steps)

    inner, losses = jax.vmap(unroll_sign)(jnp.array(SIGNS), pair.inner)
    positive, negative = jnp.mean(bounded(losses, task.loss_ceiling), axis=1)
    above = jnp.bool_(False) if task.loss_ceiling is None else losses > task.loss_ceiling
    diverged = jnp.any(~jnp.isfinite(losses) | above)
    reports = PairReports(
        difference=positive - negative,
        loss=0.5 * (positive + negative),
        diverged=diverged.astype(jnp.float32),
        restarted=restarted.astype(jnp.float32),
    )
    return PairState(inner, pair.horizon), reports


def credit_pairs(
    sigma: float,
    credit: Credit,
    key: PRNGKey,
    theta: Theta,
    accumulated: Theta,
    reports: PairReports,
) -> tuple[Theta, Theta, EstimateInfo]:
    """Credit the differences of all pairs' losses: 1/(2 sigma^2) mean_i delta_i xi_i.

    Args:
        sigma: standard deviation of a perturbation.
        credit: which perturbation losses are due to.
        key: of the estimate; each pair's perturbation is drawn from it once more.
        theta: what was perturbed.
        accumulated: perturbations of each pair's run before this truncation.
        reports: of all pairs.

    Returns:
        The gradient, the accumulated perturbations after this truncation, and what there is to
        tell.
    """

    def credit_pair(
        i: Int[Array, ""], before: Theta, report: PairReports
    ) -> tuple[Theta, Theta, Float[Array, ""]]:
        epsilon = sample_perturbation(pair_keys(key, i).epsilon, theta, sigma)
        after = jax.tree.map(
            lambda x, e: jnp.where(report.restarted > 0, 0.0, x) + e, before, epsilon
        )
        credited = credit(after, epsilon)
        scale = report.difference / (2.0 * sigma**2)
        return after, jax.tree.map(lambda x: scale * x, credited), optax.tree.norm(credited)

    pairs = jnp.arange(len(reports.loss))
    accumulated, gradients, norms = jax.vmap(credit_pair)(pairs, accumulated, reports)
    gradient = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
    return gradient, accumulated, _info(reports, norms, gradients, gradient)


def _info(
    reports: PairReports, norms: Float[Array, " N"], gradients: Theta, gradient: Theta
) -> EstimateInfo:
    pairs = len(norms)
    deviations = jax.tree.map(lambda g, mean: g - mean, gradients, gradient)
    variance_of_mean = jnp.square(optax.tree.norm(deviations)) / (pairs * (pairs - 1.0))
    return EstimateInfo(
        meta_loss=jnp.mean(reports.loss),
        signal_to_noise=optax.tree.norm(gradient) / jnp.sqrt(variance_of_mean),
        perturbation_norm=jnp.mean(norms),
        diverged_pairs=jnp.sum(reports.diverged).astype(jnp.int32),
    )


def _next_horizon(key: PRNGKey, horizon: Int[Array, ""], config: HorizonConfig) -> Int[Array, ""]:
    """Draw the horizon of a run that follows one of `horizon` steps, or none."""
    first = sample_first_horizon(key, config)
    return jnp.where(horizon == NOT_BEGUN, first, sample_horizon(key, config))


def _zeros(pairs: int, of_one: PairState | Theta) -> PairState | Theta:
    """Return zeros for so many pairs, of the shapes and types of one."""
    return jax.tree.map(lambda x: jnp.zeros((pairs, *x.shape), x.dtype), of_one)


def _select(condition: Array, if_true: PairState, if_false: PairState) -> PairState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)
