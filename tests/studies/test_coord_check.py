"""A coordinate check measures what it says, and tells right parametrizations from wrong ones."""

import dataclasses
import json
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.coordinates import CoordinateCheck, CoordinateRecord, check_coordinates
from mulo_cli.results.store import to_line
from mulo_cli.studies.coord_check import (
    CoordinateConfig,
    Moved,
    compile_check,
    layer_outputs,
    measure,
)
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.studies.lanes import lane_programs, seed_keys
from mulo_cli.tasks.base import TaskAux

DEPTH, BATCH = 2, 32
WIDTH = 7
"""Like no other axis."""

LAYERS = ["input", "hidden_0", "logits"]
CONFIG = CoordinateConfig(steps=4, seeds=3)

WIDTHS = (32, 128, 512)
PHYSICS = CoordinateConfig(steps=10, seeds=8)


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def digits_task(width: int, parametrization: str) -> EvaluationTask:
    section = TaskSection("digits", "mlp", [width], DEPTH, BATCH)
    return build_evaluation_task(section, build_dataset("digits"), width, parametrization)


def named(
    name: str, parametrization: str, learning_rate: float, rule: str | None = None
) -> NamedOptimizer:
    """Return an optimizer for networks of a parametrization, with the rule of that or another."""
    entry = OPTIMIZERS[name]
    hyper = {**entry.defaults, "learning_rate": learning_rate}
    make = entry.under(rule or parametrization)
    return NamedOptimizer(name, parametrization, make, hyper, hyper, None)


def records_of(
    width: int, optimizer: NamedOptimizer, config: CoordinateConfig = CONFIG
) -> list[CoordinateRecord]:
    task = digits_task(width, optimizer.parametrization)
    told = measure(task, optimizer, compile_check(task, optimizer, config), config, "0.0.0")
    return [record for record in told if isinstance(record, CoordinateRecord)]


@pytest.fixture(scope="module")
def records() -> list[CoordinateRecord]:
    return records_of(WIDTH, named("muadam", "mup", 0.1))


# --- What is measured -----------------------------------------------------------------------------


def test_there_is_a_record_for_each_seed_with_every_layer_once_in_order(records):
    assert [record.seed for record in records] == [0, 1, 2]
    for record in records:
        assert list(record.change) == LAYERS
        assert {len(changes) for changes in record.change.values()} == {CONFIG.steps}
        assert (record.optimizer, record.parametrization, record.real) == ("muadam", "mup", True)
        assert list(json.loads(to_line(record))["change"]) == LAYERS


def test_layers_are_named_by_their_place_and_the_logits_come_last_and_once():
    """Modules within modules have paths; the whole network and its readout are the logits."""
    x, y = jnp.zeros(1), jnp.ones(1)
    attention = {"query": {"__call__": (x,)}, "__call__": (x, y)}
    captured = {
        "stem": {"__call__": (x,)},
        "block": {"attention": attention, "__call__": (x,)},
        "readout": {"__call__": (x,)},
        "__call__": (x,),
    }
    outputs = layer_outputs(TaskAux(jnp.float32(0), y, captured))
    assert isinstance(outputs, OrderedDict)
    assert list(outputs) == ["stem", "block/attention/query", "block/attention", "block", "logits"]
    assert outputs["block/attention"] is y, "the last call"
    assert outputs["logits"] is y


def test_a_change_is_the_deviation_of_the_difference_on_a_probe_batch(records):
    """The same training by hand, looked at after three steps."""
    optimizer = named("muadam", "mup", 0.1)
    task = digits_task(WIDTH, "mup").task

    @jax.jit
    def differences(key):
        lane = lane_programs(task, optimizer.make, CONFIG.steps).start(key, optimizer.hyper)
        probe = task.batch(task.data, lane.key_test, jnp.int32(0))
        by_hand = optimizer.make(optimizer.hyper, task.roles, jnp.int32(CONFIG.steps))
        three = jnp.arange(3, dtype=jnp.int32)
        trained, _ = unroll(task, by_hand, lane.state, task.data, lane.key_data, three)
        before, after = (
            layer_outputs(task.loss(params, probe)[1])
            for params in (lane.state.params, trained.params)
        )
        return {layer: after[layer] - before[layer] for layer in LAYERS}

    for layer, difference in differences(seed_keys([1])[0]).items():
        assert difference.shape == (BATCH, 10 if layer == "logits" else WIDTH)
        # tolerance: two programs round differently, and Adam divides by small gradients
        expected = float(np.asarray(difference).std())
        assert records[1].change[layer][2] == pytest.approx(expected, rel=1e-3)


def test_behind_a_zero_readout_only_the_logits_move_at_the_first_step(records):
    for record in records:
        assert record.change["input"][0] == record.change["hidden_0"][0] == 0.0, "exactly"
        assert record.change["logits"][0] > 0.0
        assert all(changes[1] > 0.0 for changes in record.change.values())


def test_seeds_differ_and_each_is_the_same_however_many_there_are(records):
    fewer = records_of(WIDTH, named("muadam", "mup", 0.1), dataclasses.replace(CONFIG, seeds=2))
    assert fewer == records[:2]
    assert records[0].change["logits"] != records[1].change["logits"]


def test_there_is_an_opportunity_to_stop_after_every_step_and_one_network_at_a_time():
    optimizer, task = named("muadam", "mup", 0.1), digits_task(WIDTH, "mup")
    programs = compile_check(task, optimizer, CONFIG)
    moved = []
    for told in measure(task, optimizer, programs, CONFIG, "0"):
        kernels = sum(x.shape == (WIDTH, WIDTH) for x in jax.live_arrays())
        if isinstance(told, Moved):
            moved.append((told.seed, told.step))
            assert kernels == 3, "the weights and Adam's two moments"
        else:
            assert kernels == 0
    assert moved == [(seed, step) for seed in range(3) for step in range(1, 5)]


def test_the_compiler_tells_how_much_memory_is_needed():
    """At least the state: weights and two moments, in float32; not another ten times as much."""
    widest = WIDTHS[-1]
    need = compile_check(digits_task(widest, "mup"), named("muadam", "mup", 0.1), PHYSICS).memory
    assert 3 * 4 * widest**2 < need < 30 * 4 * widest**2


def test_a_network_that_blows_up_has_diverged():
    found = check_coordinates(records_of(WIDTH, named("muadam", "mup", 1e30)))
    assert found.verdict.layers["logits"] == "diverged"
    assert not found.passed


# --- Physics --------------------------------------------------------------------------------------


def check(optimizer: NamedOptimizer) -> CoordinateCheck:
    return check_coordinates([r for w in WIDTHS for r in records_of(w, optimizer, PHYSICS)])


def test_adam_under_mup_moves_every_layer_equally_far_at_every_width():
    found = check(named("muadam", "mup", 0.1))
    assert found.passed, found.verdict.layers


@pytest.mark.slow
def test_adam_under_standard_parametrization_is_caught():
    found = check(named("adamw", "sp", 0.01))
    assert not found.passed
    assert found.verdict.layers["hidden_0"] == "grows"
    assert found.verdict.layers["logits"] == "grows"


def test_mup_without_its_factor_for_hidden_updates_is_caught_where_it_is_missing():
    """Everything else is muP's: initialisation, readout, zero start."""
    found = check(named("muadam", "mup", 0.1, rule="sp"))
    assert not found.passed
    assert found.verdict.layers["input"] == "stable"
    assert found.verdict.layers["hidden_0"] == "grows"
