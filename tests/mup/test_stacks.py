"""Layers stacked into one array are many tensors: modules, a third depth or metadata tell."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mulo_cli.errors import RoleError
from mulo_cli.mup.roles import Layout, infer_roles
from mulo_cli.mup.rules import adam_like
from mulo_cli.mup.scaling import multipliers, scale_by_mup
from tests.mup.networks import NARROW, WIDE, by_name, kinds, of_shapes, transformer

LAYERS = 3


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("boxed", [False, True])
def test_scanned_layers_have_the_roles_of_single_ones(axis, boxed):
    def make(width):
        return transformer(width, depth=LAYERS, stacked=axis, boxed=boxed)

    found = kinds(make)
    scanned = {name: kind for name, kind in found.items() if name.startswith("blocks/")}
    of_query = ["in", "out", "out"]
    of_query.insert(axis, "stack")
    bias = "stack,out" if axis == 0 else "out,stack"
    assert scanned["blocks/attention/query/kernel"] == f"hidden {','.join(of_query)} 24"
    assert scanned["blocks/dense/bias"] == f"input {bias} 1"
    dense = "stack,in,out" if axis == 0 else "in,stack,out"
    assert scanned["blocks/dense/kernel"] == f"hidden {dense} 24"
    others = {name: kind for name, kind in found.items() if name not in scanned}
    flat = kinds(transformer)
    assert others == {name: flat[name] for name in others}


def test_a_depth_equal_to_a_width_confuses_nobody():
    for width in (NARROW, WIDE):
        found = kinds(lambda w, depth=width: transformer(w, depth=depth, stacked=0))
        assert found["blocks/dense/kernel"] == "hidden stack,in,out 24"


def test_boxes_stay_around_roles_and_updates_are_scaled_inside_them():
    def make(width):
        return transformer(width, depth=2, stacked=0, boxed=True)

    roles = infer_roles(make(NARROW), make(WIDE))
    params = make(WIDE)(jax.random.key(0))
    assert jax.tree.structure(roles) == jax.tree.structure(params)
    ones = jax.tree.map(jnp.ones_like, params)
    scaled, _ = scale_by_mup(roles).update(ones, scale_by_mup(roles).init(params))
    kernel = scaled["blocks"]["dense"]["kernel"]
    assert isinstance(kernel, nn.Partitioned)
    np.testing.assert_allclose(kernel.value, 1 / WIDE, rtol=1e-6)


def stacked(width: int, depth: int):
    return of_shapes(
        blocks__up=(depth, "D", "2D"),
        blocks__query=(depth, "D", 4, "D"),
        blocks__gain=(depth, "D"),
        blocks__convolution=(depth, 3, "D", "D"),
        temperature=(depth,),
        tokens=(9, "D"),
        head=("D", 5),
    )(width)


def test_another_depth_tells_stacks_in_a_plain_tree():
    overrides = {"blocks/query": Layout((1,), (2, 3), (0,))}
    for width_of_deep in (NARROW, WIDE):
        roles = infer_roles(
            stacked(NARROW, 2),
            stacked(WIDE, 2),
            {**overrides, "blocks/convolution": Layout((1, 2), (3,), (0,))},
            init_deep=stacked(width_of_deep, 4),
        )
        of = {name: (role.stack_axes, role.fan_in) for name, role in by_name(roles).items()}
        assert of == {
            "blocks/up": ((0,), 24),
            "blocks/query": ((0,), 24),
            "blocks/gain": ((0,), 1),
            "blocks/convolution": ((0,), 72),
            "temperature": ((0,), 1),
            "tokens": ((), 9),
            "head": ((), 24),
        }


def test_without_another_depth_a_stack_is_refused_and_the_hint_knows_the_way():
    make = of_shapes(blocks=(LAYERS, "D", "D"))
    with pytest.raises(RoleError, match="'blocks'") as caught:
        kinds(make)
    assert "init_deep" in caught.value.hint
    assert "--depths" in caught.value.hint
    deep = of_shapes(blocks=(LAYERS + 1, "D", "D"))
    assert kinds(make, init_deep=deep(WIDE)) == {"blocks": "hidden stack,in,out 24"}


def test_layers_that_are_leaves_of_their_own_need_not_be_there_at_another_depth():
    found = kinds(transformer, init_deep=transformer(WIDE, depth=3))
    assert found == kinds(transformer)


@pytest.mark.parametrize(
    ("deep", "said"),
    [
        (of_shapes(w=(2, "D", "D"))(WIDE), "same shapes"),
        (of_shapes(w=(3, "D", "D"))(WIDE + 1), "changes with width"),
        (of_shapes(w=(2, "D"))(WIDE), "number of axes with depth"),
    ],
    ids=["no other depth", "another width", "another architecture"],
)
def test_a_third_network_that_differs_in_something_else_is_refused(deep, said):
    with pytest.raises(RoleError, match=said):
        kinds(of_shapes(w=(2, "D", "D")), init_deep=deep)


def test_a_depth_that_contradicts_the_modules_is_refused():
    def make(width, inputs=5):
        return lambda key: nn.Dense(width).init(key, jnp.zeros((1, inputs)))["params"]

    with pytest.raises(RoleError, match="counts layers"):
        infer_roles(make(8), make(24), init_deep=make(24, inputs=6))


@pytest.mark.parametrize(
    "box",
    [
        lambda x, names: nn.Partitioned(x, names),
        lambda x, names: nn.LogicallyPartitioned(x, names),
        lambda x, names: nnx.Param(x, eager_sharding=False, out_sharding=names),
    ],
    ids=["Partitioned", "LogicallyPartitioned", "nnx.Param"],
)
def test_an_axis_that_metadata_names_after_layers_counts_them(box):
    def make(width, name):
        names = (name, "embed", "mlp")
        return lambda key: {"w": box(jnp.zeros((LAYERS, width, width)), names)}

    assert kinds(lambda width: make(width, "layers")) == {"w": "hidden stack,in,out 24"}
    with pytest.raises(RoleError, match="cannot be told"):
        kinds(lambda width: make(width, "experts"))


def test_an_axis_that_grows_counts_no_layers_whatever_it_is_called():
    def make(width):
        return lambda key: {"w": nn.Partitioned(jnp.zeros((width, 4)), ("layers", "mlp"))}

    with pytest.raises(RoleError, match="counts layers, and changes with width"):
        kinds(make)


def test_a_base_makes_multipliers_relative_as_in_microsoft_mup():
    """mup.MuAdam: matrices whose two dimensions grow have lr / width_mult, all others lr.

    width_mult is the fan-in over that of the base model; `MuReadout` divides in the forward pass.
    """
    base, overrides = 16, {"blocks/*": Layout((1,), (2,), (0,))}

    def make(width):
        return of_shapes(
            first=(5, "D"), hidden=("D", "2D"), down=("2D", "D"), head=("D", 3), gain=("D",)
        )(width)

    roles = infer_roles(make(NARROW), make(WIDE), base=make(base), readout="forward")
    width_mult = WIDE / base
    relative = {"first": 1, "hidden": 1 / width_mult, "down": 1 / width_mult, "head": 1, "gain": 1}
    assert multipliers(roles) == pytest.approx(relative)
    of_base = {name: role.base_fan_in for name, role in by_name(roles).items()}
    assert of_base == {"first": 5, "hidden": base, "down": 2 * base, "head": base, "gain": 1}
    in_update = infer_roles(make(NARROW), make(WIDE), base=make(base))
    assert multipliers(in_update)["head"] == pytest.approx(1 / width_mult)
    itself = infer_roles(make(NARROW), make(WIDE), base=make(WIDE))
    assert set(multipliers(itself).values()) == {1.0}

    def stack(width):
        return of_shapes(blocks__w=(LAYERS, "D", "D"))(width)

    (role,) = by_name(infer_roles(stack(NARROW), stack(WIDE), overrides, base=stack(base))).values()
    assert adam_like(role) == base / WIDE, "layers are in no fan"


def test_a_base_that_differs_in_more_than_width_is_refused():
    make, wrong = of_shapes(w=(5, "D")), of_shapes(w=(6, "D"))
    with pytest.raises(RoleError, match="axis 0 of parameter 'w' is 6 in the base network and 5"):
        kinds(make, base=wrong(4))
    with pytest.raises(RoleError, match="only one has 'v'"):
        kinds(make, base=of_shapes(w=(5, "D"), v=(3,))(4))
