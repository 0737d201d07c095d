"""A coordinate check measures what it says: every layer, every tensor, whatever did the moving."""

import dataclasses
import gc
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.mup.kinds import leaf_name
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.coordinate_records import CoordinateRecord
from mulo_cli.results.store import to_line
from mulo_cli.studies.coord_check import (
    CoordinateConfig,
    Moved,
    compile_check,
    estimate_memory,
    identity,
    measure,
)
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.studies.lanes import seed_keys

DEPTH, BATCH = 2, 32
WIDTH = 7
"""Like no other axis."""

LAYERS = ["input", "hidden_0", "logits"]
TENSORS = [
    f"{layer}/{kind}" for layer in ("input", "hidden_0", "readout") for kind in ("kernel", "bias")
]
CONFIG = CoordinateConfig(steps=3)
SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def task_of(
    width: int,
    parametrization: str = "mup",
    network: str = "mlp",
    dataset: str = "digits",
    batch_size: int = BATCH,
) -> EvaluationTask:
    section = TaskSection(dataset, network, [width], DEPTH, batch_size)
    return build_evaluation_task(section, build_dataset(dataset), width, parametrization)


def named(learning_rate: float = 0.1, rule: str = "mup") -> NamedOptimizer:
    """Return Adam for networks under muP, with the rule of that or another parametrization."""
    entry = OPTIMIZERS["muadam"]
    hyper = {**entry.defaults, "learning_rate": learning_rate}
    return NamedOptimizer("muadam", "mup", entry.under(rule), hyper, hyper, None)


def moving(update) -> NamedOptimizer:
    """Return an optimizer whose updates are those of a function of (name, parameter)."""

    def updates(gradients, params):
        del gradients
        return jax.tree.map_with_path(lambda path, p: update(leaf_name(path), p), params)

    def make(hyper, roles, num_steps):
        del hyper, roles, num_steps
        return optax.with_extra_args_support(optax.stateless(updates))

    return NamedOptimizer("planted", "mup", make, {}, {}, None)


def records_of(task, optimizer, config=CONFIG, seeds=SEEDS) -> list[CoordinateRecord]:
    programs = compile_check(task, optimizer, config)
    told = measure(task, optimizer, programs, config, seeds, "0.0.0")
    return [record for record in told if isinstance(record, CoordinateRecord)]


@pytest.fixture(scope="module")
def programs():
    return compile_check(task_of(WIDTH), named(), CONFIG)


@pytest.fixture(scope="module")
def records(programs) -> list[CoordinateRecord]:
    told = measure(task_of(WIDTH), named(), programs, CONFIG, SEEDS, "0.0.0")
    return [record for record in told if isinstance(record, CoordinateRecord)]


# --- Records --------------------------------------------------------------------------------------


def test_there_is_a_record_for_each_seed_with_everything_once_in_forward_order(records):
    assert [record.seed for record in records] == [0, 1, 2]
    for record in records:
        line = json.loads(to_line(record))
        for of in (record.layers, line["layers"]):
            assert list(of) == LAYERS
        for of in (record.tensors, line["tensors"]):
            assert list(of) == TENSORS
        assert {tensor.layer for tensor in record.tensors.values()} == {
            "input", "hidden_0", "readout"
        }  # fmt: skip
        assert len(record.losses) == CONFIG.steps
        for layer in record.layers.values():
            assert len(layer.mean) == len(layer.size) == CONFIG.steps + 1
            assert len(layer.change_std) == len(layer.change_l1) == CONFIG.steps
        for tensor in record.tensors.values():
            assert len(tensor.change) == len(tensor.shrinkage) == CONFIG.steps
            assert len(tensor.spectral_change) == (0 if tensor.vector else CONFIG.steps)


def test_a_record_has_the_identity_that_was_told_before(records):
    told = identity(task_of(WIDTH), named(), CONFIG, 1, "0.0.0")
    names = [field.name for field in dataclasses.fields(told)]
    assert [getattr(told, name) for name in names] == [getattr(records[1], n) for n in names]
    assert (told.task, told.width, told.depth, told.code) == ("mlp", WIDTH, DEPTH, "")
    coded = [dataclasses.replace(named(), code=code) for code in ("a", "b")]
    theirs = dataclasses.replace(task_of(WIDTH), code="c")
    codes = [
        identity(task, optimizer, CONFIG, 1, "").code
        for task in (task_of(WIDTH), theirs)
        for optimizer in (named(), *coded)
    ]
    assert codes[0] == ""
    assert len(set(codes)) == len(codes)


