"""The GradientEstimator interface, and what an estimate tells about itself.

An estimate has two halves. Unrolling costs all the time, and its pairs can be anywhere: each block
of pairs is a piece of work of its own. Crediting is small, needs but a few numbers of every pair,
and every process does it alike: perturbations are drawn anew from keys, not sent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mulo_cli.types import Concrete, Data, PRNGKey, Theta

Runs: TypeAlias = Any
"""A pytree with a leading axis of N pairs: what pairs carry on, each where it is unrolled."""


class EstimatorState(NamedTuple):
    """What an estimator carries from estimate to estimate; part of every checkpoint."""

    runs: Runs
    accumulated: Theta
    """Perturbations of each pair since its run began: leaves (N, ...)."""


class PairReports(NamedTuple):
    """All that is told of a truncation of N pairs; nothing else ever crosses devices."""

    difference: Float[Concrete, " N"]
    """Bounded loss of the positive sign less that of the negative, mean over the truncation."""
    loss: Float[Concrete, " N"]
    """Bounded loss, mean over both signs."""
    diverged: Float[Concrete, " N"]
    """1 if a sign saw a loss that was not finite or above the task's ceiling, else 0."""
    restarted: Float[Concrete, " N"]
    """1 if the run began anew before this truncation, else 0."""


class EstimateInfo(NamedTuple):
    """Numbers about one estimate; all scalars."""

    meta_loss: Float[Array, ""]
    """Bounded loss, averaged over the truncation's steps, both signs and all pairs."""
    signal_to_noise: Float[Array, ""]
    """Norm of the mean over pairs divided by its standard error; nan for one pair."""
    perturbation_norm: Float[Array, ""]
    """Norm of the perturbation that is credited (for PES the accumulated xi), mean over pairs."""
    diverged_pairs: Int[Array, ""]
    """Pairs of which a sign saw a loss that was not finite or above the task's ceiling."""


class GradientEstimator(NamedTuple):
    """An estimator bound to one task and one learned optimizer.

    Attributes:
        pairs: antithetic pairs `N`.
        pairs_per_block: of them, in a block.
        init: theta -> state before the first estimate; no run has begun.
        unroll: (key, theta, runs, data, first) -> (runs, reports) of a block of pairs, the first of
            which is number `first` of all.
        credit: (key, theta, accumulated, reports) -> (gradient, accumulated, info) of all pairs.
            Both halves of an estimate get the same key.
    """

    pairs: int
    pairs_per_block: int
    init: Callable[[Theta], EstimatorState]
    unroll: Callable[[PRNGKey, Theta, Runs, Data, Int[Array, ""]], tuple[Runs, PairReports]]
    credit: Callable[[PRNGKey, Theta, Theta, PairReports], tuple[Theta, Theta, EstimateInfo]]

    @property
    def blocks(self) -> int:
        """Pieces of work that the pairs make, all alike."""
        return self.pairs // self.pairs_per_block

    def estimate(
        self, key: PRNGKey, theta: Theta, state: EstimatorState, data: Data
    ) -> tuple[Theta, EstimatorState, EstimateInfo]:
        """Do everything in one place, block after block: return gradient, state and info.

        The key is consumed.
        """

        def unroll(block: tuple[Runs, Int[Array, ""]]) -> tuple[Runs, PairReports]:
            return self.unroll(key, theta, block[0], data, block[1])

        shape = self.blocks, self.pairs_per_block
        runs = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), state.runs)
        first = self.pairs_per_block * jnp.arange(self.blocks)
        unrolled = jax.lax.map(unroll, (runs, first))
        runs, reports = jax.tree.map(lambda x: x.reshape(self.pairs, *x.shape[2:]), unrolled)
        gradient, accumulated, info = self.credit(key, theta, state.accumulated, reports)
        return gradient, EstimatorState(runs, accumulated), info
