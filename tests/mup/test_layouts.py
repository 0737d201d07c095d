"""What a layer's axes are for is told by flax's modules, else by shapes, else not at all."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.errors import RoleError
from mulo_cli.mup.layouts import axis_words
from mulo_cli.mup.roles import Layout, ParamRole, RoleKind, infer_roles
from mulo_cli.mup.roles import _refuse_unknown as refuse_unknown
from tests.mup.networks import (
    LENGTH,
    NARROW,
    PIXELS,
    VOCABULARY,
    WIDE,
    by_name,
    kinds,
    linen,
    of_shapes,
    transformer,
)

HEADS, HEAD_SIZE, KV_HEADS = 4, 2, 2


def test_every_leaf_of_a_linen_transformer_has_its_role():
    roles = by_name(infer_roles(transformer(64, depth=1), transformer(128, depth=1)))
    found = {name: (role.kind.value, role.fan_in, role.fan_out) for name, role in roles.items()}
    attention, vector = "block_0/attention", ("input", 1, 128)
    expected = {
        "tokens/embedding": ("input", VOCABULARY, 128),
        "positions": ("input", LENGTH, 128),
        "block_0/up/kernel": ("hidden", 128, 512),
        "block_0/up/bias": ("input", 1, 512),
        "block_0/down/kernel": ("hidden", 512, 128),
        "block_0/down/bias": vector,
        "readout/kernel": ("output", 128, VOCABULARY),
        "readout/bias": ("input", 1, VOCABULARY),
    }
    for norm in ("norm", "block_0/norm_1", "block_0/norm_2"):
        expected |= {f"{norm}/scale": vector, f"{norm}/bias": vector}
    for part in ("query", "key", "value", "out"):
        expected[f"{attention}/{part}/kernel"] = ("hidden", 128, 128)
        expected[f"{attention}/{part}/bias"] = vector
    assert found == expected
    assert axis_words(roles[f"{attention}/query/kernel"].layout) == "in,out,out"
    assert axis_words(roles[f"{attention}/out/kernel"].layout) == "in,in,out"
    assert axis_words(roles[f"{attention}/query/bias"].layout) == "out,out"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (linen(nn.Dense, 1, 5), {"kernel": "input in,out 5", "bias": "input out 1"}),
        (linen(nn.Dense, 1, None), {"kernel": "hidden in,out 24", "bias": "input out 1"}),
        (
            linen(lambda width: nn.DenseGeneral((HEADS, width // 4)), 1, None),
            {"kernel": "hidden in,out,out 24", "bias": "input out,out 1"},
        ),
        (
            linen(lambda width: nn.DenseGeneral((width // 4, HEADS)), 1, None),
            {"kernel": "hidden in,out,out 24", "bias": "input out,out 1"},
        ),
        (
            linen(lambda width: nn.DenseGeneral(7, axis=(-2, -1)), 1, None, 5),
            {"kernel": "output in,in,out 120", "bias": "input out 1"},
        ),
        (
            linen(lambda width: nn.DenseGeneral((3, HEADS, width // 4)), 1, None),
            {"kernel": "hidden in,out,out,out 24", "bias": "input out,out,out 1"},
        ),
        (
            linen(lambda width: nn.DenseGeneral((KV_HEADS, width // 4)), 1, None),
            {"kernel": "hidden in,out,out 24", "bias": "input out,out 1"},
        ),
        (
            linen(lambda width: nn.DenseGeneral(5, axis=-1, batch_dims=(0,)), 3, 2, None),
            {"kernel": "output stack,in,out 24", "bias": "input stack,out 1"},
        ),
        (
            linen(lambda width: nn.Einsum((width, 5, width), "bd,dkh->bkh"), 1, None),
            {"kernel": "hidden in,out,out 24", "bias": "input out,out 1"},
        ),
        (
            linen(lambda width: nn.Conv(width, (3, 3)), 1, 8, 8, PIXELS),
            {"kernel": "input in,in,in,out 27", "bias": "input out 1"},
        ),
        (
            linen(lambda width: nn.Conv(width, (3, 3)), 1, 8, 8, None),
            {"kernel": "hidden in,in,in,out 216", "bias": "input out 1"},
        ),
        (
            linen(lambda width: nn.Conv(5, (1, 1)), 1, 8, 8, None),
            {"kernel": "output in,in,in,out 24", "bias": "input out 1"},
        ),
        (  # depthwise: every channel has its own nine numbers
            linen(lambda w: nn.Conv(w, (3, 3), feature_group_count=w), 1, 8, 8, None),
            {"kernel": "input in,in,in,out 9", "bias": "input out 1"},
        ),
        (
            linen(lambda w: nn.Conv(w, (3,), feature_group_count=4), 1, 8, None),
            {"kernel": "hidden in,in,out 18", "bias": "input out 1"},
        ),
        (
            linen(lambda w: nn.ConvTranspose(5, (3,), transpose_kernel=True), 1, 8, None),
            {"kernel": "output in,out,in 72", "bias": "input out 1"},
        ),
        (
            linen(lambda w: nn.ConvTranspose(w, (3,)), 1, 8, 5),
            {"kernel": "input in,in,out 15", "bias": "input out 1"},
        ),
        (
            linen(lambda w: nn.ConvLocal(w, (3,), use_bias=False), 1, 8, None),
            {"kernel": "hidden stack,in,out 72"},
        ),
        (
            linen(lambda w: nn.Embed(9, w), 1, 4, dtype=jnp.int32),
            {"embedding": "input in,out 9"},
        ),
        (linen(lambda w: nn.RMSNorm(), 1, None), {"scale": "input out 1"}),
        (
            linen(lambda w: nn.GroupNorm(2), 1, None),
            {"scale": "input out 1", "bias": "input out 1"},
        ),
        (
            linen(lambda w: nn.LayerNorm(feature_axes=(-2, -1)), 1, None, 3),
            {"scale": "input out,out 1", "bias": "input out,out 1"},
        ),
    ],
    ids=[
        "first layer",
        "hidden layer",
        "query: the head size grows",
        "query: heads grow",
        "several axes summed over",
        "fused query, key and value",
        "grouped-query: few heads",
        "a matrix per group",
        "einsum",
        "first convolution",
        "hidden convolution",
        "last convolution",
        "depthwise convolution",
        "grouped convolution",
        "transposed kernel",
        "transposed convolution",
        "a kernel per place",
        "embedding",
        "RMS norm",
        "group norm",
        "norm over heads: a vector although it has two axes",
    ],
)
def test_linen_modules_tell_their_axes(make, expected):
    assert kinds(make, readout="forward") == expected


@pytest.mark.parametrize("string", ["bd,kd->bk", "b d, k d -> b k"])
def test_an_einsum_is_read_from_its_string_wherever_it_is_given(string):
    class Called(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            return nn.Einsum((self.width, 5), name="einsum")(x, string)

    expected = {"kernel": "input out,in 5", "bias": "input out 1"}
    given = linen(lambda width: nn.Einsum((width, 5), string), 1, 5)
    assert kinds(given) == expected
    called = kinds(linen(Called, 1, 5))
    assert {name.removeprefix("einsum/"): kind for name, kind in called.items()} == expected

    def of_nnx(width):
        return lambda key: nnx.Einsum(string, (width, 5), (width,), rngs=nnx.Rngs(key))

    assert kinds(of_nnx) == expected


def test_modules_that_keep_their_width_in_the_structure_are_compared_by_their_leaves():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Linear:
        weight: jax.Array
        width: int = dataclasses.field(metadata={"static": True})

    def make(width):
        return lambda key: Linear(jax.random.normal(key, (width, width)), width)

    assert kinds(make) == {"weight": "hidden in,out 24"}


class Tied(nn.Module):
    """The embedding is the readout."""

    width: int

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(9, self.width, name="table")
        return table.attend(table(tokens)) / self.width


def test_a_tied_embedding_is_one_leaf_and_an_input():
    assert kinds(linen(Tied, 1, 4, dtype=jnp.int32)) == {"table/embedding": "input in,out 9"}


class Ours(nn.Module):
    """A module nobody knows, around one that is known."""

    width: int

    @nn.compact
    def __call__(self, x):
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
        mixing = self.param("mixing", nn.initializers.zeros, (self.width, self.width))
        return nn.Dense(self.width)(x @ mixing + token)


def test_parameters_of_ones_own_modules_are_read_off_their_shapes():
    found = kinds(linen(Ours, 1, 2, None))
    assert found["class_token"] == "input in,in,out 1"
    assert found["mixing"] == found["Dense_0/kernel"] == "hidden in,out 24"


def test_where_the_params_are_in_a_larger_tree_their_modules_still_tell():
    def make(width):
        plain = transformer(width)
        return lambda key: {"model": {"params": plain(key)}, "extra": jnp.zeros(width)}

    bare, inside = kinds(transformer), kinds(make)
    assert inside.pop("extra") == "input out 1"
    assert {name.removeprefix("model/params/"): kind for name, kind in inside.items()} == bare


def test_a_jitted_init_is_looked_into_however_often_it_ran():
    inits = {width: jax.jit(transformer(width)) for width in (NARROW, WIDE)}
    for init in inits.values():
        init(jax.random.key(0))
    expected = kinds(transformer)
    assert kinds(lambda width: inits[width]) == expected
    assert kinds(lambda width: lambda key: inits[width](key)) == expected


class Attention(nnx.Module):
    """The layers of nnx, one of each."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.positions = nnx.Param(jnp.zeros((1, LENGTH, width)))
        self.convolution = nnx.Conv(width, width, (3,), rngs=rngs)
        self.depthwise = nnx.Conv(width, width, (3,), feature_group_count=width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, width, rngs=rngs, decode=False)
        self.grouped = nnx.LinearGeneral(width, (KV_HEADS, width // HEADS), rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(2)])

        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> nnx.Linear:
            return nnx.Linear(width, width, rngs=rngs)

        self.stack = stack(rngs)
        zeros = nnx.initializers.zeros
        self.head = nnx.Linear(width, VOCABULARY, kernel_init=zeros, rngs=rngs)


def test_an_nnx_model_is_walked_and_its_state_gets_the_roles():
    def make(width):
        return lambda key: Attention(width, nnx.Rngs(key))

    expected = {
        "tokens/embedding": "input in,out 11",
        "positions": "input in,in,out 6",
        "convolution/kernel": "hidden in,in,out 72",
        "convolution/bias": "input out 1",
        "depthwise/kernel": "input in,in,out 3",
        "depthwise/bias": "input out 1",
        "attention/out/kernel": "hidden in,in,out 24",
        "attention/out/bias": "input out 1",
        "grouped/kernel": "hidden in,out,out 24",
        "grouped/bias": "input out,out 1",
        "norm/scale": "input out 1",
        "norm/bias": "input out 1",
        "stack/kernel": "hidden stack,in,out 24",
        "stack/bias": "input stack,out 1",
        "head/kernel": "output in,out 24",
        "head/bias": "input out 1",
    }
    for part in ("query", "key", "value"):
        expected |= {f"attention/{part}/kernel": "hidden in,out,out 24"}
        expected |= {f"attention/{part}/bias": "input out,out 1"}
    for layer in range(2):
        expected |= {f"layers/{layer}/kernel": "hidden in,out 24"}
        expected |= {f"layers/{layer}/bias": "input out 1"}
    assert kinds(make) == expected
    state = nnx.state(make(WIDE)(jax.random.key(0)), nnx.Param)
    roles = infer_roles(make(NARROW), make(WIDE))
    assert jax.tree.structure(roles) == jax.tree.structure(state)


def test_the_state_of_an_nnx_model_is_a_tree_of_shapes():
    def make(width):
        return lambda key: nnx.state(nnx.Linear(width, 2 * width, rngs=nnx.Rngs(key)), nnx.Param)

    assert kinds(make) == {"kernel": "hidden in,out 24", "bias": "input out 1"}
    with pytest.raises(RoleError, match=r"attention/key/kernel") as caught:
        kinds(lambda width: lambda key: nnx.state(Attention(width, nnx.Rngs(key)), nnx.Param))
    assert "nnx" in caught.value.hint


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 3, PIXELS, "D"), "input in,in,in,out 27"),
        ((1, 1, "D"), "input in,in,out 1"),
        ((2, 5, 7), "input in,in,out 10"),
        (("D", "D"), "hidden in,out 24"),
        (("D", "2D"), "hidden in,out 24"),
        (("2D", "D"), "hidden in,out 48"),
        ((7, "D"), "input in,out 7"),
        (("D", 7), "output in,out 24"),
        (("D",), "input out 1"),
        ((), "input 1"),
    ],
)
def test_shapes_whose_every_reading_agrees_are_told(shape, expected):
    assert kinds(of_shapes(w=shape)) == {"w": expected}