def test_seeds_are_the_same_whichever_are_asked_for(programs, records):
    """A check that was interrupted goes on with the seeds that are left."""
    asked = measure(task_of(WIDTH), named(), programs, CONFIG, [2], "0.0.0")
    interrupted = measure(task_of(WIDTH), named(), programs, CONFIG, [1, 0], "0.0.0")
    assert isinstance(next(interrupted), Moved)
    interrupted.close()
    assert [record for record in asked if isinstance(record, CoordinateRecord)] == records[2:]
    assert records[0].layers != records[1].layers


def test_there_is_an_opportunity_to_stop_after_every_step_and_one_network_at_a_time(programs):
    moved = []
    for told in measure(task_of(WIDTH), named(), programs, CONFIG, [0, 4], "0"):
        gc.collect()  # what checks annotations leaves frames in cycles, since Python 3.13
        kernels = sum(x.shape == (WIDTH, WIDTH) for x in jax.live_arrays())
        if isinstance(told, Moved):
            moved.append((told.seed, told.step))
            assert kernels == 4, "the weights now and at the start, Adam's two moments"
        else:
            assert kernels == 0
    assert moved == [(seed, step) for seed in (0, 4) for step in range(1, CONFIG.steps + 1)]


# --- What is measured -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_hand(programs):
    """The same training, looked at by hand: params, layers, gradients before and after steps."""
    task, hyper = task_of(WIDTH).task, named().hyper

    @jax.jit
    def look(params, probe):
        (_, aux), gradient = jax.value_and_grad(task.loss, has_aux=True)(params, probe)
        return aux.layers, gradient

    lane, probe = programs.start(seed_keys([1])[0], hyper, task.data)
    told = []
    for step in range(CONFIG.steps + 1):
        params = jax.device_get(lane.state.params)
        told.append((params, *jax.device_get(look(params, probe))))
        lane, _ = programs.train(lane, hyper, task.data, np.array([step], np.int32))
    return told


def test_layers_are_measured_on_a_probe_batch_beside_their_start(records, by_hand):
    # tolerance: two programs round differently, and Adam divides by small gradients
    for name in LAYERS:
        trace = records[1].layers[name]
        outputs = [layers[name].output for _, layers, _ in by_hand]
        assert outputs[0].shape == (BATCH, 10 if name == "logits" else WIDTH)
        assert trace.reads == pytest.approx(np.sqrt((by_hand[0][1][name].reads ** 2).mean()))
        assert trace.mean == pytest.approx([x.mean() for x in outputs], rel=1e-3, abs=1e-5)
        assert trace.size == pytest.approx([np.abs(x).mean() for x in outputs], rel=1e-3)
        changes = [x - outputs[0] for x in outputs[1:]]
        assert trace.change_std == pytest.approx([x.std() for x in changes], rel=1e-3)
        assert trace.change_l1 == pytest.approx([np.abs(x).mean() for x in changes], rel=1e-3)


def test_tensors_are_measured_by_what_they_are_to_mup(records, by_hand):
    tensors, last = records[1].tensors, CONFIG.steps
    (start, _, _), (end, layers, gradient) = by_hand[0], by_hand[-1]
    rms = lambda x: float(np.sqrt((np.asarray(x) ** 2).mean()))  # noqa: E731
    spectral = lambda x: float(np.linalg.svd(x, compute_uv=False)[0])  # noqa: E731
    change = jax.tree.map(np.subtract, end, start)
    first = tensors["input/kernel"]
    assert (first.kind, first.vector, first.fan_in, first.fan_out) == ("input", False, 64, WIDTH)
    assert first.start == pytest.approx(rms(start["input"]["kernel"]))
    assert first.change[-1] == pytest.approx(rms(change["input"]["kernel"]), rel=1e-3)
    unit = math.sqrt(WIDTH / 64)
    norm = spectral(change["input"]["kernel"]) / unit
    assert first.spectral_change[-1] == pytest.approx(norm, rel=0.02)
    hidden = tensors["hidden_0/kernel"]
    assert (hidden.kind, hidden.fan_in, hidden.fan_out) == ("hidden", WIDTH, WIDTH)
    assert hidden.change == hidden.spectral_change
    assert hidden.change[-1] == pytest.approx(spectral(change["hidden_0"]["kernel"]), rel=0.02)
    assert hidden.start == pytest.approx(spectral(start["hidden_0"]["kernel"]) / 2, rel=0.02)
    bias = tensors["hidden_0/bias"]
    assert (bias.kind, bias.vector, bias.spectral_start) == ("input", True, None)
    assert bias.change[-1] == pytest.approx(rms(change["hidden_0"]["bias"]), rel=1e-3)
    readout = tensors["readout/kernel"]
    added = layers["logits"].reads @ change["readout"]["kernel"] / WIDTH
    assert readout.kind == "output"
    assert readout.change[-1] == pytest.approx(rms(added) / rms(layers["logits"].reads), rel=1e-3)
    assert readout.start == 0.0
    assert readout.shrinkage == (None,) * last
    pushes = {
        name: np.linalg.norm(gradient[layer][leaf]) * np.linalg.norm(change[layer][leaf])
        for name in TENSORS
        for layer, leaf in [name.split("/")]
    }
    for name, push in pushes.items():
        layer, leaf = name.split("/")
        assert tensors[name].effect == pytest.approx(push / sum(pushes.values()), rel=0.01)
        assert tensors[name].gradient == pytest.approx(rms(by_hand[1][2][layer][leaf]), rel=0.01)


