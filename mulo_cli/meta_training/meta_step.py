"""The rim: one meta-step over all tasks, in programs whose results do not depend on the layout.

One program per task unrolls a block of pairs, wherever that is done; then one program credits all
pairs and moves theta, in every process alike. A gradient that is not finite moves nothing.
"""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mulo_cli.gradient_estimators.base import (
    EstimateInfo,
    GradientEstimator,
    PairReports,
    Runs,
)
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.types import Concrete, Data, PRNGKey, Theta


class Stream(enum.IntEnum):
    """What a run draws randomness for; each has a key of its own, so that no two coincide."""

    BEGINNING = 0
    STEPS = 1
    VALIDATION = 2


def stream(root: PRNGKey, which: Stream) -> PRNGKey:
    """Return the key of one stream of a run."""
    return jax.random.split(root, len(Stream))[which]


class Shared(NamedTuple):
    """What every process knows: all that a step depends on, besides runs, root key and data."""

    theta: Theta
    optimizer_state: optax.OptState
    accumulated: tuple[Theta, ...]
    """Per task: perturbations of each pair since its run began."""
    step: Int[Array, ""]
    """Meta-steps done."""
    skipped: Int[Array, ""]
    """Those of them that left theta as it was: their gradient was not finite."""


class MetaState(NamedTuple):
    """Everything that the next meta-step depends on, besides the root key and the data."""

    shared: Shared
    runs: tuple[Runs, ...]
    """Per task, those of its pairs."""

    @property
    def step(self) -> Int[Concrete, ""]:
        """Meta-steps done."""
        return self.shared.step


class MetaStepInfo(NamedTuple):
    """What one meta-step tells about itself."""

    estimates: tuple[EstimateInfo, ...]
    """One per task."""
    gradient_norm: Float[Array, ""]
    """Global norm of the gradient averaged over tasks, before clipping."""
    skipped: Bool[Array, ""]
    """Theta is as it was: the gradient was not finite."""
    theta_is_finite: Bool[Array, ""]
    """Asked of theta itself: a bounded loss hides a theta that is not."""


def no_info(tasks: int) -> MetaStepInfo:
    """Return what stands for the info of a step over so many tasks before there was one."""
    none = jnp.float32(0)
    estimate = EstimateInfo(none, none, none, jnp.int32(0))
    return MetaStepInfo((estimate,) * tasks, none, jnp.bool_(False), jnp.bool_(True))


Unroll: TypeAlias = Callable[
    [Runs, Theta, Int[Array, ""], PRNGKey, Data, Int[Array, ""]], tuple[Runs, PairReports]
]
"""(runs, theta, step, root key, data, first pair) -> (runs, reports), of a block of one task."""

Learn: TypeAlias = Callable[[Shared, PRNGKey, tuple[PairReports, ...]], tuple[Shared, MetaStepInfo]]
"""(shared state, root key, reports of all tasks) -> (shared state, info)."""


def make_init(
    learned_optimizer: LearnedOptimizer,
    estimators: Sequence[GradientEstimator],
    optimizer: optax.GradientTransformation,
) -> Callable[[PRNGKey], MetaState]:
    """Return the function root key -> state before the first meta-step."""

    def init(root: PRNGKey) -> MetaState:
        theta = learned_optimizer.init(jax.random.fold_in(stream(root, Stream.BEGINNING), 0))
        states = [estimator.init(theta) for estimator in estimators]
        none = jnp.zeros((), jnp.int32)
        accumulated = tuple(state.accumulated for state in states)
        shared = Shared(theta, optimizer.init(theta), accumulated, none, none)
        return MetaState(shared, tuple(state.runs for state in states))

    return init


def make_unroll(estimators: Sequence[GradientEstimator], task: int) -> Unroll:
    """Return the first half of a meta-step: one block of one task.

    The randomness of a step is fold_in(key of the steps, step), of task i in it fold_in(that, i).
    """

    def unroll(
        runs: Runs,
        theta: Theta,
        step: Int[Array, ""],
        root: PRNGKey,
        data: Data,
        first: Int[Array, ""],
    ) -> tuple[Runs, PairReports]:
        return estimators[task].unroll(_key_of(root, step, task), theta, runs, data, first)

    return unroll


def make_learn(
    estimators: Sequence[GradientEstimator], optimizer: optax.GradientTransformation
) -> Learn:
    """Return the second half: credit, average over tasks, one update of theta."""

    def learn(
        shared: Shared, root: PRNGKey, reports: tuple[PairReports, ...]
    ) -> tuple[Shared, MetaStepInfo]:
        gradients, accumulated, infos = [], [], []
        for task, estimator in enumerate(estimators):
            key = _key_of(root, shared.step, task)
            gradient, after, info = estimator.credit(
                key, shared.theta, shared.accumulated[task], reports[task]
            )
            gradients.append(gradient)
            accumulated.append(after)
            infos.append(info)
        mean = jax.tree.map(lambda *g: sum(g) / len(g), *gradients)
        finite = _finite(mean)
        shared = _moved(optimizer, shared, mean, finite)._replace(accumulated=tuple(accumulated))
        norm, sound = optax.tree.norm(mean), _finite(shared.theta)
        return shared, MetaStepInfo(tuple(infos), norm, ~finite, sound)

    return learn


def _key_of(root: PRNGKey, step: Int[Array, ""], task: int) -> PRNGKey:
    return jax.random.fold_in(jax.random.fold_in(stream(root, Stream.STEPS), step), task)


def _moved(
    optimizer: optax.GradientTransformation,
    shared: Shared,
    gradient: Theta,
    finite: Bool[Array, ""],
) -> Shared:
    """Return the state after one more step; theta has moved if the gradient is finite."""
    updates, state = optimizer.update(gradient, shared.optimizer_state, shared.theta)
    moved = optax.apply_updates(shared.theta, updates), state
    theta, state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        moved,
        (shared.theta, shared.optimizer_state),
    )
    return shared._replace(
        theta=theta,
        optimizer_state=state,
        step=shared.step + 1,
        skipped=shared.skipped + jnp.where(finite, 0, 1),
    )


def _finite(theta: Theta) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(theta)]))
