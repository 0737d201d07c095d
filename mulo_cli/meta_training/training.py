"""What a meta-training is, and how it is laid out over devices."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import optax

from mulo_cli.gradient_estimators.base import GradientEstimator
from mulo_cli.inner_training.traced import size_in_bytes
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.meta_training.layout import Device, Layout, plan
from mulo_cli.meta_training.validation import ValidationConfig
from mulo_cli.tasks.base import Task
from mulo_cli.types import PRNGKey


@dataclass(frozen=True)
class MetaTraining:
    """Everything static of a meta-training.

    Attributes:
        tasks: one per width.
        learned_optimizer: what is meta-trained.
        estimators: one per task.
        optimizer: of theta.
        validation: when and how theta is validated.
        steps: meta-steps in all.
        seed: root of all randomness.
        checkpoint_every: meta-steps between checkpoints.
        inner_steps: inner steps of one meta-step, all runs together.
    """

    tasks: tuple[Task, ...]
    learned_optimizer: LearnedOptimizer
    estimators: tuple[GradientEstimator, ...]
    optimizer: optax.GradientTransformation
    validation: ValidationConfig
    steps: int
    seed: int
    checkpoint_every: int
    inner_steps: int

    @property
    def root(self) -> PRNGKey:
        """Key of all randomness."""
        return jax.random.key(self.seed)


def lay_out(training: MetaTraining, devices: Sequence[Device]) -> Layout:
    """Return which of some devices does what; what a block costs goes with its network's size."""
    sizes = [size_in_bytes(jax.eval_shape(t.init, jax.random.key(0))) for t in training.tasks]
    blocks = [estimator.blocks for estimator in training.estimators]
    return plan(devices, jax.process_index(), blocks, sizes)
