"""Coordinate checks of every network: under muP a layer moves equally far at every width.

Slopes are fitted to the geometric mean over steps and seeds of the standard deviation of what each
layer's output has changed by, as `mulo coord-check` does, at four widths.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.learned import load_learned_optimizer
from mulo_cli.assembly.tasks import build_task
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.lanes import lane_programs, seed_keys
from tests.mup.test_physics import ASSETS

WIDTHS = (32, 64, 128, 256)
STEPS, SEEDS = 5, 6

TOLERANCE = 0.2
"""Of a slope under muP at these widths and seeds: SP's logits and streams have 0.5 and more."""

DATA = {"mlp": "digits", "vit": "digits", "lm": "pydoc", "gpt": "pydoc"}
NETWORKS = {
    "mlp": "mlp",
    "vit": "vit:heads=2",
    "lm": "lm:heads=2,length=16",
    "gpt": "gpt:length=16",
}
SLOW = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def optax_promotes():
    """Let optax's Adam raise a float to an integer power, which strict mode forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


dataset_of = functools.cache(build_dataset)


def muadam():
    entry = OPTIMIZERS["muadam"]
    hyper = {**entry.defaults, "learning_rate": 0.02}
    return {of: entry.under(of) for of in ("mup", "sp")}, hyper


def learned():
    _, optimizer, theta = load_learned_optimizer(ASSETS / "mulo-m-desk")
    return {"mup": lambda theta, roles, steps: optimizer.build(theta, roles, steps)}, theta


def changes(name: str, width: int, parametrization: str, make, hyper) -> dict[str, float]:
    """Return how far each layer of one width has moved: geometric mean over steps and seeds."""
    dataset = dataset_of(DATA[name])
    section = TaskSection(DATA[name], NETWORKS[name], [width], 2, 16)
    task = build_task(section, dataset, width, parametrization)
    lane = lane_programs(task, make, STEPS)

    def one(key, data):
        running = lane.start(key, hyper)
        probe = task.batch(data, running.key_test, jnp.int32(0))

        def look(lane):
            layers = task.loss(lane.state.params, probe)[1].layers
            return {name: layer.output for name, layer in layers.items() if layer.sown is None}

        at_start = look(running)

        def step(lane_now, number):
            lane_now, _ = lane.train(lane_now, hyper, data, number[None])
            now = look(lane_now)
            return lane_now, {name: jnp.std(now[name] - at_start[name]) for name in now}

        return jax.lax.scan(step, running, jnp.arange(STEPS))[1]

    found = jax.jit(jax.vmap(one, (0, None)))(seed_keys(range(SEEDS)), task.data)
    # under muP the first step moves nothing but the (zero) readout
    moved = {layer: np.asarray(spread)[:, 1:] for layer, spread in found.items()}
    assert all((spread > 0).all() for spread in moved.values())
    return {layer: float(np.exp(np.log(spread).mean())) for layer, spread in moved.items()}


def slopes(name: str, parametrization: str, optimizer) -> dict[str, float]:
    """Return the power of the width that each layer's change follows."""
    makes, hyper = optimizer()
    found = [changes(name, w, parametrization, makes[parametrization], hyper) for w in WIDTHS]
    return {
        layer: float(np.polyfit(np.log(WIDTHS), np.log([one[layer] for one in found]), 1)[0])
        for layer in found[0]
    }


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("mlp", muadam),
        *(pytest.param(name, muadam, marks=SLOW) for name in ("lm", "vit", "gpt")),
        *(pytest.param(name, learned, marks=SLOW) for name in DATA),
    ],
)
def test_under_mup_every_layer_moves_equally_far_at_every_width(name, optimizer):
    found = slopes(name, "mup", optimizer)
    assert len(found) >= (3 if name == "mlp" else 4)
    assert np.isfinite([*found.values()]).all()
    assert max(map(abs, found.values())) < TOLERANCE, found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lm", "vit", "gpt"])
def test_under_sp_layers_move_further_in_wider_networks(name):
    found = slopes(name, "sp", muadam)
    assert max(found.values()) > 2 * TOLERANCE, found
