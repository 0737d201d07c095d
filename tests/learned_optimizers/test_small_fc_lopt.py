"""small_fc_lopt computes what was published, held against an independent oracle in float64.

The oracle, `numpy_reference`, is written from the papers' formulas and shares nothing with the
implementation. Shapes, seeds and awkward gradients are drawn at random.
"""

import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.learned_optimizers.accumulators import init_accumulators, update_accumulators
from mulo_cli.learned_optimizers.small_fc_lopt import (
    ARITHMETIC_ELEMENTS,
    SmallFcLoptConfig,
    decays_of,
    feature_groups,
    network_outputs,
    small_fc_lopt,
)
from mulo_cli.mup.roles import ParamRole, RoleKind
from mulo_cli.mup.rules import standard
from tests.learned_optimizers import numpy_reference

small_fc_lopt_module = importlib.import_module("mulo_cli.learned_optimizers.small_fc_lopt")
"""Its function has the same name."""

UPDATES = 6
STEP_SIZE = 0.01
PARAM_SCALE = 0.05
"""Parameters and their updates are so small that storing them in float32 loses less than 1e-8."""

TOLERANCE = 3e-4
"""Relative to the largest output of the network. 1 - decay is formed in float32: of 1 - 0.999 it
keeps four digits (6e-8 / 1e-3 = 6e-5), which features, layers and six updates may pass on a few
times. The worst of 400 draws was 3e-5; any constant doubled, 1e-6 or 1e-9, shows with 2e-2."""

SHAPES = [(), (1,), (7,), (3, 5), (5, 3), (4, 4), (1, 6), (2, 3, 4), (3, 3, 2), (2, 2, 3, 3)]
"""Every rank from 0 to 4, with ties between axes, both orders, and axes of length one."""

LARGE_SHAPES = [(32, 33), (1_001,)]

MAGNITUDES = [0.0, 1e-4, 1.0, 1e3]


def role(multiplier_of: int) -> ParamRole:
    return ParamRole(RoleKind.HIDDEN, (0,), (1,), fan_in=multiplier_of, fan_out=1)


def drawn_theta(generator: np.random.Generator, hidden_size: int) -> dict:
    """Return theta with weights and biases of size one per fan-in, and decays far from theirs."""
    config = SmallFcLoptConfig(hidden_size=hidden_size)
    theta = small_fc_lopt(config).init(jax.random.key(generator.integers(2**31)))
    network = {
        name: np.asarray(leaf) + 0.1 * generator.standard_normal(leaf.shape).astype(np.float32)
        for name, leaf in theta["nn"].items()
    }

    def deltas(low: float, high: float, size: int) -> np.ndarray:
        return generator.uniform(low, high, size).astype(np.float32)

    return {
        # 1 - 0.1 exp(10 * 0.35) = -2.3: momenta may even alternate; they are not clipped
        "momentum_decays": deltas(-0.3, 0.35, 3),
        # 1 - 0.001 exp(10 * 0.8) < 0: clipped
        "rms_decays": deltas(-0.3, 0.8, 1),
        "adafactor_decays": deltas(-0.3, 0.8, 3),
        "nn": network,
    }


def drawn_gradients(generator: np.random.Generator, shapes, magnitude: float) -> list[list]:
    """Return one list of tensors per update, here and there with an entry that is not finite."""

    def gradient(shape):
        values = magnitude * np.asarray(generator.standard_normal(shape), np.float32)
        spoiled = generator.random(shape) < 0.05
        return np.where(spoiled, generator.choice([np.nan, np.inf, -np.inf]), values).astype(
            np.float32
        )

    return [[gradient(shape) for shape in shapes] for _ in range(UPDATES)]


@functools.cache
def program(config: SmallFcLoptConfig, fan_ins: tuple[int, ...]):
    """Return the compiled sum of all updates, as a function of theta, params and gradients."""
    roles = [role(fan_in) for fan_in in fan_ins]

    def run(theta, params, gradients):
        optimizer = small_fc_lopt(config).build(theta, roles, jnp.int32(UPDATES))

        def step(carry, gradients):
            params, state, total = carry
            updates, state = optimizer.update(gradients, state, params, loss=jnp.float32(0))
            total = jax.tree.map(jnp.add, total, updates)
            return (optax.apply_updates(params, updates), state, total), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        carry, _ = jax.lax.scan(step, (params, optimizer.init(params), zeros), gradients)
        return carry[2]

    return jax.jit(run)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=2),
    seed=st.integers(0, 2**31 - 1),
    hidden_size=st.sampled_from([4, 32]),
    magnitude=st.sampled_from(MAGNITUDES),
    time_feature=st.sampled_from(["offset", "plain"]),
    clip=st.booleans(),
)
def test_updates_are_those_of_the_published_formulas(
    shapes, seed, hidden_size, magnitude, time_feature, clip
):
    config = SmallFcLoptConfig(hidden_size, STEP_SIZE, 0.001, time_feature, clip)
    hold_against_oracle(config, shapes, seed, magnitude)


