"""What every network promises under muP and under standard parametrization.

Its shapes, how many matrices it has, how each parameter is drawn, and that it starts the same at
every width. What training does to it is the business of `tests/mup`; what one kind of network
promises besides, of `tests/optimizees`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.mup.initializers import TRUNCATION
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.tasks.base import LOSSES, network_init
from mulo_cli.tasks.layers import LOGITS, watched
from tests.optimizees.networks import (
    BATCH,
    CLASSES,
    NAMES,
    apply,
    build,
    by_name,
    example,
    inputs_of,
    shaken,
    start,
)

MATRICES = {
    "mlp": lambda depth: depth + 1,
    "vit": lambda depth: 6 * depth + 2,  # four of attention and two more a block; patches, readout
    "lm": lambda depth: 6 * depth + 2,
    "gpt": lambda depth: 6 * depth + 2,
}
"""How many weight matrices a network of a given depth has (positions aside): a row for each."""

STREAM_STD = {"mlp": 0.8796, "vit": 1.0, "lm": 1.0, "gpt": 1.0}
"""Deviation of hidden weights under muP, times the root of their fan-in; the MLP's are cut at 2."""

SPREAD = 0.05
"""Five standard errors of the deviation of 5 000 numbers; the smallest kernel has 4 096 or is
looser by its own count."""

ROUNDING = 2e-5
"""Sums of a few hundred float32 numbers of size one, in another order."""

NORMS = ("norm", "norm_1", "norm_2")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["mup", "sp"])
def mup(request):
    return request.param


def biases_of(params) -> dict[str, np.ndarray]:
    """Return the biases of dense layers; a norm's shift is not one of them."""
    return {
        leaf: value
        for leaf, value in by_name(params).items()
        if leaf.endswith("bias") and leaf.split("/")[-2] not in NORMS
    }


def test_every_optimizee_has_its_row_here():
    assert sorted(MATRICES) == sorted(STREAM_STD) == NAMES
    assert OPTIMIZEES["transformer-lm"] is OPTIMIZEES["lm"]


def test_logits_are_finite_and_have_a_column_per_class(name, mup):
    network, params = start(name, mup)
    inputs = inputs_of(name)
    logits = apply(network, params, inputs)
    positions = inputs.shape[1:] if OPTIMIZEES[name].reads == "text" else ()
    assert logits.shape == (BATCH, *positions, CLASSES)
    assert logits.dtype == jnp.float32
    assert bool(jnp.isfinite(logits).all())


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("stacked", [False, True])
def test_depth_counts_blocks_and_the_readout_comes_on_top(name, mup, depth, stacked):
    network = build(name, mup, depth=depth, stacked=stacked)
    shapes = jax.eval_shape(network_init(network, example(name)), jax.random.key(0))
    kernels = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(shapes)
        if path[-1].key in ("kernel", "embedding")
    ]
    assert sum(leaf.shape[0] if leaf.ndim == 3 else 1 for leaf in kernels) == MATRICES[name](depth)


def test_examples_do_not_see_each_other(name, mup, getkey):
    network, params = start(name, mup)
    inputs, order = inputs_of(name), jax.random.permutation(getkey(), BATCH)
    params = shaken(params, getkey())
    logits = apply(network, params, inputs)
    permuted = apply(network, params, inputs[order])
    assert float(logits.std(axis=0).max()) > 100 * ROUNDING, "the test must be able to fail"
    scale = float(jnp.abs(logits).max())
    np.testing.assert_allclose(permuted, logits[order], rtol=0, atol=ROUNDING * scale)
    alone = apply(network, params, inputs[:1])
    np.testing.assert_allclose(alone, logits[:1], rtol=0, atol=ROUNDING * scale)


def test_under_mup_the_loss_starts_at_that_of_guessing(name):
    """A zero readout with a zero bias: log C, whatever the blocks do."""
    network, params = start(name)
    readout = params["readout"]
    assert not np.any(np.asarray(readout["kernel"]))
    assert np.any(np.asarray(readout["bias"]))
    params = {**params, "readout": {**readout, "bias": jnp.zeros_like(readout["bias"])}}
    logits = apply(network, params, inputs_of(name))
    targets = jnp.arange(logits.size // CLASSES, dtype=jnp.int32).reshape(logits.shape[:-1])
    loss = LOSSES[OPTIMIZEES[name].reads](logits, targets % CLASSES)
    assert float(loss) == pytest.approx(math.log(CLASSES), rel=3e-6)  # roundings of float32 sums


def test_hidden_weights_are_normal_of_size_one_over_root_fan_in(name):
    kernels = {k: v for k, v in by_name(start(name, width=128)[1]).items() if k.endswith("kernel")}
    del kernels["readout/kernel"]
    for leaf, kernel in kernels.items():
        scaled = kernel * kernel.shape[-2] ** 0.5
        loose = max(SPREAD, 5 / math.sqrt(2 * scaled.size))
        assert scaled.std() == pytest.approx(STREAM_STD[name], rel=loose), leaf
        assert abs(scaled.mean()) < loose, leaf
        cut = np.abs(scaled).max() <= TRUNCATION * (1 + 1e-6)
        assert cut == (name == "mlp"), leaf


def test_biases_are_standard_normal_under_mup_and_zero_otherwise(name, mup):
    biases = biases_of(start(name, mup)[1])
    assert biases
    if not mup:
        assert not any(bias.any() for bias in biases.values())
        return
    for leaf, bias in biases.items():
        error = 5 / np.sqrt(2 * bias.size)
        assert leaf == "readout/bias" or bias.std() == pytest.approx(1.0, abs=error), leaf
    everything = np.concatenate([bias.ravel() for bias in biases.values()])
    assert everything.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * everything.size))
    assert abs(everything.mean()) < 5 / np.sqrt(everything.size)


@pytest.mark.parametrize("stacked", [False, True])
def test_layers_are_drawn_independently(name, mup, stacked):
    params = by_name(start(name, mup, depth=4, stacked=stacked)[1])
    drawn = [kernel for leaf, kernel in params.items() if leaf.endswith("kernel")]
    tensors = [t for kernel in drawn for t in (kernel if kernel.ndim == 3 else [kernel])]
    seen = {tensor.tobytes() for tensor in tensors if tensor.any()}
    assert len(seen) == sum(1 for tensor in tensors if tensor.any()) >= 3


def test_under_mup_a_network_starts_with_the_same_activations_at_every_width(name):
    sizes = {}
    for width in (64, 1_024):
        network, params = start(name, width=width, depth=2)
        logits, layers = jax.jit(functools.partial(watched, network))(params, inputs_of(name))
        sizes[width] = {
            layer: float(jnp.std(found.output))
            for layer, found in layers.items()
            if layer != LOGITS and "/" not in layer
        }
        # the readout's bias is divided by the width, its weights are zero
        assert float(jnp.std(logits)) < 3.0 / width
    assert sizes[64].keys() == sizes[1_024].keys()
    # 64 units with their 64 biases tell a deviation to some 10 percent per layer
    np.testing.assert_allclose([*sizes[64].values()], [*sizes[1_024].values()], rtol=0.3)
