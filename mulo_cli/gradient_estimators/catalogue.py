"""Every gradient estimator by name."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from mulo_cli.gradient_estimators.antithetic import EstimatorConfig
from mulo_cli.gradient_estimators.base import GradientEstimator
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.gradient_estimators.truncated_es import truncated_es
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.tasks.base import Task


@runtime_checkable
class MakeEstimator(Protocol):
    """Bind an estimator to one task and one learned optimizer."""

    def __call__(
        self, task: Task, learned_optimizer: LearnedOptimizer, config: EstimatorConfig
    ) -> GradientEstimator:
        """Return the estimator."""
        ...


GRADIENT_ESTIMATORS: Mapping[str, MakeEstimator] = {"pes": pes, "truncated-es": truncated_es}