@pytest.mark.parametrize("seed", range(3))
def test_updates_of_large_tensors_are_those_of_the_published_formulas(seed):
    """Large: so many elements that the network runs as fused arithmetic."""
    assert all(math.prod(shape) >= ARITHMETIC_ELEMENTS for shape in LARGE_SHAPES)
    hold_against_oracle(SmallFcLoptConfig(8, STEP_SIZE), LARGE_SHAPES, seed, magnitude=1.0)


def hold_against_oracle(config: SmallFcLoptConfig, shapes, seed: int, magnitude: float) -> None:
    """Train tensors of these shapes with drawn gradients, here and in the oracle."""
    generator = np.random.default_rng(seed)
    fan_ins = (1, 4)[: len(shapes)]
    theta = drawn_theta(generator, config.hidden_size)
    params = [
        PARAM_SCALE * np.asarray(generator.standard_normal(shape), np.float32) for shape in shapes
    ]
    params = [np.asarray(param, np.float32) for param in params]
    gradients = drawn_gradients(generator, shapes, magnitude)

    stacked = [np.stack(steps) for steps in zip(*gradients, strict=True)]
    found = program(config, fan_ins)(theta, params, stacked)
    oracle = numpy_reference.Settings(STEP_SIZE, 0.001, config.time_feature, config.clip_gradients)
    multipliers = [1 / fan_in for fan_in in fan_ins]
    ends = numpy_reference.train(theta, params, gradients, multipliers, oracle)
    for sums, end, param, multiplier in zip(found, ends, params, multipliers, strict=True):
        expected = (end - param) / (STEP_SIZE * multiplier)
        outputs = np.asarray(sums, np.float64) / (STEP_SIZE * multiplier)
        assert outputs.shape == param.shape
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=TOLERANCE * scale)


# --- Two ways to run the network ------------------------------------------------------------------


def outputs_for(theta, gradient, parameter):
    """Return the network's outputs for a tensor that has seen one gradient."""
    accumulators = init_accumulators(gradient.shape)
    accumulators = update_accumulators(accumulators, decays_of(theta), gradient)
    groups = feature_groups(gradient, parameter, accumulators)
    return network_outputs(theta, groups, jnp.ones(11))


@pytest.mark.parametrize("shape", [(1200,), (30, 40), (3, 20, 20)])
def test_products_and_arithmetic_give_the_same_outputs(monkeypatch, shape):
    generator = np.random.default_rng(7)
    theta = drawn_theta(generator, hidden_size=8)
    tensors = generator.standard_normal((2, *shape)).astype(np.float32)
    found = {}
    for way, elements in (("arithmetic", 1), ("products", 10**9)):
        monkeypatch.setattr(small_fc_lopt_module, "ARITHMETIC_ELEMENTS", elements)
        found[way] = np.stack(jax.jit(lambda *given: outputs_for(*given))(theta, *tensors))
    assert found["products"].shape == (2, *shape)
    assert found["products"].std() > 0.1
    # sums of 28 and 8 products of float32 in another order, relative to the largest
    scale = np.abs(found["products"]).max()
    np.testing.assert_allclose(found["arithmetic"], found["products"], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("shape", "hidden_size", "way"),
    [
        ((1000,), 4, "_by_arithmetic"),
        ((25, 40), 16, "_by_arithmetic"),
        ((999,), 4, "_by_products"),
        ((27, 37), 16, "_by_products"),
        ((25, 40), 17, "_by_products"),
        ((1000, 1000), 32, "_by_products"),
    ],
)
def test_arithmetic_is_for_large_tensors_and_small_networks(monkeypatch, shape, hidden_size, way):
    taken = []

    def spy_on(name: str):
        original = getattr(small_fc_lopt_module, name)

        def spy(*given):
            taken.append(name)
            return original(*given)

        monkeypatch.setattr(small_fc_lopt_module, name, spy)

    spy_on("_by_arithmetic")
    spy_on("_by_products")
    theta = jax.eval_shape(small_fc_lopt(SmallFcLoptConfig(hidden_size)).init, jax.random.key(0))
    tensor = jax.ShapeDtypeStruct(shape, jnp.float32)
    found = jax.eval_shape(outputs_for, theta, tensor, tensor)
    assert taken == [way]
    assert [output.shape for output in found] == [shape, shape]


@pytest.mark.parametrize(("hidden_size", "numbers"), [(32, 2_409), (4, 197)])
def test_theta_has_the_names_and_the_size_of_published_weights(hidden_size, numbers):
    theta = small_fc_lopt(SmallFcLoptConfig(hidden_size)).init(jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: leaf.shape, theta)
    assert shapes == {
        "momentum_decays": (3,),
        "rms_decays": (1,),
        "adafactor_decays": (3,),
        "nn": {
            "w0": (39, hidden_size),
            "b0": (hidden_size,),
            "w1": (hidden_size, hidden_size),
            "b1": (hidden_size,),
            "w2": (hidden_size, 2),
            "b2": (2,),
        },
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(theta)) == numbers
    assert {leaf.dtype for leaf in jax.tree.leaves(theta)} == {jnp.dtype(jnp.float32)}


