"""Products in bfloat16: factors are rounded forward and backward, and nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.meta_training import build_meta_training
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.errors import UsageError
from mulo_cli.optimizees.precision import bfloat16_dot_general, dot_general_in
from mulo_cli.optimizees.transformer import MUP, Attention
from mulo_cli.recipes.loading import load_recipe
from mulo_cli.recipes.schema import TaskSection
from tests.optimizees.networks import NAMES, WIDTH, build, example, inputs_of, shaken, start

ROUNDING = 1e-5
"""Sums of a few hundred float32 numbers of size one, in another order."""

MATRICES = (((1,), (0,)), ((), ()))
"""(M, K), (K, N) -> (M, N)."""


def rounded(x) -> np.ndarray:
    return np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def products_of(program: Jaxpr):
    """Yield the algorithm of every matrix product in a program, and in those inside of it."""
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, ClosedJaxpr):
                    yield from products_of(inner.jaxpr)
                elif isinstance(inner, Jaxpr):
                    yield from products_of(inner)


def test_products_and_their_gradients_read_rounded_factors_and_add_up_in_float32(getkey):
    x, w = jax.random.normal(getkey(), (24, 128)), jax.random.normal(getkey(), (128, 16))
    product, pull_back = jax.vjp(jax.jit(lambda x, w: bfloat16_dot_general(x, w, MATRICES)), x, w)
    back = jax.random.normal(getkey(), product.shape)
    of_x, of_w = jax.jit(pull_back)(back)
    x64, w64, back64 = rounded(x), rounded(w), rounded(back)
    for ours, exact, plain in (
        (product, x64 @ w64, x @ w),
        (of_x, back64 @ w64.T, back @ w.T),
        (of_w, x64.T @ back64, x.T @ back),
    ):
        scale = np.abs(exact).max()
        np.testing.assert_allclose(ours, exact, rtol=0, atol=ROUNDING * scale)
        assert np.abs(plain - exact).max() > 20 * ROUNDING * scale, "the test must be able to fail"


def test_curvature_can_be_asked_for(getkey):
    """Second-order optimizers differentiate a gradient, forwards."""
    x, w = jax.random.normal(getkey(), (8, 32)), jax.random.normal(getkey(), (32, 4))

    def loss(w, dot_general=bfloat16_dot_general):
        return jnp.sum(jnp.square(dot_general(x, w, MATRICES)))

    _, ours = jax.jvp(jax.grad(loss), (w,), (w,))
    _, exact = jax.jvp(jax.grad(lambda w: loss(w, jax.lax.dot_general)), (w,), (w,))
    np.testing.assert_allclose(ours, exact, rtol=0, atol=0.02 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize("name", NAMES)
def test_every_product_of_every_network_is_in_bfloat16_and_all_it_returns_in_float32(name, getkey):
    network, params = start(name)
    params = shaken(params, getkey())
    inputs = inputs_of(name)

    def loss(params, precision):
        low = network.clone(matmul_precision=precision)
        return jnp.mean(jnp.square(low.apply({"params": params}, inputs)))

    gradient = jax.value_and_grad(loss)
    exact, low = (
        set(products_of(jax.make_jaxpr(gradient, static_argnums=1)(params, precision).jaxpr))
        for precision in ("float32", "bfloat16")
    )
    assert low == {jax.lax.DotAlgorithmPreset.BF16_BF16_F32}
    assert not low & exact
    value, gradients = jax.eval_shape(lambda p: gradient(p, "bfloat16"), params)
    assert {leaf.dtype for leaf in jax.tree.leaves((value, gradients))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("causal", [True, False])
def test_attention_by_two_products_is_that_of_jax(causal, getkey):
    x = jax.random.normal(getkey(), (2, 12, WIDTH))
    theirs = Attention(4, causal, MUP)
    params = jax.jit(theirs.init)(getkey(), x)
    ours = theirs.clone(dot_general=jax.lax.dot_general)
    np.testing.assert_allclose(
        jax.jit(ours.apply)(params, x), jax.jit(theirs.apply)(params, x), rtol=0, atol=ROUNDING
    )


def test_an_unknown_precision_is_refused_with_those_that_are_known():
    with pytest.raises(UsageError) as refused:
        jax.eval_shape(
            build("mlp", matmul_precision="bf16").init, jax.random.key(0), example("mlp")
        )
    assert "matmul_precision='bf16'" in refused.value.message
    assert "float32, bfloat16" in (refused.value.hint or "")
    assert dot_general_in("float32") is None


def test_a_recipe_tells_the_precision_once():
    named = "task.optimizee=mlp:matmul_precision=float32"
    for more in ([], ["task.matmul_precision=bfloat16"]):
        recipe = load_recipe("multi-width", overrides=[named, *more])
        with pytest.raises(UsageError) as refused:
            build_meta_training(recipe, with_data=False)
        assert "task.matmul_precision" in (refused.value.hint or "")


@pytest.mark.parametrize("network", ["mlp", "mlp:input_mult=2"])
def test_rows_tell_the_precision_however_it_was_asked_for(network):
    border = "," if ":" in network else ":"
    by_name = TaskSection("digits", f"{network}{border}matmul_precision=bfloat16", [8], 2, 4)
    by_field = TaskSection("digits", network, [8], 2, 4, matmul_precision="bfloat16")
    digits = build_dataset("digits")
    tasks = [build_evaluation_task(s, digits, 8, "mup") for s in (by_name, by_field)]
    assert tasks[0].optimizee == tasks[1].optimizee == by_name.optimizee
    assert tasks[0].task.name == tasks[1].task.name == f"{by_name.optimizee}-digits-w8"
