"""Truncated evolution strategies: antithetic ES on each truncation by itself.

L. Metz et al., "Understanding and correcting pathologies in the training of learned optimizers"
(2019). Cheap and short-sighted: what theta did before this truncation goes uncredited, so its mean
is not the gradient of the loss of whole runs.
"""

from mulo_cli.gradient_estimators.antithetic import EstimatorConfig, antithetic_estimator
from mulo_cli.gradient_estimators.base import GradientEstimator
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.tasks.base import Task
from mulo_cli.types import Theta


def truncated_es(
    task: Task, learned_optimizer: LearnedOptimizer, config: EstimatorConfig
) -> GradientEstimator:
    """Estimate the meta-gradient of the current truncation alone."""
    return antithetic_estimator(task, learned_optimizer, config, _credit_this_truncation)


def _credit_this_truncation(accumulated: Theta, epsilon: Theta) -> Theta:
    del accumulated
    return epsilon
