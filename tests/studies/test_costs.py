"""Costs told from shapes: operations are those of the formulas, memory is near what XLA takes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.datasets.base import Dataset, sample_indices
from mulo_cli.datasets.images import image_dataset
from mulo_cli.inner_training.traced import count_flops, peak_bytes, size_in_bytes, trace
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.recipes.references import parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.costs import TrainingCosts, training_costs
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask, NamedOptimizer
from mulo_cli.studies.lanes import lane_programs, seed_keys, segments
from mulo_cli.types import Batch

CONFIG = EvaluationConfig(steps=100, seeds=1, window=50, at=(100,))

VOCABULARY = 2_000

LEAST, MOST = 0.8, 2.0
"""Bounds of estimate / XLA's own number. Less promises a training that will not fit, more refuses
one that would."""


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def images(side: int = 32) -> Dataset:
    arrays = {
        "inputs": jax.ShapeDtypeStruct((4_096, side, side, 3), jnp.uint8),
        "targets": jax.ShapeDtypeStruct((4_096,), jnp.int32),
    }
    splits = {"train": arrays, "test": arrays}
    return image_dataset(
        "shapes", splits, 1_000, statistics=(0.0, 1.0), source="none", licence="none"
    )


def text() -> Dataset:
    def make_batch(batch_size, length=64):
        def batch(data, key, step):
            starts = sample_indices(key, step, batch_size, 100_000)
            tokens = data["tokens"][starts[:, None] + jnp.arange(length + 1)].astype(jnp.int32)
            return Batch(tokens[:, :-1], tokens[:, 1:])

        return batch

    splits = {
        s: {"tokens": jax.ShapeDtypeStruct((200_000,), jnp.uint16)} for s in ("train", "test")
    }
    sizes = {"train": 100_000, "test": 100_000}
    return Dataset(
        "tokens", "text", splits, sizes, make_batch, (64,), VOCABULARY, True, "none", "none"
    )


def prepared(
    network: str, width: int, depth: int, batch_size: int, optimizer: str = "muadam"
) -> tuple[EvaluationTask, NamedOptimizer]:
    dataset = text() if network.startswith("lm") else images()
    named = build_named_optimizer(parse_optimizer(optimizer))
    section = TaskSection(dataset.name, network, [width], depth, batch_size)
    return build_evaluation_task(section, dataset, width, named.parametrization), named


def costs(*what, config: EvaluationConfig = CONFIG) -> TrainingCosts:
    return training_costs(*prepared(*what), config, data_bytes=0)


# --- Programs -------------------------------------------------------------------------------------


def test_a_matrix_product_is_two_operations_per_multiplication():
    a, b = jnp.ones((8, 3)), jnp.ones((3, 5))
    assert count_flops(trace(jnp.matmul, a, b)) == 2 * 8 * 3 * 5


def test_a_loops_body_counts_as_often_as_it_runs():
    w = jnp.ones((4, 4))

    def loop(x):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)[0]

    assert count_flops(trace(loop, w)) == 7 * 2 * 4**3


def test_of_several_branches_the_dearest_counts():
    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x)

    assert 2 * 4**3 <= count_flops(trace(either, jnp.ones((4, 4)))) <= 2 * 4**3 + 2


def test_what_no_output_depends_on_costs_nothing():
    def wasteful(x):
        x @ x
        return x + 1

    assert count_flops(trace(wasteful, jnp.ones((4, 4)))) == 16


def test_an_array_is_in_memory_until_its_last_reader_is_done():
    x = jnp.ones(1_000)
    assert peak_bytes(trace(lambda x: jnp.sin(jnp.sin(jnp.sin(x))), x)) == 2 * 4_000

    def all_kept(x):
        a, b, c = jnp.sin(x), jnp.cos(x), jnp.tan(x)
        return a * (b * c)

    assert peak_bytes(trace(all_kept, x)) == 4 * 4_000


def test_an_array_that_only_looks_different_takes_no_place_of_its_own():
    x = jnp.ones(1_000)
    assert peak_bytes(trace(lambda x: jnp.sin(x).reshape(10, 100) * 2, x)) == 2 * 4_000
    assert peak_bytes(trace(lambda x: x + jnp.broadcast_to(3.0, (1_000,)), x)) == 4_000


# --- Operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [3, 16])
def test_an_mlps_step_is_six_operations_per_weight_and_example_but_for_its_first_layer(depth):
    """Its first layer needs no gradient of its inputs; at depth 16 hidden layers are one loop."""
    width, batch = 512, 256
    told = costs("mlp", width, depth, batch)
    inputs, hidden, readout = 3_072 * width, (depth - 1) * width**2, width * 1_000
    products = batch * (4 * inputs + 6 * hidden + 6 * readout)
    assert told.parameters == inputs + hidden + readout + depth * width + 1_000
    assert products <= told.flops <= 1.15 * products


@pytest.mark.parametrize("depth", [3, 16])
def test_a_transformers_step_is_that_of_its_matrices_and_its_attention(depth):
    width, batch, length = 256, 8, 64
    told = costs("lm:heads=4", width, depth, batch)
    weights = depth * 12 * width**2 + width * VOCABULARY
    attention = depth * 2 * length * width
    products = 6 * batch * length * (weights + attention)
    assert products <= told.flops <= 1.25 * products


def test_operations_are_what_xla_counts_where_there_is_no_loop():
    task, named = prepared("mlp", 256, 3, 128)
    told = training_costs(task, named, CONFIG, data_bytes=0)
    programs = lane_programs(task.task, named.make, CONFIG.steps)
    lane = jax.eval_shape(programs.start, jax.random.key(0), named.hyper)
    step = jnp.zeros(1, jnp.int32)
    lowered = jax.jit(programs.train).lower(lane, named.hyper, task.task.data, step)
    assert told.flops == pytest.approx(lowered.cost_analysis()["flops"], rel=0.05)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_costs_of_every_optimizer_on_the_shelf_can_be_told(optimizer):
    """Sophia's second derivatives leave calls in the program whose results nobody needs."""
    told = costs("lm:heads=2,length=8", 8, 2, 2, optimizer)
    assert told.flops > 6 * told.parameters
    assert told.network_bytes > 3 * told.parameter_bytes