def test_behind_a_zero_readout_nothing_else_moves_at_the_first_step(records):
    for record in records:
        for name in ("input", "hidden_0"):
            assert record.layers[name].change_std[0] == record.layers[name].change_l1[0] == 0.0
            assert record.tensors[f"{name}/kernel"].change[0] == 0.0, "exactly"
            assert record.tensors[f"{name}/bias"].change[0] == 0.0
        assert record.layers["logits"].change_std[0] > 0.0
        assert record.tensors["readout/kernel"].change[0] > 0.0
        assert all(layer.change_std[1] > 0.0 for layer in record.layers.values())


@pytest.mark.slow
def test_a_factor_on_outputs_acts_on_what_they_add():
    """Whatever multiplies the readout's product: the measure is of logits."""
    changes = [
        record.tensors["readout/kernel"].change[0]
        for factor in ("", ":output_mult=3")
        for record in records_of(
            task_of(WIDTH, network=f"mlp{factor}"),
            moving(lambda name, p: jnp.full_like(p, 0.5)),
            CoordinateConfig(steps=1),
            [0],
        )
    ]
    assert changes[1] == pytest.approx(3.0 * changes[0], rel=1e-4)


def test_a_network_that_blows_up_leaves_nulls(programs):
    exploding = named(1e30)
    told = measure(task_of(WIDTH), exploding, programs, CONFIG, [0], "0")
    record = next(record for record in told if isinstance(record, CoordinateRecord))
    assert record.layers["logits"].change_std[-1] is None
    assert record.losses[-1] is None
    assert None in record.tensors["hidden_0/kernel"].change
    json.loads(to_line(record))


# --- Memory ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "dataset", "width"),
    [
        ("mlp", "digits", 512),
        ("vit:heads=2,patch=4", "digits", 128),
        ("lm:heads=2,length=16", "pydoc", 128),
    ],
)
def test_memory_is_estimated_beforehand(network, dataset, width):
    task = task_of(width, network=network, dataset=dataset)
    need = compile_check(task, named(), CONFIG).memory
    assert estimate_memory(task, named(), CONFIG) == pytest.approx(need, rel=0.3)
    assert need > 16 * width**2, "at least the weights now and at the start, and two moments"


# --- Physics --------------------------------------------------------------------------------------

WIDTHS = (32, 128, 512)


def slopes(rule: str) -> dict[str, float]:
    """Return the power of the width that each tensor's change follows, over steps and seeds."""
    config = CoordinateConfig(steps=3)
    logs = {name: [] for name in TENSORS}
    for width in WIDTHS:
        found = records_of(task_of(width), named(rule=rule), config, range(4))
        for name in TENSORS:
            moved = [change for record in found for change in record.tensors[name].change if change]
            logs[name].append(np.log(moved).mean())
    return {name: float(np.polyfit(np.log(WIDTHS), of, 1)[0]) for name, of in logs.items()}


@pytest.mark.slow
def test_under_mup_the_change_of_every_tensor_is_free_of_the_width():
    assert {name: slope for name, slope in slopes("mup").items() if abs(slope) > 0.12} == {}


@pytest.mark.slow
def test_a_missing_factor_shows_in_the_tensor_that_lacks_it():
    """Everything else is muP's: initialisation, readout, zero start."""
    found = slopes("sp")
    assert found["hidden_0/kernel"] == pytest.approx(1.0, abs=0.2)
    assert found["input/kernel"] == pytest.approx(0.0, abs=0.2)
