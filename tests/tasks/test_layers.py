"""Every layer of a network is seen: what it reads, what it puts out, in forward order."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.mup.kinds import ParamRole, RoleKind
from mulo_cli.studies.tensors import leaf_of
from mulo_cli.tasks.layers import NAMESAKE, watched

DEPTH, WIDTH, BATCH = 3, 8, 5


class Block(nn.Module):
    """A module that names a layer `b` before `a`, sows between them, and returns two values."""

    @nn.compact
    def __call__(self, x, _=None):
        x = x + nn.Dense(WIDTH, name="b")(x)
        self.sow("intermediates", "inside", 2.0 * x)
        return nn.Dense(WIDTH, name="a")(x), None


class Network(nn.Module):
    """An embedding, blocks in a loop or stacked, a head whose output is the logits."""

    stacked: bool

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, WIDTH, name="z_embed")(tokens)
        if self.stacked:
            axes = {"params": 0, "intermediates": 0}
            make = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=DEPTH)
            x, _ = make(name="tower")(x, None)
        else:
            for number in range(DEPTH):
                x, _ = Block(name=f"tower_{number}")(x)
        return nn.Dense(4, name="head")(3.0 * x)


ORDER = [
    "z_embed",
    *(f"tower_{number}{part}" for number in range(DEPTH) for part in ("", "/b", "/inside", "/a")),
    "logits",
]


@functools.cache
def seen(stacked: bool):
    network, tokens = Network(stacked), jnp.arange(BATCH * 2).reshape(BATCH, 2)
    params = network.init(jax.random.key(0), tokens)["params"]
    return jax.jit(lambda p: watched(network, p, tokens))(params)


@pytest.mark.parametrize("stacked", [False, True])
def test_layers_come_in_forward_order_and_the_logits_last_and_once(stacked):
    logits, layers = seen(stacked)
    assert list(layers) == ORDER
    assert {name for name, layer in layers.items() if layer.sown is not None} == {
        f"tower_{number}/inside" for number in range(DEPTH)
    }
    np.testing.assert_array_equal(layers["logits"].output, logits)


@pytest.mark.parametrize("stacked", [False, True])
def test_what_a_layer_reads_is_what_it_was_called_with(stacked):
    _, layers = seen(stacked)
    assert layers["z_embed"].reads is None, "tokens are no numbers of floating point"
    before = layers["z_embed"].output
    for number in range(DEPTH):
        block = layers[f"tower_{number}"]
        np.testing.assert_array_equal(block.reads, before)
        middle = layers[f"tower_{number}/inside"].output / 2.0
        np.testing.assert_allclose(layers[f"tower_{number}/a"].reads, middle, rtol=1e-6)
        assert block.output.shape == before.shape, "of two outputs the first, of one block"
        before = block.output
    np.testing.assert_allclose(layers["logits"].reads, 3.0 * before, rtol=1e-6)


def test_a_layer_that_is_called_twice_is_seen_as_it_was_called_last():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            shared = nn.Dense(WIDTH, name="shared")
            return shared(shared(x)) + 1.0

    x = jnp.ones((BATCH, WIDTH))
    params = Twice().init(jax.random.key(0), x)["params"]
    logits, layers = watched(Twice(), params, x)
    np.testing.assert_allclose(layers["shared"].output + 1.0, logits, rtol=1e-6)
    assert not np.array_equal(layers["shared"].reads, x)


def named_layers(names, factor=1.0):
    """Return the layers of a chain of equally large modules, and the logits."""

    class Chain(nn.Module):
        @nn.compact
        def __call__(self, x):
            for name in names:
                x = nn.Dense(WIDTH, name=name)(x)
            return factor * x if factor != 1.0 else x

    x = jnp.ones((BATCH, WIDTH))
    params = Chain().init(jax.random.key(0), x)["params"]
    return watched(Chain(), params, x)


@pytest.mark.parametrize("name", ["readout", "logits"])
def test_a_readout_that_factors_follow_is_the_logits_layer(name):
    logits, layers = named_layers(["a", name], factor=3.0)
    assert list(layers) == ["a", "logits"]
    np.testing.assert_array_equal(layers["logits"].output, logits)
    np.testing.assert_array_equal(layers["logits"].reads, layers["a"].output)


@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize(("name", "shown"), [("readout", "readout"), ("logits", NAMESAKE)])
def test_a_module_with_a_readouts_name_that_is_not_the_last_is_a_layer(name, shown, factor):
    logits, layers = named_layers([name, "b"], factor)
    assert list(layers) == [shown, *(["b"] if factor != 1.0 else []), "logits"]
    np.testing.assert_array_equal(layers["logits"].output, logits)
    assert layers[shown].reads is not None
    role = ParamRole(RoleKind.HIDDEN, (0,), (1,), WIDTH, WIDTH)
    assert leaf_of(f"{name}/kernel", role, (WIDTH, WIDTH), tuple(layers)).layers == (shown,)


def test_a_module_that_hands_the_logits_on_reads_nothing_new():
    class Wrapped(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(WIDTH, name="a")(x)
            return nn.Dropout(0.5, deterministic=True, name="off")(nn.Dense(4, name="head")(x))

    x = jnp.ones((BATCH, WIDTH))
    _, layers = watched(Wrapped(), Wrapped().init(jax.random.key(0), x)["params"], x)
    assert list(layers) == ["a", "logits"]
    np.testing.assert_array_equal(layers["logits"].reads, layers["a"].output)


def test_nobody_pays_for_what_is_not_looked_at():
    """The compiled loss is that of a network that nobody watches."""
    network, tokens = Network(stacked=True), jnp.arange(BATCH * 2).reshape(BATCH, 2)
    params = network.init(jax.random.key(0), tokens)["params"]

    def watching(params):
        return jnp.sum(watched(network, params, tokens)[0] ** 2)

    def plain(params):
        return jnp.sum(network.apply({"params": params}, tokens) ** 2)

    costs = []
    for loss in (watching, plain):
        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        told = compiled.memory_analysis()
        costs.append((compiled.cost_analysis()["flops"], told and told.temp_size_in_bytes))
    assert costs[0] == costs[1]
