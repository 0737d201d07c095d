"""Rules of muP, kind by kind, and what they must have in common: two forms, one training.

Expected factors are those of `docs/explanation/optimizers-under-mup.md`, typed here a second time.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.errors import UsageError
from mulo_cli.mup.kinds import ParamRole, RoleKind, leaf_name
from mulo_cli.mup.roles import infer_roles
from mulo_cli.mup.rules import adam_like, lamb, lamb_paper, muon, muon_standard, sgd, standard
from mulo_cli.optimizees.mlp import MLP
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.tasks.base import network_init, with_update_multipliers
from tests.optimizees.networks import build, by_name, example, unstacked

NARROW, N = 16, 32
"""Powers of two: dividing is exact."""

CLASSES = 10
STEPS = jnp.int32(10)

ROUNDING = 1e-5
"""A few float32 operations in another order, relative to the largest number of a tensor."""


@pytest.fixture(scope="module", autouse=True)
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def roles_of(name: str, parametrization: str, **options):
    """Return the roles of one of our networks of width N, as a task has them."""
    narrow, wide = (
        build(name, parametrization, width, depth=2, **options) for width in (NARROW, N)
    )
    return infer_roles(
        network_init(narrow, example(name)),
        network_init(wide, example(name)),
        readout="update" if parametrization == "spectral" else "forward",
    )


def by_leaf(roles, rule) -> dict[str, float]:
    leaves = jax.tree.leaves_with_path(roles, is_leaf=lambda node: isinstance(node, ParamRole))
    return {leaf_name(path): rule(role) for path, role in leaves}


INPUTS = {"gpt": ("embed/embedding", "positions"), "vit": ("embed/kernel", "class_token")}
VECTORS = ("blocks/norm_1/scale", "blocks/norm_2/bias", "blocks/attention/query/bias", "norm/scale")

TABLE = {  # input and vectors, square hidden, up, down, readout and its bias in forms (a), (b)
    adam_like: (1, 1 / N, 1 / N, 1 / (4 * N), (1, 1), (1 / N, 1)),
    sgd: (N, 1, 1, 1, (N, N), (1 / N, 1)),
    lamb: (1, N**-0.5, N**-0.5, (4 * N) ** -0.5, (1, 1), (1, 1)),
    lamb_paper: (1, 1, 1, 1, (1, 1), (1, 1)),
    muon: (1, 1, 2, 0.5, (1, 1), (1 / N, 1)),
    muon_standard: (1, 1, 2, 1, (1, 1), (1, 1)),
    standard: (1, 1, 1, 1, (1, 1), (1, 1)),
}


@pytest.mark.parametrize(("name", "place"), [("gpt", 0), ("gpt", 1), ("vit", 0)])
def test_every_kind_of_leaf_has_the_factor_of_the_table(name, place):
    roles = roles_of(name, ("mup", "spectral")[place])
    for rule, (growing, square, up, down, *forms) in TABLE.items():
        found, readout = by_leaf(roles, rule), forms[place]
        for leaf in (*INPUTS[name], *VECTORS):
            assert found[leaf] == pytest.approx(growing), leaf
        for leaf in ("query", "key", "value", "out"):
            assert found[f"blocks/attention/{leaf}/kernel"] == pytest.approx(square), leaf
        assert found["blocks/up/kernel"] == pytest.approx(up)
        assert found["blocks/down/kernel"] == pytest.approx(down)
        assert found["blocks/up/bias"] == pytest.approx(4 * N if rule is sgd else 1)
        assert (found["readout/kernel"], found["readout/bias"]) == pytest.approx(readout)


def test_factors_relative_to_a_base_network_are_one_at_its_width():
    inits = [
        network_init(MLP(width, 2, CLASSES, readout="normal"), example("mlp"))
        for width in (NARROW, N, 64)
    ]
    at_base = infer_roles(inits[0], inits[1], base=inits[1])
    wider = infer_roles(inits[0], inits[2], base=inits[1])
    for rule in (adam_like, sgd, lamb, lamb_paper):
        assert set(jax.tree.leaves(jax.tree.map(rule, at_base))) == {1.0}, rule.__name__
    assert by_name(jax.tree.map(sgd, wider)) == {
        "input/kernel": 2.0,
        "input/bias": 2.0,
        "hidden_0/kernel": 1.0,
        "hidden_0/bias": 2.0,
        "readout/kernel": 2.0,
        "readout/bias": 2.0,
    }


def test_depth_scaling_acts_on_updates_of_size_one_and_not_on_sgd():
    role = ParamRole(RoleKind.HIDDEN, (0,), (1,), fan_in=4, fan_out=4, update_multiplier=0.5)
    plain = dataclasses.replace(role, update_multiplier=1.0)
    for rule in (adam_like, lamb, lamb_paper, muon, muon_standard, standard):
        assert rule(role) == 0.5 * rule(plain), rule.__name__
    assert sgd(role) == sgd(plain)


@pytest.mark.parametrize("name", ["lm", "vit", "gpt"])
@pytest.mark.parametrize(("power", "expected"), [(0.0, 1.0), (0.5, 0.5), (1.0, 1.0)])
def test_every_transformer_has_depth_scaling(name, power, expected):
    network = build(name, True, N, depth=4, depth_power=power)
    roles = with_update_multipliers(roles_of(name, "mup"), network.update_multipliers)
    found = jax.tree.map(standard, roles)
    assert found["blocks"]["up"]["kernel"] == expected
    assert found["readout"]["kernel"] == 1.0
    assert not build(name, False, N, depth=4, depth_power=power).update_multipliers


# --- Two forms of a readout -----------------------------------------------------------------------


def trained(name: str, divided: bool):
    """Return the logits of a few steps in one of both forms; there is no bias in the readout."""
    hyper = dict(OPTIMIZERS[name].defaults)
    if "eps" in hyper:
        hyper["eps"] = 1e-20  # epsilon sees how large gradients are, and they differ by N
    if name == "sophia":
        hyper["gamma"] = 1e-12  # all is clipped: what is not sees the size of gradients, too

    def init(width):
        def of_key(key):
            keys = jax.random.split(key, 3)
            return {
                "first": jax.random.normal(keys[0], (4, width)),
                "hidden": jax.random.normal(keys[1], (width, width)) / width**0.5,
                "readout": jax.random.normal(keys[2], (width, 3)) / (1 if divided else width),
            }

        return of_key

    roles = infer_roles(init(NARROW), init(N), readout="forward" if divided else "update")
    optimizer = OPTIMIZERS[name].under("mup" if divided else "spectral")(hyper, roles, STEPS)
    x = jax.random.normal(jax.random.key(1), (8, 4))
    y = jax.random.normal(jax.random.key(2), (8, 3))

    def logits(params):
        features = jnp.tanh(jnp.tanh(x @ params["first"]) @ params["hidden"])
        return features @ params["readout"] / (N if divided else 1)

    def loss(params):
        return jnp.mean(jnp.square(logits(params) - y))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params, obj_fn=loss)
        params = optax.apply_updates(params, updates)
        return (params, state), logits(params)

    params = init(N)(jax.random.key(0))
    start = (params, optimizer.init(params))
    return jax.jit(lambda start: jax.lax.scan(step, start, length=4))(start)[1]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("lamb", "sgd") else pytest.mark.slow)
        for name in sorted(set(OPTIMIZERS) - {"adam", "muadam"})
    ],
)
def test_both_forms_of_a_readout_are_one_training(name):
    """Forward factor and N(0, 1), or N(0, 1/n^2) and the update's factor: equal logits."""
    one, other = trained(name, divided=True), trained(name, divided=False)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * float(jnp.abs(one).max()))
    assert float(jnp.abs(one[-1] - one[0]).max()) > 1e-3 * float(jnp.abs(one).max())


