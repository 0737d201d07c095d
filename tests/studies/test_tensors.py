"""Single tensors are measured as they are: by their axes, one by one, whatever holds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.mup.kinds import Layout, role_of
from mulo_cli.studies.forward_order import first_uses
from mulo_cli.studies.tensors import Leaf, leaf_of, look_at_tensors, power_iteration, pushed

IN, OUT, BLOCKS = 12, 20, 3


def role(layout: Layout, shape: tuple[int, ...]):
    """Return a role whose axes all grow, stacks aside."""
    small = tuple(n if axis in layout.stack_axes else n // 2 for axis, n in enumerate(shape))
    return role_of(layout, small, shape)


def leaf(name: str, layout: Layout, shape: tuple[int, ...], layers: tuple[str, ...] = ()) -> Leaf:
    return leaf_of(name, role(layout, shape), shape, layers)


def look(one: Leaf, now, before, share: float = 1.0, iterations: int = 300):
    vectors = jax.random.normal(jax.random.key(1), one.vectors_shape)
    found, _ = jax.jit(look_at_tensors, static_argnums=0)(
        one, now, before, vectors, jnp.float32(share), jnp.int32(iterations)
    )
    return found


def norm(matrix) -> float:
    return float(np.linalg.svd(np.asarray(matrix), compute_uv=False)[0])


def test_power_iteration_finds_the_largest_singular_value(getkey):
    matrices = jax.random.normal(getkey(), (2, 3, IN, OUT))
    vectors = jax.random.normal(getkey(), (2, 3, OUT))
    found, left = jax.jit(power_iteration)(matrices, vectors, jnp.int32(300))
    expected = np.linalg.svd(np.asarray(matrices), compute_uv=False)[..., 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    again, _ = jax.jit(power_iteration)(matrices, left, jnp.int32(1))
    np.testing.assert_allclose(again, expected, rtol=1e-4, err_msg="it starts where it ended")


@pytest.mark.parametrize("width", [64, 512])
def test_twenty_iterations_are_enough_for_a_random_matrix(width, getkey):
    """They end below the edge of the spectrum, and equally far at every width."""
    matrix = jax.random.normal(getkey(), (1, 1, width, width)) * width**-0.5
    start = jax.random.normal(getkey(), (1, 1, width))
    found, _ = jax.jit(power_iteration)(matrix, start, jnp.int32(20))
    assert float(found[0, 0]) == pytest.approx(norm(matrix[0, 0]), rel=0.04)


def test_what_did_not_change_is_zero_exactly_and_loses_no_vector(getkey):
    kernel = jax.random.normal(getkey(), (IN, OUT))
    one = leaf("up/kernel", Layout((0,), (1,)), kernel.shape)
    found = look(one, kernel, kernel)
    assert [float(x[0]) for x in found[:3]] == [0.0, 0.0, 0.0]
    vectors = jax.random.normal(getkey(), (1, 1, OUT))
    _, left = power_iteration(jnp.zeros((1, 1, IN, OUT)), vectors, jnp.int32(3))
    np.testing.assert_allclose(left, vectors / np.linalg.norm(vectors), rtol=1e-5)


def test_axes_are_read_as_the_role_says(getkey):
    """Heads and their size are outputs, a convolution's places and channels inputs."""
    for layout, shape, flat in (
        (Layout((0,), (1, 2)), (IN, 4, 5), (IN, 20)),
        (Layout((0, 1, 2), (3,)), (3, 3, 4, OUT), (36, OUT)),
        (Layout((1,), (0,)), (OUT, IN), None),
    ):
        now, before = jax.random.normal(getkey(), (2, *shape))
        found = look(leaf("up/kernel", layout, shape), now, before)
        change = np.asarray(now - before)
        matrix = change.T if flat is None else change.reshape(flat)
        assert float(found.spectral[0]) == pytest.approx(norm(matrix), rel=1e-3)
        assert float(found.rms[0]) == pytest.approx(np.sqrt((change**2).mean()), rel=1e-5)


