"""A leaf that stacks tensors gives what the tensors give as leaves of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.learned_optimizers.architectures import NAMES, make, theta_of
from tests.learned_optimizers.draws import UPDATES, drawn_params, role, runner

HORIZON = 50

STACKS = {
    "matrices": ((3, 4, 5), (0,)),
    "matrices in the middle": ((4, 3, 5), (1,)),
    "matrices at the end": ((4, 5, 3), (2,)),
    "two axes": ((2, 4, 3, 5), (0, 2)),
    "vectors": ((3, 7), (0,)),
    "vectors at the end": ((7, 3), (1,)),
    "scalars": ((4,), (0,)),
    "scalars of two axes": ((2, 3), (0, 1)),
    "a stack of one": ((1, 4, 5), (0,)),
}
"""(shape, stack axes) of one leaf."""


def taken_apart(leaf, stack: tuple[int, ...], lead: int = 0):
    """Return the tensors of a leaf that has `lead` more axes in front."""
    axes = tuple(axis + lead for axis in stack)
    front = np.moveaxis(np.asarray(leaf), axes, range(len(axes)))
    count = int(np.prod(front.shape[: len(axes)]))
    return list(front.reshape(count, *front.shape[len(axes) :]))


def close(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        scale = float(np.abs(b).max())
        assert scale > 0.0
        # an LSTM and six updates in between; another tensor's statistics show with 1e-2
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "velo" else ()) for name in NAMES]
)
def test_a_stack_of_tensors_is_many_tensors(name):
    """All stacks in one run, beside a plain matrix: VeLO's tensors see the maximum over all."""
    generator = np.random.default_rng(1)
    shapes = [*(shape for shape, _ in STACKS.values()), (6, 2)]
    stacks = [*(stack for _, stack in STACKS.values()), ()]
    params = drawn_params(generator, shapes, scale=0.5)
    gradients = drawn_params(generator, [(UPDATES, *shape) for shape in shapes], scale=1.0)
    for i, gradient in enumerate(gradients):
        gradient *= 10.0 ** (i % 4 - 2)
    losses = jnp.linspace(2.0, 1.0, UPDATES)
    theta, learned = theta_of(name), make(name)

    roles = [role(3, stack) for stack in stacks]
    run = runner(lambda theta: learned.build(theta, roles, jnp.int32(HORIZON)))
    _, found = run(theta, params, gradients, losses)

    apart = [taken_apart(p, stack) for p, stack in zip(params, stacks, strict=True)]
    gradients_apart = [
        [np.stack(steps) for steps in zip(*(taken_apart(g, stack) for g in given), strict=True)]
        for given, stack in zip(gradients, stacks, strict=True)
    ]
    roles_apart = [[role(3)] * len(tensors) for tensors in apart]
    run = runner(lambda theta: learned.build(theta, roles_apart, jnp.int32(HORIZON)))
    _, expected = run(theta, apart, gradients_apart, losses)
    for update, stack, separate in zip(found, stacks, expected, strict=True):
        close(taken_apart(update, stack), [np.asarray(x) for x in separate])


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_each_tensors_own(name):
    """A hundred times larger gradient of one layer is not felt by another, but through VeLO's mix.

    small_fc_lopt has no mix.
    """
    generator = np.random.default_rng(2)
    (params,) = drawn_params(generator, [(2, 4, 5)], scale=0.5)
    (gradients,) = drawn_params(generator, [(UPDATES, 2, 4, 5)], scale=1.0)
    learned, theta = make(name), theta_of(name)
    run = runner(lambda theta: learned.build(theta, [role(3, (0,))], jnp.int32(HORIZON)))
    other = gradients.copy()
    other[:, 1] *= 100.0
    ends = [run(theta, [params], [g], jnp.ones(UPDATES))[1][0] for g in (gradients, other)]
    assert not np.allclose(ends[0][1], ends[1][1], rtol=1e-3, atol=0)
    assert np.array_equal(ends[0][0], ends[1][0]) is (name == "small_fc_lopt")


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_a_stack_has_a_leading_axis_that_counts_tensors(name):
    learned = make(name)
    params = [jnp.ones((4, 3, 5)), jnp.ones((2, 3)), jnp.ones((6, 2))]
    roles = [role(3, (1,)), role(1, (0, 1)), role(3)]
    state = learned.build(theta_of(name), roles, jnp.int32(HORIZON)).init(params)
    matrices, scalars, plain = (state.accumulators[name] for name in "012")
    assert matrices.momentum.shape == (3, 3, 4, 5)
    assert (matrices.row.shape, matrices.col.shape) == ((3, 3, 4, 1), (3, 3, 1, 5))
    assert scalars.momentum.shape == (6, 3, 1)
    assert plain.momentum.shape == (3, 6, 2)
    if name == "velo":
        assert state.lstm.hidden.shape[0] == 3 + 6 + 1


def test_layers_of_a_scanned_network_keep_their_order():
    """The LSTM's rows are dealt to stacks in the order of `jax.tree.leaves`."""
    learned, theta = make("velo"), theta_of("velo")
    roles = {"a": role(1, (0,)), "b": role(1), "c": role(1, (1,))}
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones((4,)), "c": jnp.ones((3, 2))}
    built = learned.build(theta, roles, jnp.int32(HORIZON))
    gradients = jax.tree.map(jnp.zeros_like, params)
    gradients["c"] = gradients["c"].at[:, 1].set(1.0)
    state, update = built.init(params), jax.jit(built.update)
    for _ in range(2):
        _, state = update(gradients, state, params, loss=jnp.float32(1))
    # rows: a0 a1 b c0 c1; all but the last have seen the same
    rows = np.asarray(state.lstm.hidden)
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-6)
    np.testing.assert_allclose(rows[0], rows[3], rtol=1e-6)
    assert not np.allclose(rows[4], rows[3], rtol=1e-3)