def test_theta_is_born_with_cut_normal_weights_and_zeros_elsewhere():
    theta = small_fc_lopt(SmallFcLoptConfig(200)).init(jax.random.key(0))
    network = theta.pop("nn")
    zeros = [*theta.values(), network["b0"], network["b1"], network["b2"]]
    assert not any(np.asarray(leaf).any() for leaf in zeros)
    for name, fan_in in (("w0", 39), ("w1", 200), ("w2", 200)):
        scaled = np.asarray(network[name]) * fan_in**0.5
        assert np.abs(scaled).max() <= 2.0 * (1 + 1e-6)
        # five standard errors of a deviation whose numbers are normal
        assert scaled.std() == pytest.approx(0.8796, rel=5 / np.sqrt(2 * scaled.size))
        assert abs(scaled.mean()) < 5 / np.sqrt(scaled.size)


CONFIG = SmallFcLoptConfig(hidden_size=4)


@pytest.fixture(scope="module")
def theta():
    return jax.tree.map(jnp.asarray, drawn_theta(np.random.default_rng(3), 4))


def world(seed: int, *shapes):
    generator = np.random.default_rng(seed)
    params = [np.asarray(generator.standard_normal(s), np.float32) for s in shapes]
    gradients = [np.asarray(generator.standard_normal((UPDATES, *s)), np.float32) for s in shapes]
    return params, gradients


def test_a_scalar_is_a_vector_of_one(theta):
    params, gradients = world(0, ())
    found = program(CONFIG, (1,))(theta, params, gradients)
    lifted = [[x[..., None] for x in tree] for tree in (params, gradients)]
    expected = program(CONFIG, (1,))(theta, *lifted)
    assert found[0].shape == ()
    assert float(found[0]) == pytest.approx(float(expected[0][0]), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [False, True])
def test_a_gradient_that_is_not_finite_counts_as_zero(theta, value, clip):
    params, gradients = world(1, (3, 4), (5,))
    spoiled, zeroed = [[g.copy() for g in gradients] for _ in range(2)]
    for leaf, entry in ((0, (0, 1, 2)), (1, (4, 0))):
        spoiled[leaf][entry], zeroed[leaf][entry] = value, 0.0
    run = program(SmallFcLoptConfig(hidden_size=4, clip_gradients=clip), (1, 1))
    found, expected = run(theta, params, spoiled), run(theta, params, zeroed)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not np.array_equal(found[0], run(theta, params, gradients)[0])


@pytest.mark.parametrize("clip", [False, True])
def test_tensors_know_of_each_other_through_clipping_only(theta, clip):
    params, gradients = world(2, (3, 4), (5,))
    others, other_gradients = world(3, (3, 4), (5,))
    run = program(SmallFcLoptConfig(hidden_size=4, clip_gradients=clip), (1, 1))
    alone = run(theta, params, gradients)[0]
    beside = run(theta, [params[0], 9 * others[1]], [gradients[0], 9 * other_gradients[1]])[0]
    assert np.array_equal(alone, beside) is not clip


def test_clipping_acts_on_long_gradients_only(theta):
    params, gradients = world(4, (3, 4), (5,))
    norms = np.sqrt(sum(np.square(g).reshape(UPDATES, -1).sum(axis=1) for g in gradients))
    assert norms.min() > 1.0
    ends = {}
    for clip in (False, True):
        run = program(SmallFcLoptConfig(hidden_size=4, clip_gradients=clip), (1, 1))
        ends[clip] = [run(theta, params, [by * g for g in gradients])[0] for by in (0.1, 1.0, 2.0)]
    assert (0.1 * norms).max() < 1.0
    np.testing.assert_array_equal(ends[True][0], ends[False][0])
    assert not np.allclose(ends[True][1], ends[False][1])
    # an update that forgets the length of its gradients; rounding of the factor
    np.testing.assert_allclose(ends[True][1], ends[True][2], rtol=1e-4, atol=1e-6)


def test_the_loss_and_the_horizon_are_ignored(theta):
    params, gradients = jax.tree.map(jnp.asarray, world(5, (4,)))
    learned = small_fc_lopt(CONFIG, standard)

    @jax.jit
    def update(loss, num_steps):
        optimizer = learned.build(theta, [role(1)], num_steps)
        state = optimizer.init(params)
        return optimizer.update([gradients[0][0]], state, params, loss=loss)[0][0]

    one = update(jnp.float32(0.1), jnp.int32(10))
    np.testing.assert_array_equal(one, update(jnp.float32(np.nan), jnp.int32(1_000)))


def test_it_counts_its_updates_and_starts_from_nothing():
    params, learned = [jnp.ones((3, 2))], small_fc_lopt(CONFIG)
    optimizer = learned.build(learned.init(jax.random.key(0)), [role(3)], jnp.int32(1))
    state = optimizer.init(params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state))
    step = jax.jit(optimizer.update)
    for _ in range(2):
        _, state = step(params, state, params)
    assert int(state.updates_done) == 2
