"""A small network and the training loop that anybody writes; two optimizers through the door."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import mulo_cli as mulo
from mulo_cli.artefacts.store import load_card, save_artefact
from mulo_cli.artefacts.trees import tree_checksum
from mulo_cli.assembly.learned import make_learned_optimizer

ROOT = Path(__file__).parents[2]
DESK = ROOT / "assets" / "mulo-m-desk"
ARCHITECTURES = ("small_fc_lopt", "velo")
WIDTH, FEATURES, CLASSES, EXAMPLES = 16, 5, 3, 32
STEPS = 50
FEW = 3
"""Steps after which two ways are compared."""

TOLERANCE = 2e-5
"""Between programs that compute the same: a few float32 roundings of numbers of size one, passed
on through a handful of steps of size 0.1."""

VELO = {"step_size": 0.1, "hidden_size": 4, "lstm_size": 8, "bank_size": 4}


class Network(nn.Module):
    width: int = WIDTH

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width, use_bias=False)(x))
        x = nn.relu(nn.Dense(self.width)(x))
        return mulo.Readout(CLASSES)(x)


def init(width: int = WIDTH):
    return lambda key: Network(width).init(key, jnp.zeros((1, FEATURES)))["params"]


def roles():
    return mulo.infer_roles(init(8), init(WIDTH))


def drawn(seed: int = 0):
    return init()(jax.random.key(seed))


def save_velo(path: Path) -> Path:
    """Write an artefact of a VeLO with meta-parameters drawn at random: its steps are large."""
    shapes = jax.eval_shape(make_learned_optimizer("velo", VELO, "mup").init, jax.random.key(0))
    generator = np.random.default_rng(0)
    theta = jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * generator.standard_normal(leaf.shape), jnp.float32), shapes
    )
    card = dataclasses.replace(
        load_card(DESK),
        architecture="velo",
        settings=VELO,
        meta_parameters=sum(leaf.size for leaf in jax.tree.leaves(theta)),
        checksum=tree_checksum(theta),
        last_checksum=None,
        parity=None,
    )
    save_artefact(path, card, theta, None)
    return path


def data(seed: int = 0):
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((EXAMPLES, FEATURES), np.float32)
    return jnp.asarray(inputs), jnp.asarray(np.abs(inputs).argmax(1) % CLASSES, jnp.int32)


def loss_of(params, inputs, labels):
    logits = Network().apply({"params": params}, inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.astype(jnp.float32).mean()


def step_with(tx):
    """Return (params, state, inputs, labels) -> (params, state, loss)."""

    def step(params, state, inputs, labels):
        loss, grads = jax.value_and_grad(loss_of)(params, inputs, labels)
        updates, state = tx.update(grads, state, params, loss=loss)
        return optax.apply_updates(params, updates), state, loss

    return step


def train(tx, steps: int, params=None):
    """Return what comes out of a loop: params, state, losses."""
    params = drawn() if params is None else params
    state, step, losses = tx.init(params), jax.jit(step_with(tx)), []
    for _ in range(steps):
        params, state, loss = step(params, state, *data())
        losses.append(float(loss))
    return params, state, losses


class Learned(NamedTuple):
    """A learned optimizer, and what is asked of it again and again.

    Attributes:
        path: of its artefact.
        tx: the transformation.
        update: `tx.update`, compiled.
        step: one step of the loop, compiled.
    """

    path: Path
    tx: optax.GradientTransformationExtraArgs
    update: Callable[..., Any]
    step: Callable[..., Any]

    def trained(self, params=None, steps: int = FEW):
        """Return params, state and losses after some steps."""
        params = drawn() if params is None else params
        state, losses = self.tx.init(params), []
        for _ in range(steps):
            params, state, loss = self.step(params, state, *data())
            losses.append(float(loss))
        return params, state, losses


def learned(path: Path) -> Learned:
    """Return what the front door gives for the network."""
    tx = mulo.learned_optimizer(path, roles=roles(), num_steps=STEPS)
    return Learned(path, tx, jax.jit(tx.update), jax.jit(step_with(tx)))


@functools.cache
def gradients():
    """Return the gradients at the beginning."""
    with jax.ensure_compile_time_eval():  # whoever asks first may be tracing
        return jax.jit(jax.grad(loss_of))(drawn(), *data())


def same(found, expected, tolerance: float = TOLERANCE):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance
        )
