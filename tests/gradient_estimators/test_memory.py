"""An estimator keeps networks and accumulators, and next to nothing besides: shapes tell."""

import pytest

from mulo_cli.gradient_estimators.antithetic import EstimatorConfig
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.tasks.base import count_parameters
from tests.benchmarks.pes_memory import make_optimizer, parts_of, shapes_of
from tests.worlds import digits_task

FLOAT32 = 4
PAIRS, RUNS = 8, 16
MORE = 1.1
"""The state may be a tenth larger than the networks and accumulators in it."""


@pytest.mark.parametrize("name", ["small_fc_lopt:4", "small_fc_lopt:32", "velo:4"])
def test_the_state_of_pes_is_its_networks_and_their_accumulators_and_little_else(name):
    task, optimizer = digits_task(256), make_optimizer(name)
    estimator = pes(task, optimizer, EstimatorConfig(PAIRS, PAIRS, 0.01, 50, 100, 1_000))
    parts = parts_of(shapes_of(estimator, optimizer)[2])
    parameters = RUNS * count_parameters(task)
    assert parts.network == FLOAT32 * parameters
    assert 4.0 <= parts.accumulators / parts.network <= 4.0 * MORE
    assert parts.excess <= MORE
