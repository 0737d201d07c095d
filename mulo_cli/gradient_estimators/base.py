"""The GradientEstimator interface, and what an estimate tells about itself."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Array, Float, Int

from mulo_cli.types import Data, PRNGKey, Theta

EstimatorState: TypeAlias = Any
"""A pytree that belongs to the estimator and is part of every checkpoint."""


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
        init: (key, theta) -> state.
        estimate: (key, theta, state, data) -> (gradient, state, info); the key is consumed.
    """

    init: Callable[[PRNGKey, Theta], EstimatorState]
    estimate: Callable[
        [PRNGKey, Theta, EstimatorState, Data], tuple[Theta, EstimatorState, EstimateInfo]
    ]
