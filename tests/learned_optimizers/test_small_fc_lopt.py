"""small_fc_lopt computes what was published, held against an independent oracle in float64.

The oracle, `numpy_reference`, is written from the papers' formulas and shares nothing with the
implementation. Shapes, seeds and awkward gradients are drawn at random.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.learned_optimizers.small_fc_lopt import SmallFcLoptConfig, small_fc_lopt
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES, standard
from tests.learned_optimizers import numpy_reference
from tests.learned_optimizers.draws import (
    ABSOLUTE,
    MAGNITUDES,
    SHAPES,
    UPDATES,
    by_tensor,
    drawn_gradients,
    drawn_params,
    role,
    runner,
    shaken,
)

STEP_SIZE = 0.01

TOLERANCE = 3e-4
"""Relative to the largest output of the network. 1 - decay is formed in float32: of 1 - 0.999 it
keeps four digits (6e-8 / 1e-3 = 6e-5), which features, layers and six updates may pass on a few
times. The worst of 400 draws was 3e-5; any constant doubled, 1e-6 or 1e-9, shows with 2e-2."""

LARGE_SHAPES = [(32, 33), (1_001,)]

PUBLISHED_DECAYS = {
    "momentum_decays": (0.15216392, 0.14245212, 0.06812963),
    "rms_decays": (0.01079706,),
    "adafactor_decays": (0.18621896, -0.10864615, -0.06185547),
}
"""Those of the released muLO."""


def drawn_theta(generator: np.random.Generator, hidden_size: int) -> dict:
    """Return theta with weights and biases of size one per fan-in, and decays far from theirs."""
    config = SmallFcLoptConfig(hidden_size=hidden_size)
    theta = small_fc_lopt(config).init(jax.random.key(generator.integers(2**31)))
    network = shaken(generator, theta["nn"])

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


@functools.cache
def program(config: SmallFcLoptConfig, fan_ins: tuple[int, ...], parametrization: str = "mup"):
    learned = small_fc_lopt(config, LEARNED_OPTIMIZER_RULES[parametrization])
    roles = [role(fan_in) for fan_in in fan_ins]
    return runner(lambda theta: learned.build(theta, roles, jnp.int32(UPDATES)))


def sum_of_updates(config: SmallFcLoptConfig, theta, params, gradients):
    """Return the sums of six updates with gradients that have an axis of updates."""
    return program(config, (1,) * len(params))(theta, params, gradients, jnp.zeros(UPDATES))[1]


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
    hold_against_oracle(SmallFcLoptConfig(8, STEP_SIZE), LARGE_SHAPES, seed, magnitude=1.0)


def oracle_settings(config: SmallFcLoptConfig) -> numpy_reference.Settings:
    return numpy_reference.Settings(
        config.step_size, config.magnitude_scale, config.time_feature, config.clip_gradients
    )


def hold_against_oracle(config: SmallFcLoptConfig, shapes, seed: int, magnitude: float) -> None:
    """Train tensors of these shapes with drawn gradients, here and in the oracle."""
    generator = np.random.default_rng(seed)
    fan_ins = (1, 4)[: len(shapes)]
    theta = drawn_theta(generator, config.hidden_size)
    params = drawn_params(generator, shapes)
    gradients = drawn_gradients(generator, shapes, magnitude)
    _, found = program(config, fan_ins)(theta, params, by_tensor(gradients), jnp.zeros(UPDATES))
    multipliers = [1 / fan_in for fan_in in fan_ins]
    ends = numpy_reference.train(theta, params, gradients, multipliers, oracle_settings(config))
    for sums, end, param, multiplier in zip(found, ends, params, multipliers, strict=True):
        expected = (end - param) / (STEP_SIZE * multiplier)
        outputs = np.asarray(sums, np.float64) / (STEP_SIZE * multiplier)
        assert outputs.shape == param.shape
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=TOLERANCE * scale)


def published_theta(generator: np.random.Generator, hidden_size: int, decays: str) -> dict:
    """Return theta as it is born, with the decays it is born with or those of the released muLO."""
    theta = small_fc_lopt(SmallFcLoptConfig(hidden_size)).init(
        jax.random.key(generator.integers(2**31))
    )
    theta = jax.tree.map(np.asarray, theta)
    if decays == "released":
        theta |= {name: np.asarray(x, np.float32) for name, x in PUBLISHED_DECAYS.items()}
    return theta


def distance_to_oracle(
    hidden_size, parametrization, shapes, seed, magnitude, decays, clip
) -> float:
    """Return how far parameters are from the oracle's after six updates, at most."""
    generator = np.random.default_rng(seed)
    config = SmallFcLoptConfig(hidden_size, STEP_SIZE, clip_gradients=clip)
    theta = published_theta(generator, hidden_size, decays)
    params, fan_ins = drawn_params(generator, shapes), (1, 4, 3)[: len(shapes)]
    gradients = drawn_gradients(generator, shapes, magnitude)
    run = program(config, fan_ins, parametrization)
    found, _ = run(theta, params, by_tensor(gradients), jnp.zeros(UPDATES))
    multipliers = [1 / n if parametrization == "mup" else 1.0 for n in fan_ins]
    expected = numpy_reference.train(theta, params, gradients, multipliers, oracle_settings(config))
    return max(np.abs(np.asarray(a, float) - b).max() for a, b in zip(found, expected, strict=True))


