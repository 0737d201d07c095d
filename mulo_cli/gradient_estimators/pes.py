"""Persistent evolution strategies (PES).

P. Vicol, L. Metz, J. Sohl-Dickstein, "Unbiased gradient estimation in unrolled computation graphs
with persistent evolution strategies" (2021), Algorithm 2 and equation for antithetic samples:
gradient = 1/(2 sigma^2) mean_i (L_i+ - L_i-) xi_i, with xi_i the sum of all perturbations since the
run of pair i began. Unbiased for the smoothed loss of whole runs, however short the truncation.
"""

from mulo_cli.gradient_estimators.antithetic import EstimatorConfig, antithetic_estimator
from mulo_cli.gradient_estimators.base import GradientEstimator
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.tasks.base import Task
from mulo_cli.types import Theta


def pes(
    task: Task, learned_optimizer: LearnedOptimizer, config: EstimatorConfig
) -> GradientEstimator:
    """Estimate the meta-gradient by persistent evolution strategies."""
    return antithetic_estimator(task, learned_optimizer, config, _credit_all_since_the_start)


def _credit_all_since_the_start(accumulated: Theta, epsilon: Theta) -> Theta:
    del epsilon  # it is part of the sum already
    return accumulated