def test_blocks_in_one_array_are_measured_as_blocks_apart(getkey):
    now, before, gradient = jax.random.normal(getkey(), (3, BLOCKS, IN, OUT))
    layers = tuple(f"blocks_{number}/up" for number in range(BLOCKS))
    stacked = leaf("blocks/up/kernel", Layout((1,), (2,), (0,)), now.shape, layers)
    assert stacked.names == tuple(f"{layer}/kernel" for layer in layers)
    assert stacked.layers == layers
    found, of_push = look(stacked, now, before), pushed(stacked, gradient, now - before)
    for number in range(BLOCKS):
        one = leaf(stacked.names[number], Layout((0,), (1,)), (IN, OUT), layers)
        alone = look(one, now[number], before[number])
        for of_stack, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(of_stack[number], expected[0], rtol=1e-3)
        expected = pushed(one, gradient[number], now[number] - before[number])
        for of_stack, alone in zip(of_push, expected, strict=True):
            np.testing.assert_allclose(of_stack[number], alone[0], rtol=1e-5)


def test_the_matrices_of_one_layer_are_one_tensor(getkey):
    """Experts are no blocks: their norms are combined by the root of the mean square."""
    now = jax.random.normal(getkey(), (BLOCKS, IN, OUT))
    experts = leaf("moe/kernel", Layout((1,), (2,), (0,)), now.shape, ("moe", "logits"))
    assert (experts.names, experts.layers) == (("moe/kernel",), ("moe",))
    found = look(experts, now, now, share=0.0)
    norms = np.linalg.svd(np.asarray(now), compute_uv=False)[:, 0]
    assert float(found.spectral[0]) == pytest.approx(np.sqrt((norms**2).mean()), rel=1e-3)


def test_a_stack_of_which_no_layer_is_known_is_numbered_at_its_top():
    shape, layout = (2, IN, OUT), Layout((1,), (2,), (0,))
    assert leaf("tower/up/kernel", layout, shape).names == (
        "tower_0/up/kernel",
        "tower_1/up/kernel",
    )
    alone = leaf("w", layout, shape)
    assert (alone.names, alone.layers) == (("w_0", "w_1"), ("w_0", "w_1"))
    nested = leaf("a/b/w", layout, shape, ("a", "a/b_0", "a/b_1", "logits"))
    assert nested.names == ("a/b_0/w", "a/b_1/w")


def test_shrinkage_is_told_by_the_part_along_the_start(getkey):
    before = jax.random.normal(getkey(), (IN, OUT))
    other = jax.random.normal(getkey(), (IN, OUT))
    other = other - before * jnp.vdot(other, before) / jnp.vdot(before, before)
    one = leaf("up/kernel", Layout((0,), (1,)), before.shape)
    found = look(one, 0.9 * before + other, before)
    assert float(-found.along[0] / found.square[0]) == pytest.approx(0.1, abs=1e-5)


def test_parameters_are_ordered_by_their_first_use():
    """In loops and in functions of their own, too; the alphabet says something else."""

    def network(params, x):
        x = jax.jit(lambda w, x: x @ w)(params["z"], x)
        body = lambda x, w: (jnp.tanh(x @ w["c"]) @ w["b"] + params["a"], None)  # noqa: E731
        x, _ = jax.lax.scan(body, x, params["stack"])
        return x @ params["m"]

    square = jnp.zeros((4, 4))
    stack = {"b": jnp.zeros((2, 4, 4)), "c": jnp.zeros((2, 4, 4))}
    params = {"a": jnp.zeros(4), "m": square, "stack": stack, "unused": square, "z": square}
    names = ["a", "m", "stack/b", "stack/c", "unused", "z"]
    places = first_uses(network, params, jnp.zeros((1, 4)))
    in_order = [name for _, name in sorted(zip(places, names, strict=True))]
    assert in_order == ["z", "stack/c", "stack/b", "a", "m", "unused"]