PUBLISHED_CASES = [
    (32, "mup", ((7,), (3, 5), ()), False),
    (32, "sp", ((4, 4), (2, 3, 4)), True),
    (4, "sp", ((2, 2, 3, 3), (5, 3), (1, 6)), False),
]


@pytest.mark.parametrize(("hidden_size", "parametrization", "shapes", "clip"), PUBLISHED_CASES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    magnitude=st.sampled_from(MAGNITUDES),
    decays=st.sampled_from(["born", "released"]),
)
def test_parameters_are_those_of_the_published_formulas(
    hidden_size, parametrization, shapes, clip, seed, magnitude, decays
):
    """The published setting: step size 0.01, and decays as they are born or released."""
    distance = distance_to_oracle(
        hidden_size, parametrization, shapes, seed, magnitude, decays, clip
    )
    assert distance < ABSOLUTE


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
    found = sum_of_updates(CONFIG, theta, params, gradients)
    lifted = [[x[..., None] for x in tree] for tree in (params, gradients)]
    expected = sum_of_updates(CONFIG, theta, *lifted)
    assert found[0].shape == ()
    assert float(found[0]) == pytest.approx(float(expected[0][0]), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [False, True])
def test_a_gradient_that_is_not_finite_counts_as_zero(theta, value, clip):
    params, gradients = world(1, (3, 4), (5,))
    spoiled, zeroed = [[g.copy() for g in gradients] for _ in range(2)]
    for leaf, entry in ((0, (0, 1, 2)), (1, (4, 0))):
        spoiled[leaf][entry], zeroed[leaf][entry] = value, 0.0
    config = SmallFcLoptConfig(hidden_size=4, clip_gradients=clip)
    run = functools.partial(sum_of_updates, config)
    found, expected = run(theta, params, spoiled), run(theta, params, zeroed)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not np.array_equal(found[0], run(theta, params, gradients)[0])


@pytest.mark.parametrize("clip", [False, True])
def test_tensors_know_of_each_other_through_clipping_only(theta, clip):
    params, gradients = world(2, (3, 4), (5,))
    others, other_gradients = world(3, (3, 4), (5,))
    config = SmallFcLoptConfig(hidden_size=4, clip_gradients=clip)
    run = functools.partial(sum_of_updates, config)
    alone = run(theta, params, gradients)[0]
    beside = run(theta, [params[0], 9 * others[1]], [gradients[0], 9 * other_gradients[1]])[0]
    assert np.array_equal(alone, beside) is not clip


def test_clipping_acts_on_long_gradients_only(theta):
    params, gradients = world(4, (3, 4), (5,))
    norms = np.sqrt(sum(np.square(g).reshape(UPDATES, -1).sum(axis=1) for g in gradients))
    assert norms.min() > 1.0
    ends = {}
    for clip in (False, True):
        config = SmallFcLoptConfig(hidden_size=4, clip_gradients=clip)
        run = functools.partial(sum_of_updates, config, theta, params)
        ends[clip] = [run([by * g for g in gradients])[0] for by in (0.1, 1.0, 2.0)]
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