# --- Tensors of their own -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lamb", pytest.param("muon", marks=pytest.mark.slow)])
def test_layers_of_a_stack_are_trained_as_if_they_were_apart(name, getkey):
    found = {}
    for stacked in (True, False):
        inits = [
            network_init(MLP(width, 4, CLASSES, stacked=stacked), example("mlp"))
            for width in (NARROW, N)
        ]
        params = stack = jax.jit(
            network_init(MLP(N, 4, CLASSES, readout="normal", stacked=True), example("mlp"))
        )(jax.random.key(0))
        scales = jnp.array([1.0, 10.0, 0.1]).reshape(3, 1, 1)  # a norm over all would mix them
        params["hidden"]["kernel"] = params["hidden"]["kernel"] * scales
        gradients = jax.tree.map(jnp.sin, stack)
        if not stacked:
            params, gradients = (unstacked(tree, "hidden", 3) for tree in (params, gradients))
        entry = OPTIMIZERS[name]
        optimizer = entry.under("mup")(
            entry.defaults, infer_roles(*inits, readout="forward"), STEPS
        )
        updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
        found[stacked] = updates
    apart = unstacked(found[True], "hidden", 3)
    for one, other in zip(jax.tree.leaves(apart), jax.tree.leaves(found[False]), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING * float(jnp.abs(other).max()))


