"""Multipliers of a network are hyper-parameters of its training: traced, they are what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.searches import build_task_for, build_trials
from mulo_cli.errors import UsageError
from mulo_cli.recipes.grids import Grid
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.evaluate import EvaluationConfig, evaluate
from mulo_cli.studies.lanes import lane_programs
from mulo_cli.studies.tune import compile_tuning, tune
from mulo_cli.tasks.base import task_under

NETWORKS = {
    "mlp": TaskSection("digits", "mlp", [8], 2, 4),
    "mlp, stacked": TaskSection("digits", "mlp:stacked=true", [8], 3, 4),
    "gpt": TaskSection("pydoc", "gpt:length=8", [8], 2, 2),
}
GIVEN = {"input_mult": 4.0, "output_mult": 0.25}


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def trials_of(grid: dict, name: str = "muadam"):
    return build_trials(name, "none", Grid({k: tuple(v) for k, v in grid.items()}), 1)


def task_of(network: str, options: str = ""):
    section = NETWORKS[network]
    if options:
        joined = section.optimizee + ("," if ":" in section.optimizee else ":") + options
        section = TaskSection(
            section.dataset, joined, section.widths, section.depth, section.batch_size
        )
    (trial,) = trials_of({"learning_rate": [0.01]})
    return build_task_for(trial.optimizer, section, build_dataset(section.dataset))


def moved(params):
    """Return params a step away from their start, where the readout of muP is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    steps = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [x + step for x, step in zip(leaves, steps, strict=True)])


@pytest.mark.parametrize(
    "network",
    [pytest.param(name, marks=pytest.mark.slow if name == "gpt" else ()) for name in NETWORKS],
)
def test_traced_multipliers_equal_those_of_the_network(network):
    options = ",".join(f"{name}={value}" for name, value in GIVEN.items())
    static, plain = task_of(network, options).task, task_of(network).task
    params = moved(plain.init(jax.random.key(0)))
    batch = plain.batch(plain.data, jax.random.key(1), jnp.int32(0))

    def traced(given: dict) -> jax.Array:
        return task_under(plain, {"learning_rate": 0.1, **given}).loss(params, batch)[0]

    expected = static.loss(params, batch)[0]
    assert jax.jit(traced)(GIVEN) == pytest.approx(float(expected), rel=1e-6)
    assert jax.jit(traced)({}) != pytest.approx(float(expected), rel=1e-3)


def test_a_grid_of_multipliers_gives_what_each_gives_alone():
    task = task_of("mlp")
    trials = trials_of(
        {"learning_rate": [0.1], "input_mult": [0.25, 4.0], "output_mult": [0.25, 4.0]}
    )
    config = EvaluationConfig(30, 1, 10, (30,))
    programs = compile_tuning(task, trials, config, 4)
    rows = [r for r in tune(task, trials, config, programs, "0") if hasattr(r, "final_loss")]
    curves = {row.optimizer: row.curve for row in rows}
    assert len({curve[-1] for curve in curves.values()}) == 4
    for trial in trials[1:3]:
        told = evaluate(task, trial.optimizer, config, "0")
        (row,) = (record for record in told if hasattr(record, "final_loss"))
        np.testing.assert_allclose(curves[trial.optimizer.name], row.curve, rtol=1e-3)


def test_test_accuracy_and_validation_are_of_the_network_under_its_multipliers():
    """A negative output turns the most likely class into the least likely one."""
    task = task_of("mlp")
    programs = lane_programs(task.task, trials_of({"learning_rate": [0.1]})[0].optimizer.make, 1)
    hyper = {"learning_rate": 0.1, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
    lane = programs.start(jax.random.key(0), hyper)
    lane = lane._replace(state=lane.state._replace(params=moved(lane.state.params)))
    batches = jnp.arange(4)
    plain = programs.validation_loss(lane, hyper, task.test_data, batches)
    turned = {**hyper, "output_mult": -1.0}
    assert programs.validation_loss(lane, turned, task.test_data, batches) != plain
    one = {**hyper, "output_mult": 1.0}
    assert programs.validation_loss(lane, one, task.test_data, batches) == pytest.approx(plain)
    turned_accuracy = programs.test_accuracy(lane, turned, task.test_data)
    assert programs.test_accuracy(lane, hyper, task.test_data) != turned_accuracy


def test_a_network_without_multipliers_says_so():
    task = task_of("mlp").task._replace(under_multipliers=None)
    with pytest.raises(UsageError, match="has no input_mult"):
        task_under(task, {"input_mult": 2.0})
    assert task_under(task, {"learning_rate": 0.1}) is task
