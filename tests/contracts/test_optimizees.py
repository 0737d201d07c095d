"""What every network promises under muP and under standard parametrization.

Its shapes, how many matrices it has, how each parameter is drawn, and that it starts the same at
every width. What training does to it is the business of `tests/mup`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.mup.initializers import TRUNCATION
from mulo_cli.mup.roles import leaf_name
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.tasks.base import network_init
from mulo_cli.tasks.losses import cross_entropy

MATRICES = {"mlp": lambda depth: depth + 1}
"""How many weight matrices a network of a given depth has: one row per optimizee."""

IMAGE = (8, 8)
EXAMPLE = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
WIDTH, DEPTH, CLASSES, BATCH = 256, 3, 10, 64
TRUNCATED_STD = 0.8796
"""True deviation of a standard normal that is cut at two."""

SPREAD = 0.05
"""Five standard errors of the deviation of 5 000 numbers; the smallest kernel has 2 560, drawn
from a cut normal, whose deviation is half as uncertain."""

ROUNDING = 1e-5
"""Sums of a few hundred float32 numbers of size one, in another order."""


@pytest.fixture(params=sorted(OPTIMIZEES))
def name(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["mup", "sp"])
def mup(request):
    return request.param


def build(name: str, mup: bool, width: int = WIDTH, depth: int = DEPTH):
    return OPTIMIZEES[name].make(width=width, depth=depth, num_classes=CLASSES, mup=mup)


def start(name: str, mup: bool, width: int = WIDTH, depth: int = DEPTH, seed: int = 0):
    """Return a network and its params."""
    network = build(name, mup, width, depth)
    return network, jax.jit(network_init(network, EXAMPLE))(jax.random.key(seed))


def leaves(params) -> dict[str, np.ndarray]:
    return {leaf_name(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(params)}


def images(seed: int = 100, batch: int = BATCH):
    return jax.random.normal(jax.random.key(seed), (batch, *IMAGE))


def test_every_optimizee_has_its_row_here():
    assert MATRICES.keys() == OPTIMIZEES.keys()


def test_logits_have_one_row_per_example_and_one_column_per_class(name, mup):
    network, params = start(name, mup)
    logits = network.apply({"params": params}, images())
    assert logits.shape == (BATCH, CLASSES)
    assert logits.dtype == jnp.float32
    assert bool(jnp.isfinite(logits).all())


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_counts_hidden_layers_and_the_readout_comes_on_top(name, mup, depth):
    shapes = jax.eval_shape(network_init(build(name, mup, depth=depth), EXAMPLE), jax.random.key(0))
    matrices = [leaf for leaf in jax.tree.leaves(shapes) if leaf.ndim == 2]
    assert len(matrices) == MATRICES[name](depth)


def test_examples_do_not_see_each_other(name, mup, getkey):
    network, params = start(name, mup)
    inputs, order = images(), jax.random.permutation(getkey(), BATCH)
    # a readout of zeros would hide every mistake
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(getkey(), p.shape), params)
    logits = network.apply({"params": params}, inputs)
    permuted = network.apply({"params": params}, inputs[order])
    assert float(logits.std(axis=0).min()) > 100 * ROUNDING, "the test must be able to fail"
    np.testing.assert_allclose(permuted, logits[order], rtol=ROUNDING, atol=ROUNDING)
    alone = network.apply({"params": params}, inputs[:1])
    np.testing.assert_allclose(alone, logits[:1], rtol=ROUNDING, atol=ROUNDING)


def test_under_mup_the_loss_starts_at_that_of_guessing(name):
    network, params = start(name, mup=True)
    readout = params["readout"]
    assert not np.any(np.asarray(readout["kernel"]))
    assert np.any(np.asarray(readout["bias"]))
    params = {**params, "readout": {**readout, "bias": jnp.zeros_like(readout["bias"])}}
    targets = jnp.arange(BATCH, dtype=jnp.int32) % CLASSES
    loss = cross_entropy(network.apply({"params": params}, images()), targets)
    assert float(loss) == pytest.approx(math.log(CLASSES), rel=1e-6)  # one rounding of float32


def test_weights_are_normal_of_size_one_over_root_fan_in_cut_at_two_deviations(name, mup):
    for leaf, kernel in leaves(start(name, mup)[1]).items():
        if not leaf.endswith("kernel") or (mup and leaf == "readout/kernel"):
            continue
        scaled = kernel * kernel.shape[0] ** 0.5
        assert scaled.std() == pytest.approx(TRUNCATED_STD, rel=SPREAD), leaf
        assert abs(scaled.mean()) < SPREAD, leaf
        assert TRUNCATION - 0.05 < np.abs(scaled).max() <= TRUNCATION * (1 + 1e-6), leaf


def test_biases_are_standard_normal_under_mup_and_zero_otherwise(name, mup):
    biases = {k: v for k, v in leaves(start(name, mup)[1]).items() if k.endswith("bias")}
    assert len(biases) == MATRICES[name](DEPTH)
    if not mup:
        assert not any(bias.any() for bias in biases.values())
        return
    for leaf, bias in biases.items():
        error = 5 / np.sqrt(2 * bias.size)
        assert leaf == "readout/bias" or bias.std() == pytest.approx(1.0, abs=error), leaf
    everything = np.concatenate(list(biases.values()))
    assert everything.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * everything.size))
    assert abs(everything.mean()) < 5 / np.sqrt(everything.size)


def test_layers_are_drawn_independently(name, mup):
    params = leaves(start(name, mup, depth=4)[1])
    drawn = [v.ravel() for v in params.values() if v.shape == (WIDTH, WIDTH)]
    assert len(drawn) == 3
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_under_mup_a_network_starts_with_the_same_activations_at_every_width(name):
    sizes = {}
    for width in (64, 1_024):
        network, params = start(name, True, width)
        logits, captured = network.apply({"params": params}, images(), capture_intermediates=True)
        hidden = {k: v for k, v in captured["intermediates"].items() if k != "readout"}
        hidden.pop("__call__")
        sizes[width] = [float(jnp.std(layer["__call__"][0])) for layer in hidden.values()]
        # the readout's bias is divided by the width, its weights are zero
        assert float(jnp.std(logits)) < 3.0 / width
        assert len(sizes[width]) == DEPTH
    # 64 units with their 64 biases tell a deviation to some 10 percent per layer
    np.testing.assert_allclose(sizes[64], sizes[1_024], rtol=0.3)


def test_multipliers_of_one_change_nothing_and_others_act_on_their_layer(name):
    network, params = start(name, True)
    params = jax.tree.map(lambda p: p + 0.1, params)
    plain = network.apply({"params": params}, images())
    twice = network.clone(output_mult=2.0).apply({"params": params}, images())
    np.testing.assert_array_equal(twice, 2.0 * plain)
    silent = network.clone(input_mult=0.0).apply({"params": params}, images())
    assert float(jnp.std(plain, axis=0).min()) > 100 * ROUNDING
    assert float(jnp.std(silent, axis=0).max()) < ROUNDING, "no example is seen any more"