def test_all_steps_of_all_seeds_are_in_the_sum():
    config = EvaluationConfig(steps=200, seeds=3, window=50, at=(200,))
    told = training_costs(*prepared("mlp", 16, 2, 8), config, data_bytes=1_000)
    assert told.training_flops == 600 * told.flops
    assert told.network_bytes > told.parameter_bytes + told.optimizer_bytes + told.gradient_bytes


# --- Memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "room", "together"),
    [(1, 9, 1), (2, 9, 1), (5, 9, 3), (5, 2.5, 2), (5, 0.5, 1), (64, 99, 16)],
)
def test_memory_is_that_of_the_networks_of_one_program(monkeypatch, seeds, room, together):
    """Beside the data; a program has the seeds that it has room for, but at least one."""
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    config = EvaluationConfig(steps=200, seeds=seeds, window=50, at=(200,))
    told = training_costs(*prepared("mlp", 16, 2, 8), config, data_bytes=1_000)
    monkeypatch.setattr("mulo_cli.studies.costs.PROGRAM_BYTES", int(room * told.network_bytes))
    assert told.together == together
    assert told.memory == 1_000 + together * told.network_bytes


def measured(task: EvaluationTask, named: NamedOptimizer, seeds: int) -> int:
    """Return the bytes that XLA takes for one segment of a training, the data not counted."""
    programs = lane_programs(task.task, named.make, CONFIG.steps)
    start, train = jax.vmap(programs.start, (0, None)), jax.vmap(programs.train, (0, *(None,) * 3))
    lanes = jax.eval_shape(start, seed_keys(range(seeds)), named.hyper)
    (steps, *_) = segments(CONFIG.steps)
    jitted = jax.jit(train, donate_argnums=0)
    taken = jitted.lower(lanes, named.hyper, task.task.data, steps).compile().memory_analysis()
    whole = taken.argument_size_in_bytes + taken.output_size_in_bytes + taken.temp_size_in_bytes
    return whole - taken.alias_size_in_bytes - size_in_bytes(task.task.data)


QUICK = [("mlp", 512, 3, 512, "muadam"), ("lm:heads=3", 192, 2, 16, "muadam")]

LONG = [
    ("mlp", 1024, 3, 4096, "muadam"),
    ("mlp", 1024, 3, 4096, "mulo-m-desk"),
    ("mlp", 1024, 16, 128, "mulo-m-desk"),
    ("vit:heads=3", 192, 3, 1024, "muadam"),
    ("vit:heads=3", 192, 3, 1024, "mulo-m-desk"),
    ("lm:heads=3", 192, 3, 128, "muadam"),
    ("lm:heads=3", 192, 3, 128, "mulo-m-desk"),
]


@pytest.mark.parametrize(
    "what", [*QUICK, *(pytest.param(what, marks=pytest.mark.slow) for what in LONG)], ids=str
)
def test_memory_is_near_what_xla_takes(what):
    if jax.default_backend() != "cpu":
        pytest.skip("fusions differ between devices: the bounds are a CPU's")
    task, named = prepared(*what)
    for lanes in (1, 2):
        config = dataclasses.replace(CONFIG, seeds=2 * lanes)
        told = training_costs(task, named, config, data_bytes=0)
        assert told.together == lanes
        assert LEAST < told.memory / measured(task, named, lanes) < MOST


def test_memory_grows_with_the_batch_and_with_the_width():
    small, longer, wider = (
        costs("mlp", *what) for what in ((64, 3, 64), (64, 3, 640), (128, 3, 64))
    )
    assert longer.activation_bytes > 5 * small.activation_bytes
    assert longer.parameters == small.parameters
    assert wider.optimizer_bytes == pytest.approx(2 * 4 * wider.parameters, abs=64)
    assert not math.isnan(wider.flops)
