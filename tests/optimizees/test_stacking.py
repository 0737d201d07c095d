"""Nobody sees how blocks are kept: a stacked network is the same network as one of blocks apart.

The same outputs by the same names, the same training with every optimizer; above all a learned
optimizer treats sixteen stacked matrices as sixteen tensors.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.mup.roles import Roles, infer_roles
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.tasks.base import LOSSES, network_init
from mulo_cli.tasks.layers import watched
from mulo_cli.types import Params
from tests.learned_optimizers.architectures import NAMES as ARCHITECTURES
from tests.learned_optimizers.architectures import make, theta_of
from tests.optimizees.networks import (
    BATCH,
    CLASSES,
    NAMES,
    WIDTH,
    apply,
    build,
    by_name,
    example,
    inputs_of,
    shaken,
    start,
    unstacked,
)

STACK = {"mlp": "hidden", "vit": "blocks", "lm": "blocks", "gpt": "blocks"}
STEPS = 3


def blocks_in(name: str, depth: int) -> int:
    return depth - 1 if name == "mlp" else depth


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def roles_of(name: str, depth: int, *, stacked: bool) -> Roles:
    inits = [
        network_init(build(name, width=width, depth=depth, stacked=stacked), example(name))
        for width in (2 * WIDTH, WIDTH)
    ]
    return infer_roles(*inits, readout="forward")


def test_outputs_and_what_layers_do_are_those_of_the_blocks_apart(name, getkey):
    depth = 3
    network, params = start(name, depth=depth, stacked=True)
    params = shaken(params, getkey())
    apart = unstacked(params, STACK[name], blocks_in(name, depth))
    plain = build(name, depth=depth, stacked=False)
    assert jax.tree.structure(start(name, depth=depth, stacked=False)[1]) == jax.tree.structure(
        apart
    )
    found, expected = (
        jax.jit(functools.partial(watched, one))(given, inputs_of(name))
        for one, given in ((network, params), (plain, apart))
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)
    assert list(found[1]) == list(expected[1]), "the same layers in the same order"
    captured, wanted = by_name(found[1]), by_name(expected[1])
    assert captured.keys() == wanted.keys()
    for place, output in wanted.items():
        np.testing.assert_allclose(captured[place], output, rtol=1e-3, atol=1e-4, err_msg=place)


def test_a_stack_of_other_blocks_is_another_network(name, getkey):
    depth = 3
    network, params = start(name, depth=depth, stacked=True)
    params, inputs = shaken(params, getkey()), inputs_of(name)
    turned = {**params, STACK[name]: jax.tree.map(lambda x: x[::-1], params[STACK[name]])}
    before, after = apply(network, params, inputs), apply(network, turned, inputs)
    assert float(jnp.abs(before - after).max()) > 1e-3


class Trained(NamedTuple):
    """What a few steps on one batch did."""

    params: Params
    moved: Params
    """The sum of all updates; the difference of params would be rounded as they are."""
    losses: jax.Array


def trained(name: str, params, optimizer, depth: int, *, stacked: bool) -> Trained:
    """Train a few steps, all on one batch."""
    network = build(name, depth=depth, stacked=stacked)
    inputs = inputs_of(name)
    shape = (BATCH, *inputs.shape[1:]) if OPTIMIZEES[name].reads == "text" else (BATCH,)
    targets = jnp.arange(np.prod(shape), dtype=jnp.int32).reshape(shape) % CLASSES
    loss_of = LOSSES[OPTIMIZEES[name].reads]

    def loss(params):
        return loss_of(network.apply({"params": params}, inputs), targets)

    def step(carry, _):
        params, state, moved = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params, loss=value)
        params, moved = (jax.tree.map(jnp.add, old, updates) for old in (params, moved))
        return (params, state, moved), value

    nothing = jax.tree.map(jnp.zeros_like, params)
    carry = (params, optimizer.init(params), nothing)
    (params, _, moved), losses = jax.jit(lambda c: jax.lax.scan(step, c, length=STEPS))(carry)
    return Trained(params, moved, losses)


def learned(architecture: str, roles: Roles):
    optimizer: LearnedOptimizer = make(architecture)
    return optimizer.build(theta_of(architecture), roles, jnp.int32(50))


@pytest.mark.parametrize(
    ("architecture", "name", "depth", "decades"),
    [
        ("small_fc_lopt", "mlp", 4, 2.0),
        pytest.param("velo", "mlp", 4, 2.0, marks=pytest.mark.slow),
        *(
            pytest.param(architecture, "mlp", 17, 2.0, marks=pytest.mark.slow)
            for architecture in ARCHITECTURES
        ),
        *(
            pytest.param(architecture, name, 3, 1.0, marks=pytest.mark.slow)
            for architecture in ARCHITECTURES
            for name in ("vit", "lm", "gpt")
        ),
    ],
)
def test_a_learned_optimizer_treats_stacked_matrices_as_tensors_of_their_own(
    name, depth, decades, architecture, getkey
):
    """Hidden matrices (sixteen, in an MLP of depth 17), each with statistics of its own.

    The blocks' scales differ by decades, so that statistics over the stack would show.
    """
    _, params = start(name, depth=depth, stacked=True)
    params = shaken(params, getkey())
    count = blocks_in(name, depth)
    scales = jnp.float32(10.0) ** jnp.linspace(-decades / 2, decades / 2, count)
    params[STACK[name]] = jax.tree.map(
        lambda x: x * scales.reshape(-1, *(1,) * (x.ndim - 1)), params[STACK[name]]
    )
    apart = unstacked(params, STACK[name], count)
    ends = []
    for given, stacked in ((params, True), (apart, False)):
        roles = roles_of(name, depth, stacked=stacked)
        built = learned(architecture, roles)
        ends.append(trained(name, given, built, depth, stacked=stacked))
    found, expected = ends
    np.testing.assert_allclose(found.losses, expected.losses, rtol=2e-4)
    moved = by_name(unstacked(found.moved, STACK[name], count))
    wanted = by_name(expected.moved)
    assert moved.keys() == wanted.keys()
    # gradients of a stack are summed in another order; statistics over a stack show with 1e-1
    assert max(distances(moved, wanted).values()) < 0.05


def distances(found, expected) -> dict[str, float]:
    """Return how far updates lie apart, leaf by leaf, in lengths of the expected one.

    The keys' biases are left out: attention does not feel them (they add the same to every logit
    of a query), so that their gradients are nothing but rounding.
    """
    felt = {leaf: value for leaf, value in expected.items() if not leaf.endswith("key/bias")}
    assert all(value.any() for value in felt.values())
    return {
        leaf: float(np.linalg.norm(found[leaf] - value) / np.linalg.norm(value))
        for leaf, value in felt.items()
    }


def test_hand_designed_optimizers_and_mup_see_through_a_stack(getkey):
    depth = 3
    _, params = start("vit", depth=depth, stacked=True)
    params = shaken(params, getkey())
    apart = unstacked(params, "blocks", depth)
    entry = OPTIMIZERS["muadam"]
    ends = []
    with jax.numpy_dtype_promotion("standard"):
        for given, stacked in ((params, True), (apart, False)):
            roles = roles_of("vit", depth, stacked=stacked)
            hyper = {**entry.defaults, "learning_rate": 0.01}
            built = entry.under("mup")(hyper, roles, jnp.int32(50))
            ends.append(trained("vit", given, built, depth, stacked=stacked).losses)
    np.testing.assert_allclose(*ends, rtol=1e-3)


OF_THE_BLOCKS = (
    ("blocks/up", "kernel", -1),
    ("blocks/up", "bias", -1),
    ("blocks/down", "kernel", -2),
)
HIDDEN_UNITS = {
    "mlp": (("input", "kernel", -1), ("input", "bias", -1), ("hidden_0", "kernel", -2)),
    "vit": OF_THE_BLOCKS,
    "lm": OF_THE_BLOCKS,
    "gpt": OF_THE_BLOCKS,
}
"""Where the units of one hidden layer are found: module, parameter, axis."""


def reordered(name: str, params, order):
    """Return params with the units of one hidden layer in another order, in every block."""
    tree = jax.tree.map(jnp.asarray, params)
    for module, parameter, axis in HIDDEN_UNITS[name]:
        inner = tree
        for part in module.split("/"):
            inner = inner[part]
        inner[parameter] = jnp.take(inner[parameter], order, axis=axis)
    return tree


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("mlp", "small_fc_lopt"),
        *(
            pytest.param(name, "small_fc_lopt", marks=pytest.mark.slow)
            for name in ("vit", "lm", "gpt")
        ),
        *(pytest.param(name, "velo", marks=pytest.mark.slow) for name in NAMES),
    ],
)
def test_permuting_hidden_units_permutes_a_learned_optimizers_update(name, architecture, getkey):
    """The same network with its units in another order is trained to the same network."""
    depth, stacked = 2, name != "mlp"
    _, params = start(name, depth=depth)
    params = shaken(params, getkey())
    units = WIDTH if name == "mlp" else 4 * WIDTH
    order = np.random.default_rng(0).permutation(units)
    roles = roles_of(name, depth, stacked=stacked)
    train = functools.partial(
        trained, name, optimizer=learned(architecture, roles), depth=depth, stacked=stacked
    )
    expected = by_name(reordered(name, train(params).moved, order))
    found = by_name(train(reordered(name, params, order)).moved)
    assert max(distances(found, expected).values()) < 0.05