def test_an_update_of_muon_has_the_spectral_norm_that_the_rule_says_in_any_layout(getkey):
    roles = {
        "wide": ParamRole(RoleKind.HIDDEN, (0,), (1,), fan_in=16, fan_out=64),
        "heads": ParamRole(RoleKind.HIDDEN, (0, 1), (2,), fan_in=32, fan_out=16),
        "turned": ParamRole(RoleKind.HIDDEN, (2,), (0,), fan_in=8, fan_out=32, stack_axes=(1,)),
    }
    shapes = {"wide": (16, 64), "heads": (4, 8, 16), "turned": (32, 3, 8)}
    gradients = {name: jax.random.normal(getkey(), shape) for name, shape in shapes.items()}
    entry = OPTIMIZERS["muon"]
    optimizer = entry.under("mup")({**entry.defaults, "learning_rate": 1.0}, roles, STEPS)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(gradients), gradients)
    for name, matrices in {
        "wide": [updates["wide"]],
        "heads": [updates["heads"].reshape(32, 16)],
        "turned": list(updates["turned"].transpose(1, 2, 0)),
    }.items():
        role = roles[name]
        for matrix in matrices:
            assert matrix.shape == (role.fan_in, role.fan_out)
            singular = np.linalg.svd(matrix, compute_uv=False) / (role.fan_out / role.fan_in) ** 0.5
            # five Newton-Schulz iterations leave singular values near 1
            assert singular.min() > 0.5, name
            assert singular.max() < 1.3, name


# --- Sophia's Hessian -----------------------------------------------------------------------------


def test_sophia_divides_by_the_hessian_of_the_objective():
    """Of a quadratic Hutchinson's estimate is exact: signs times H times signs is its diagonal."""
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    roles = {"w": ParamRole(RoleKind.INPUT, (), (0,), fan_in=1, fan_out=3)}
    curvature = jnp.array([1.0, 2.0, 4.0])
    hyper = {**OPTIMIZERS["sophia"].defaults, "gamma": 1e4, "b1": 0.0, "weight_decay": 0.0}
    optimizer = OPTIMIZERS["sophia"].under("sp")(hyper, roles, STEPS)

    def objective(params):
        return 0.5 * jnp.sum(curvature * jnp.square(params["w"]))

    gradients, state = jax.grad(objective)(params), optimizer.init(params)
    _, state = optimizer.update(gradients, state, params, obj_fn=objective)
    updates, _ = optimizer.update(gradients, state, params, obj_fn=objective)
    remembered = (1 - hyper["b2"]) * curvature
    expected = -hyper["learning_rate"] * curvature * params["w"] / (hyper["gamma"] * remembered)
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-4)


def test_sophia_without_an_objective_says_what_it_wants():
    params = {"w": jnp.ones(3)}
    roles = {"w": ParamRole(RoleKind.INPUT, (), (0,), fan_in=1, fan_out=3)}
    optimizer = OPTIMIZERS["sophia"].under("sp")(OPTIMIZERS["sophia"].defaults, roles, STEPS)
    with pytest.raises(UsageError, match="the loss as a function of the parameters") as caught:
        optimizer.update(params, optimizer.init(params), params)
    assert "obj_fn=" in caught.value.hint


# --- Epsilon --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", pytest.param("adopt", marks=pytest.mark.slow)])
def test_scaling_epsilon_is_dividing_it_by_the_width_of_each_leaf(name, getkey):
    roles = roles_of("mlp", "mup", stacked=False)
    params = jax.jit(network_init(build("mlp", True, N, depth=2, stacked=False), example("mlp")))(
        getkey()
    )
    gradients = jax.tree.map(lambda p: 1e-3 * jnp.cos(9.0 * p), params)
    hyper = {**OPTIMIZERS[name].defaults, "eps": 1e-3}

    @jax.jit
    def second_update(hyper):
        optimizer = OPTIMIZERS[name].under("mup")(hyper, roles, STEPS)
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(gradients, state, params)
        return updates

    found = second_update({**hyper, "eps_scaling": 1.0})
    expected = second_update({**hyper, "eps": 1e-3 / N})  # all leaves of this network have width N
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    without = second_update(hyper)
    assert not np.allclose(without["input"]["kernel"], found["input"]["kernel"], rtol=0.1)
    off = second_update({**hyper, "eps_scaling": jnp.float32(0.0)})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), off, without)


def _gradient_at_birth(init, loss, key):
    return jax.grad(loss)(init(key))


def test_the_width_of_a_leaf_is_what_its_gradient_falls_with(getkey):
    """Gradients of our networks, at two widths, beside `ParamRole.width`."""
    for parametrization in ("mup", "spectral"):
        sizes = {}
        for width in (128, 512):
            network = build("mlp", parametrization, width, depth=2, readout="normal")
            init = network_init(network, example("mlp"))
            x = jax.random.normal(jax.random.key(1), (16, 8, 8))
            wanted = jax.random.normal(jax.random.key(2), (16, CLASSES))

            def loss(params, network=network, x=x, wanted=wanted):
                return jnp.sum(wanted * network.apply({"params": params}, x))

            both = functools.partial(_gradient_at_birth, init, loss)
            gradients = jax.jit(both)(jax.random.key(0))
            sizes[width] = {k: np.sqrt(np.mean(g**2)) for k, g in by_name(gradients).items()}
        roles = by_leaf(roles_of("mlp", parametrization), lambda role: role.width)
        for leaf, width in roles.items():
            power = np.log(sizes[512][leaf] / sizes[128][leaf]) / np.log(4)
            assert power == pytest.approx(-1.0 if width == N else 0.0, abs=0.15), leaf
            assert width in (1, N)
