"""The rim: one meta-step over all tasks as one compiled program, and the state it donates."""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mulo_cli.gradient_estimators.base import EstimateInfo, EstimatorState, GradientEstimator
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.types import Data, PRNGKey, Theta


class Stream(enum.IntEnum):
    """What a run draws randomness for; each has a key of its own, so that no two coincide."""

    BEGINNING = 0
    STEPS = 1
    VALIDATION = 2


def stream(root: PRNGKey, which: Stream) -> PRNGKey:
    """Return the key of one stream of a run."""
    return jax.random.split(root, len(Stream))[which]


class MetaState(NamedTuple):
    """Everything that the next meta-step depends on, besides the root key and the data."""

    theta: Theta
    optimizer_state: optax.OptState
    estimators: tuple[EstimatorState, ...]
    """One state per task."""
    step: Int[Array, ""]
    """Meta-steps done."""


class MetaStepInfo(NamedTuple):
    """What one meta-step tells about itself."""

    estimates: tuple[EstimateInfo, ...]
    """One per task."""
    gradient_norm: Float[Array, ""]
    """Global norm of the gradient averaged over tasks, before clipping."""
    theta_is_finite: Bool[Array, ""]
    """Asked of theta itself: a bounded loss hides a theta that is not."""


def no_info(tasks: int) -> MetaStepInfo:
    """Return what stands for the info of a step over so many tasks before there was one."""
    none = jnp.float32(0)
    estimate = EstimateInfo(none, none, none, jnp.int32(0))
    return MetaStepInfo((estimate,) * tasks, none, jnp.bool_(True))


MetaStep: TypeAlias = Callable[
    [MetaState, PRNGKey, tuple[Data, ...]], tuple[MetaState, MetaStepInfo]
]
"""(state, root key, data of each task) -> (next state, info); compiled, donates the state."""


def make_init(
    learned_optimizer: LearnedOptimizer,
    estimators: Sequence[GradientEstimator],
    optimizer: optax.GradientTransformation,
) -> Callable[[PRNGKey], MetaState]:
    """Return the compiled function root key -> state before the first meta-step."""

    def init(root: PRNGKey) -> MetaState:
        key_theta, key_estimators = jax.random.split(stream(root, Stream.BEGINNING))
        theta = learned_optimizer.init(key_theta)
        states = tuple(
            estimator.init(jax.random.fold_in(key_estimators, i), theta)
            for i, estimator in enumerate(estimators)
        )
        return MetaState(theta, optimizer.init(theta), states, jnp.zeros((), jnp.int32))

    return jax.jit(init)


def make_meta_step(
    estimators: Sequence[GradientEstimator], optimizer: optax.GradientTransformation
) -> MetaStep:
    """Return the compiled meta-step: estimate per task, average, one update of theta.

    The randomness of a step is fold_in(key of the steps, step), of task i in it fold_in(that, i).
    """

    def meta_step(
        state: MetaState, root: PRNGKey, data: tuple[Data, ...]
    ) -> tuple[MetaState, MetaStepInfo]:
        key = jax.random.fold_in(stream(root, Stream.STEPS), state.step)
        gradients, states, infos = [], [], []
        for i, estimator in enumerate(estimators):
            gradient, estimator_state, info = estimator.estimate(
                jax.random.fold_in(key, i), state.theta, state.estimators[i], data[i]
            )
            gradients.append(gradient)
            states.append(estimator_state)
            infos.append(info)
        mean = jax.tree.map(lambda *g: sum(g) / len(g), *gradients)
        updates, optimizer_state = optimizer.update(mean, state.optimizer_state, state.theta)
        theta = optax.apply_updates(state.theta, updates)
        next_state = MetaState(theta, optimizer_state, tuple(states), state.step + 1)
        finite = jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(theta)]))
        return next_state, MetaStepInfo(tuple(infos), optax.tree.norm(mean), finite)

    return jax.jit(meta_step, donate_argnums=0)
