"""What muP is for: with it, networks of all widths train alike; without it, they do not.

The same optimizer with the same hyper-parameters trains MLPs of widths 64 to 1024 on the same
batches. Distance between two loss curves: root mean square of the difference of smoothed log
losses. Averaging over seeds takes out what initialisation does to a narrow network.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.assembly.learned import load_learned_optimizer
from mulo_cli.inner_training.state import init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from tests.worlds import digits_task

WIDTHS = (64, 256, 1024)
STEPS, SEEDS, SMOOTHING = 60, 2, 10
ASSETS = Path(__file__).parent.parent.parent / "assets"


@pytest.fixture(scope="module", autouse=True)
def optax_promotes():
    """Let optax's Adam raise a float to an integer power, which strict mode forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def loss_curve(width: int, parametrization: str, build) -> np.ndarray:
    """Return the smoothed log loss of one width, averaged over seeds."""
    task = digits_task(width, parametrization, batch_size=64)

    def train(key):
        key_init, key_data = jax.random.split(key)
        optimizer = build(task.roles)
        state = init_inner_state(task, optimizer, key_init)
        return unroll(task, optimizer, state, task.data, key_data, jnp.arange(STEPS))[1]

    losses = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(3), SEEDS))
    means = np.asarray(losses).mean(axis=0).reshape(-1, SMOOTHING).mean(axis=1)
    return np.log(means)


def spread(parametrization: str, build) -> float:
    """Return the largest distance between the curve of any width and that of the narrowest."""
    curves = [loss_curve(width, parametrization, build) for width in WIDTHS]
    return max(float(np.sqrt(np.mean((c - curves[0]) ** 2))) for c in curves[1:])


def hand_designed(name: str, learning_rate: float):
    entry = OPTIMIZERS[name]
    hyper = {**entry.defaults, "learning_rate": learning_rate}
    make = entry.under(entry.parametrization)
    return lambda roles: make(hyper, roles, jnp.int32(STEPS))


def test_widths_train_alike_under_mup_and_not_under_sp():
    """The same step size in both; SP's effective step grows with width until it is too large."""
    under_mup = spread("mup", hand_designed("muadam", 0.05))
    under_sp = spread("sp", hand_designed("adamw", 0.05))
    assert under_mup < 0.15
    assert under_sp > 3 * under_mup


@pytest.mark.parametrize("name", ["mulo-m-desk"])
def test_a_learned_optimizer_meta_trained_on_narrow_networks_trains_wide_ones_alike(name):
    """The artefact saw widths 16 to 64 only; 1024 is 16 times wider."""
    _, optimizer, theta = load_learned_optimizer(ASSETS / name)
    found = spread("mup", lambda roles: optimizer.build(theta, roles, jnp.int32(STEPS)))
    assert found < 0.15


def test_mup_keeps_the_update_of_a_hidden_layer_from_growing_with_width():
    """First step of Adam: every coordinate moves by the rate, under muP hidden ones by 1/width."""
    moved = {}
    for width in (64, 256):
        task = digits_task(width, "mup")
        optimizer = hand_designed("muadam", 1e-2)(task.roles)
        state = init_inner_state(task, optimizer, jax.random.key(0))
        gradients_of = jax.jit(jax.grad(lambda p, b, t=task: t.loss(p, b)[0]))
        update = jax.jit(optimizer.update)
        # one step moves the (zero) readout; only then do hidden layers get gradients
        for step in range(2):
            batch = task.batch(task.data, jax.random.key(1), jnp.int32(step))
            gradients = gradients_of(state.params, batch)
            updates, opt_state = update(gradients, state.optimizer_state, state.params)
            state = state._replace(
                params=optax.apply_updates(state.params, updates), optimizer_state=opt_state
            )
        moved[width] = float(jnp.abs(updates["hidden_0"]["kernel"]).mean())
    np.testing.assert_allclose(moved[64] / moved[256], 4.0, rtol=0.2)