AMBIGUOUS = {
    "stack, convolution or two output axes": (3, "D", "D"),
    "query or convolution": ("D", HEADS, "D"),
    "attention's out with growing heads": ("D", HEAD_SIZE, "D"),
    "fused attention": ("D", 3, HEADS, "D"),
    "convolution or stack": (3, 3, "D", "D"),
    "last convolution": (3, 3, "D", 5),
    "biases of three growing sets of heads": (3, "D", HEAD_SIZE),
    "output over two axes, or with two": ("D", 5, 7),
    "all axes grow": ("D", "D", "D"),
}


@pytest.mark.parametrize("shape", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_shapes_that_can_be_read_in_several_ways_are_refused(shape):
    make = of_shapes(block__w=shape)
    with pytest.raises(RoleError) as caught:
        kinds(make)
    narrow, wide = (tuple(NARROW + 16 * i if s == "D" else s for s in shape) for i in (0, 1))
    assert f"'block/w' with shapes {narrow} and {wide}" in caught.value.message
    assert "could be: " in caught.value.message
    assert "--axes block/w=" in caught.value.hint
    axes = tuple(range(len(shape)))
    for layout in (Layout(axes[:1], axes[1:]), Layout(axes[1:-1], axes[-1:], axes[:1])):
        role = by_name(infer_roles(make(NARROW), make(WIDE), {"block/w": layout}))["block/w"]
        assert role.layout == layout, "what is said is believed"


def test_a_kind_is_enough_where_one_reading_has_it():
    make = of_shapes(w=("D", 5, 7), v=("D", 3, HEADS, 2))
    found = kinds(make, overrides={"w": RoleKind.INPUT, "*": RoleKind.INPUT})
    assert all(kind.startswith("input") for kind in found.values())
    stack = of_shapes(w=(3, 3, "D", "D"))
    with pytest.raises(RoleError, match=r"could be: in,in,in,out .hidden, fan-in 216"):
        kinds(stack, overrides={"w": RoleKind.HIDDEN})


def test_a_pattern_speaks_for_many_leaves_and_a_name_for_its_own():
    make = of_shapes(a__q=("D", HEADS, "D"), b__q=("D", HEADS, "D"), c__w=("D", "D"))
    query, convolution = Layout((0,), (1, 2)), Layout((0, 1), (2,))
    found = kinds(make, overrides={"*/q": query, "b/q": convolution, "?/?": RoleKind.INPUT})
    assert found == {
        "a/q": "hidden in,out,out 24",
        "b/q": "hidden in,in,out 96",
        "c/w": "input in,out 24",
    }


def test_a_whole_role_is_taken_as_it_is():
    role = ParamRole(RoleKind.OUTPUT, (1,), (0,), fan_in=5, fan_out=2, forward_multiplier=False)
    make = of_shapes(w=("D", "D"))
    assert by_name(infer_roles(make(NARROW), make(WIDE), {"w": role}, base=make(4)))["w"] is role


@pytest.mark.parametrize(
    "wrong", [Layout((0,), (1,)), Layout((0,), (1, 2, 3)), Layout((0, 1), (1, 2)), Layout((), ())]
)
def test_axes_that_do_not_fit_the_leaf_are_refused(wrong):
    make = of_shapes(w=("D", HEADS, "D"))
    with pytest.raises(RoleError, match="not all of its axes"):
        kinds(make, overrides={"w": wrong})


def test_torch_like_trees_are_read_the_other_way():
    make = of_shapes(
        first__weight=("D", 5),
        hidden__weight=("2D", "D"),
        hidden__bias=("2D",),
        last__weight=(7, "D"),
        last__bias=(7,),
    )
    assert kinds(make, layout="out_in") == {
        "first/weight": "input out,in 5",
        "hidden/weight": "hidden out,in 24",
        "hidden/bias": "input out 1",
        "last/weight": "output out,in 24",
        "last/bias": "input out 1",
    }


@pytest.mark.parametrize(
    ("shapes", "order", "other"),
    [
        ({"l__weight": ("2D", "D"), "l__bias": ("2D",)}, "in_out", "out_in"),
        ({"l__kernel": ("D", 7), "l__bias": (7,)}, "out_in", "in_out"),
        ({"w": ("D", 5), "b": ("D",)}, "in_out", "out_in"),
    ],
)
def test_a_bias_as_long_as_the_inputs_speaks_against_the_layout(shapes, order, other):
    with pytest.raises(RoleError) as caught:
        kinds(of_shapes(**shapes), layout=order)
    assert f"--layout {other}" in caught.value.hint
    assert kinds(of_shapes(**shapes), layout=other)


def test_a_readout_without_a_bias_may_be_an_embedding_in_a_torch_like_tree():
    make = of_shapes(tokens=(9, "D"))
    with pytest.raises(RoleError, match="embedding"):
        kinds(make, layout="out_in")
    for kind in (RoleKind.OUTPUT, RoleKind.INPUT):
        told = kinds(make, layout="out_in", overrides={"tokens": kind})
        assert told["tokens"].startswith(kind.value)


def test_a_bias_that_looks_like_a_matrix_is_asked_about():
    make = of_shapes(query__bias=("D", HEAD_SIZE))
    with pytest.raises(RoleError, match="called like a vector") as caught:
        kinds(make)
    assert "--role query/bias=input" in caught.value.hint
    assert kinds(make, overrides={"query/bias": RoleKind.INPUT}) == {
        "query/bias": f"input in,out {WIDE}"
    }


@pytest.mark.parametrize(
    ("layout", "readout", "said"),
    [("in", "auto", "layout='in'"), ("in_out", "no", "readout='no'")],
)
def test_unknown_words_are_refused(layout, readout, said):
    """Asked where these tests check no types."""
    with pytest.raises(RoleError, match=said) as caught:
        refuse_unknown(layout, readout)
    assert "known are: " in caught.value.hint


SIZES = st.sampled_from([1, 2, 5, "D", "2D"])
TREES = st.dictionaries(
    st.sampled_from(["a", "c", "d", "e", "f"]), st.lists(SIZES, max_size=2).map(tuple), min_size=1
)


@settings(max_examples=30, deadline=None)
@given(TREES, st.randoms(use_true_random=False))
def test_roles_depend_neither_on_the_order_of_leaves_nor_on_which_width_is_larger(shapes, random):
    shuffled = list(shapes.items())
    random.shuffle(shuffled)
    up = kinds(of_shapes(**shapes), readout="forward")
    assert kinds(of_shapes(**dict(shuffled)), readout="forward") == up
    make = of_shapes(**shapes)
    down = by_name(infer_roles(make(WIDE), make(NARROW), readout="forward"))
    assert {name: role.kind.value for name, role in down.items()} == {
        name: kind.split()[0] for name, kind in up.items()
    }


def test_two_modules_of_one_name_that_disagree_are_an_error():
    class Head(nn.Module):
        ours: bool

        @nn.compact
        def __call__(self, x):
            from mulo_cli.mup.modules import Readout

            kind = Readout if self.ours else nn.Dense
            return kind(5, name="head")(x)

    def make(width):
        def init(key):
            x = jnp.zeros((1, width))
            return {name: Head(name == "a").init(key, x)["params"] for name in ("a", "b")}

        return init

    with pytest.raises(RoleError, match="several modules"):
        kinds(make)
