"""The part each parameter plays is told from shapes at two widths, and the multiplier from that."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.errors import RoleError
from mulo_cli.mup.roles import ParamRole, RoleKind, infer_roles, leaf_name
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES, adam_like, standard
from mulo_cli.mup.scaling import multipliers, scale_by_mup
from mulo_cli.optimizees.mlp import MLP
from mulo_cli.tasks.base import network_init
from tests.worlds import digits_task

INPUT, HIDDEN, OUTPUT = RoleKind.INPUT, RoleKind.HIDDEN, RoleKind.OUTPUT
IS_ROLE = {"is_leaf": lambda node: isinstance(node, ParamRole)}
PIXELS, CLASSES = 64, 10
EXAMPLE = jax.ShapeDtypeStruct((1, 8, 8), jnp.float32)


def mlp(width: int, depth: int = 3):
    return network_init(MLP(width=width, depth=depth, num_classes=CLASSES), EXAMPLE)


def plain(width: int):
    """Return the init of a network in plain jax: embedding, block with gain and shift, head."""

    def init(key):
        del key
        return {
            "embedding": jnp.zeros((50, width)),
            "blocks": [
                {"up": jnp.zeros((width, 4 * width)), "gain": jnp.zeros(width)},
                {"down": jnp.zeros((4 * width, width)), "shift": jnp.zeros(width)},
            ],
            "head": (jnp.zeros((width, CLASSES)), jnp.zeros(CLASSES)),
            "temperature": jnp.zeros(()),
        }

    return init


def by_name(roles) -> dict[str, ParamRole]:
    leaves = jax.tree.leaves_with_path(roles, **IS_ROLE)
    return {leaf_name(path): role for path, role in leaves}


def kinds(roles) -> dict[str, RoleKind]:
    return {name: role.kind for name, role in by_name(roles).items()}


MLP_KINDS = {
    "input/kernel": INPUT,
    "input/bias": INPUT,
    "hidden_0/kernel": HIDDEN,
    "hidden_0/bias": INPUT,
    "hidden_1/kernel": HIDDEN,
    "hidden_1/bias": INPUT,
    "readout/kernel": OUTPUT,
    "readout/bias": INPUT,
}


# widths that fall together with the 64 pixels, the 10 classes or each other's doubles included
@pytest.mark.parametrize(("small", "large"), [(32, 128), (128, 32), (128, 64), (20, 10), (64, 65)])
def test_every_leaf_of_the_mlp_has_its_role_whatever_the_widths(small, large):
    roles = infer_roles(mlp(small), mlp(large))
    assert kinds(roles) == MLP_KINDS
    structure = jax.tree.structure(jax.eval_shape(mlp(large), jax.random.key(0)))
    assert jax.tree.structure(roles, **IS_ROLE) == structure


@pytest.mark.parametrize("width", [10, 32, PIXELS])
def test_a_task_whose_width_equals_its_pixels_or_its_classes_is_told_right(width):
    roles = digits_task(width).roles
    assert kinds(roles) == MLP_KINDS
    fans = {name: (role.fan_in, role.fan_out) for name, role in by_name(roles).items()}
    assert fans["input/kernel"] == (PIXELS, width)
    assert fans["hidden_0/kernel"] == (width, width)
    assert fans["readout/kernel"] == (width, CLASSES)
    assert fans["hidden_0/bias"] == (1, width)


def test_fans_are_those_of_the_second_network():
    up = by_name(infer_roles(plain(8), plain(32)))
    down = by_name(infer_roles(plain(32), plain(8)))
    assert (up["blocks/0/up"].fan_in, up["blocks/0/up"].fan_out) == (32, 128)
    assert (down["blocks/0/up"].fan_in, down["blocks/0/up"].fan_out) == (8, 32)


def test_a_network_in_plain_jax_comes_through_the_same_door():
    roles = infer_roles(plain(8), plain(16))
    assert kinds(roles) == {
        "blocks/0/gain": INPUT,
        "blocks/0/up": HIDDEN,
        "blocks/1/down": HIDDEN,
        "blocks/1/shift": INPUT,
        "embedding": INPUT,
        "head/0": OUTPUT,
        "head/1": INPUT,
        "temperature": INPUT,
    }
    head, gain = by_name(roles)["head/0"], by_name(roles)["blocks/0/gain"]
    assert (head.in_axes, head.out_axes) == ((0,), (1,))
    assert (gain.in_axes, gain.out_axes) == ((), (0,))
    assert by_name(roles)["temperature"].out_axes == ()


def test_nothing_is_initialised_to_tell_roles():
    def init(key):
        drawn = jax.random.normal(key, (4, 8))
        assert isinstance(drawn, jax.core.Tracer), "shapes are enough"
        return {"w": drawn}

    infer_roles(init, init)


def test_an_override_wins_over_what_shapes_say():
    roles = infer_roles(plain(8), plain(16), {"embedding": OUTPUT, "blocks/0/gain": HIDDEN})
    assert kinds(roles)["embedding"] is OUTPUT
    assert kinds(roles)["blocks/0/gain"] is HIDDEN
    assert kinds(roles)["blocks/0/up"] is HIDDEN


def test_overrides_are_the_callers_and_stay_as_they_were():
    overrides = {"embedding": OUTPUT}
    infer_roles(plain(8), plain(16), overrides)
    assert overrides == {"embedding": OUTPUT}


def of_shape(*shape):
    return lambda key: {"layer": {"w": jnp.zeros(shape)}}


@pytest.mark.parametrize(
    ("small", "large", "overrides", "said", "hinted"),
    [
        (mlp(8, 2), mlp(16, 3), None, "different parameters", "same depth"),
        (of_shape(4), of_shape(4, 4), None, "'layer/w'", "same architecture"),
        (of_shape(3, 4, 4), of_shape(3, 8, 8), None, "(3, 8, 8)", "in,in,out"),
        (plain(8), plain(16), {"hidden_0/kernel": HIDDEN}, "'hidden_0/kernel'", "by their path"),
    ],
    ids=["other depth", "other number of axes", "three axes", "unknown override"],
)
def test_what_cannot_be_told_is_an_error_that_names_the_leaf(small, large, overrides, said, hinted):
    with pytest.raises(RoleError) as caught:
        infer_roles(small, large, overrides)
    assert said in caught.value.message
    assert hinted in caught.value.hint


def test_hidden_matrices_and_bare_outputs_are_slowed_down_by_their_fan_in():
    roles = infer_roles(plain(8), plain(16))
    factors = {leaf_name(path): m for path, m in jax.tree.leaves_with_path(multipliers(roles))}
    assert factors.pop("blocks/0/up") == 1 / 16
    assert factors.pop("blocks/1/down") == 1 / 64
    assert factors.pop("head/0") == 1 / 16, "an output that nobody divides by its fan-in"
    assert set(factors.values()) == {1.0}
    assert set(jax.tree.leaves(multipliers(roles, standard))) == {1.0}


def test_a_base_makes_the_factor_relative():
    role = ParamRole(HIDDEN, (0,), (1,), fan_in=512, fan_out=128, base_fan_in=128)
    assert adam_like(role) == 0.25
    assert standard(role) == 1.0
    assert LEARNED_OPTIMIZER_RULES["mup"] is adam_like
    assert LEARNED_OPTIMIZER_RULES["sp"] is standard


def test_scaling_multiplies_each_update_by_its_factor_and_keeps_its_type():
    roles = infer_roles(plain(8), plain(16))
    shapes = jax.eval_shape(plain(16), jax.random.key(0))
    updates = jax.tree.map(lambda s: jnp.full(s.shape, 3.0, jnp.bfloat16), shapes)
    scale = scale_by_mup(roles)
    state = scale.init(updates)
    scaled, new_state = scale.update(updates, state, loss=jnp.float32(0), unheard_of=1)
    assert new_state == state == optax.EmptyState()
    expected = jax.tree.map(lambda u, factor: factor * u, updates, multipliers(roles))
    jax.tree.map(np.testing.assert_array_equal, scaled, expected)
    assert {x.dtype for x in jax.tree.leaves(scaled)} == {jnp.dtype(jnp.bfloat16)}


def test_scaling_by_another_rule_is_the_users_choice():
    roles = infer_roles(plain(8), plain(16))
    ones = jax.tree.map(lambda s: jnp.ones(s.shape), jax.eval_shape(plain(16), jax.random.key(0)))
    scale = scale_by_mup(roles, lambda role: float(role.fan_out))
    scaled, _ = scale.update(ones, scale.init(ones))
    assert float(scaled["blocks"][0]["up"][0, 0]) == 64.0
    assert float(scaled["head"][0][0, 0]) == CLASSES
