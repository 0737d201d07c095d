"""VeLO computes what was published, held against an independent oracle in float64.

The oracle, `velo_reference`, is written from the papers' formulas and shares nothing with the
implementation. Shapes, seeds, losses and awkward gradients are drawn at random.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.learned_optimizers.accumulators import Accumulators
from mulo_cli.learned_optimizers.velo import VeloConfig, VeloState, init_theta, velo
from mulo_cli.learned_optimizers.velo_lstm import (
    FRACTION_LEFT,
    fraction_left_offset,
    lstm_inputs,
    tensor_inputs,
)
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES, adam_like
from tests.learned_optimizers import velo_reference
from tests.learned_optimizers.draws import (
    ABSOLUTE,
    MAGNITUDES,
    SHAPES,
    UPDATES,
    by_tensor,
    drawn_gradients,
    drawn_params,
    float32,
    role,
    runner,
    shaken,
)

RELATIVE = 1e-3
"""Float32 loss features are good to 5e-4, and the LSTM reads them."""

LOUDNESS = 2.0
"""Times the heads' initial size: updates are of size 1e-3, not of some 1e-6 as at birth."""

HORIZON = 50
FAN_INS = (1, 4, 3)

SETTINGS = {
    "muvelo": {},
    "plain": {"fraction_left": "plain", "loss_feature_horizon": 10},
    "wide": {"hidden_size": 32, "interpolation_scale": 3.0},
    "google": {
        "interpolation_scale": 100.0,
        "parameter_scale": True,
        "loss_feature_horizon": 10,
        "lstm_size": 8,
        "bank_size": 5,
    },
    "strong": {"step_size": 0.002, "magnitude_scale": 0.1, "parameter_scale": True},
}
"""Configurations to try: muVeLO's, Google's, and each choice once."""

LOSSES = {
    "falling": lambda generator: 2.3 * 0.9 ** np.arange(UPDATES) + 0.1 * generator.random(UPDATES),
    "spike": lambda generator: 2.3 + generator.random(UPDATES) * [1, 1, 1e4, 1, 1, 1e30],
    "negative": lambda generator: generator.standard_normal(UPDATES),
    "not finite": lambda generator: np.where(
        generator.random(UPDATES) < 0.5,
        generator.choice([np.nan, np.inf, -np.inf], UPDATES),
        1.0 + generator.random(UPDATES),
    ),
}
"""No loss is constant: what float32 leaves of a difference of equals is arbitrary."""


@functools.cache
def program(name: str, parametrization: str, fan_ins: tuple[int, ...]):
    learned = velo(VeloConfig(**SETTINGS[name]), LEARNED_OPTIMIZER_RULES[parametrization])
    roles = [role(fan_in) for fan_in in fan_ins]
    return runner(lambda theta: learned.build(theta, roles, jnp.int32(HORIZON)))


def oracle_settings(config: VeloConfig) -> velo_reference.Settings:
    return velo_reference.Settings(
        HORIZON,
        config.step_size,
        config.magnitude_scale,
        config.fraction_left,
        config.interpolation_scale,
        config.parameter_scale,
        config.loss_feature_horizon,
    )


def drawn_theta(generator: np.random.Generator, config: VeloConfig):
    """Return theta as it may become: biases and the LSTM's first state are not zero, heads speak.

    However weights are mixed, they are of the size for which networks are born.
    """
    theta = shaken(generator, init_theta(jax.random.key(generator.integers(2**31)), config))
    heads = theta["rnn_params"]
    louder = {
        "rnn_to_controls": LOUDNESS * config.bank_size**0.5 / config.interpolation_scale,
        "step_size": LOUDNESS,
    }
    for head, by in louder.items():
        heads[head] = {name: float32(by * leaf) for name, leaf in heads[head].items()}
    return theta


class Distance(NamedTuple):
    """How far six updates are from the oracle's."""

    absolute: float
    """Of parameters, at most."""
    relative: float
    """Of the sums of updates, relative to the largest of all tensors."""


def distance_to_oracle(name, parametrization, shapes, seed, magnitude, losses) -> Distance:
    """Train tensors of these shapes with drawn gradients and losses, here and in the oracle."""
    generator = np.random.default_rng(seed)
    config, fan_ins = VeloConfig(**SETTINGS[name]), FAN_INS[: len(shapes)]
    theta, params = drawn_theta(generator, config), drawn_params(generator, shapes)
    gradients = drawn_gradients(generator, shapes, magnitude)
    losses = float32(LOSSES[losses](generator))
    run = program(name, parametrization, fan_ins)
    found, sums = run(theta, params, by_tensor(gradients), losses)
    multipliers = [1 / n if parametrization == "mup" else 1.0 for n in fan_ins]
    expected = velo_reference.train(
        theta, params, gradients, losses.tolist(), multipliers, oracle_settings(config)
    )
    assert [end.shape for end in found] == list(shapes)
    moved = [
        (end - start) / by for end, start, by in zip(expected, params, multipliers, strict=True)
    ]
    sums = [np.asarray(total, float) / by for total, by in zip(sums, multipliers, strict=True)]
    return Distance(largest(found, expected), largest(sums, moved) / largest(moved))


def largest(ones, others=None) -> float:
    """Return the largest difference between tensors, or the largest number in them."""
    others = others or [0.0] * len(ones)
    return max(np.abs(np.asarray(a, float) - b).max() for a, b in zip(ones, others, strict=True))


CASES = [
    ("muvelo", "mup", ((7,), (3, 5), ())),
    ("muvelo", "sp", ((4, 4), (2, 3, 4), (1,))),
    ("plain", "mup", ((3, 3, 2), (5, 3))),
    ("wide", "sp", ((2, 2, 3, 3), (1, 6))),
    ("google", "sp", ((5, 3), (7,))),
    ("strong", "mup", ((3, 5),)),
]


def test_the_cases_have_every_setting_and_every_shape():
    names, _, shapes = zip(*CASES, strict=True)
    assert set(names) == SETTINGS.keys()
    assert {shape for case in shapes for shape in case} == set(SHAPES)


@pytest.mark.parametrize(("name", "parametrization", "shapes"), CASES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    magnitude=st.sampled_from(MAGNITUDES),
    losses=st.sampled_from(sorted(LOSSES)),
)
def test_updates_are_those_of_the_published_formulas(
    name, parametrization, shapes, seed, magnitude, losses
):
    distance = distance_to_oracle(name, parametrization, shapes, seed, magnitude, losses)
    assert distance.absolute < ABSOLUTE
    assert distance.relative < RELATIVE


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(SETTINGS)),
    parametrization=st.sampled_from(["mup", "sp"]),
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3),
    seed=st.integers(0, 2**31 - 1),
    magnitude=st.sampled_from(MAGNITUDES),
    losses=st.sampled_from(sorted(LOSSES)),
)
def test_updates_of_all_shapes_are_those_of_the_published_formulas(
    name, parametrization, shapes, seed, magnitude, losses
):
    distance = distance_to_oracle(name, parametrization, shapes, seed, magnitude, losses)
    assert distance.absolute < ABSOLUTE


def test_updates_of_large_tensors_are_those_of_the_published_formulas():
    shapes = [(32, 33), (1_001,)]
    for seed in range(3):
        distance = distance_to_oracle("muvelo", "mup", shapes, seed, 1.0, "spike")
        assert distance.absolute < ABSOLUTE
        assert distance.relative < RELATIVE


@pytest.mark.parametrize("wrong", [{"step_size": 0.00101}, {"magnitude_scale": 0.02}])
def test_the_comparison_sees_small_mistakes(monkeypatch, wrong):
    right = oracle_settings(VeloConfig())
    case = ("muvelo", "mup", ((7,), (3, 5), ()))
    monkeypatch.setitem(
        globals(), "oracle_settings", lambda config: velo_reference.Settings(**vars(right) | wrong)
    )
    assert distance_to_oracle(*case, 3, 1.0, "falling").relative > 2 * RELATIVE


# --- What the LSTM sees ---------------------------------------------------------------------------


def velo_world(seed: int, *shapes, magnitude: float = 1.0):
    """Return theta of muVeLO's defaults, parameters, and gradients that are all finite."""
    generator = np.random.default_rng(seed)
    theta = jax.tree.map(jnp.asarray, drawn_theta(generator, VeloConfig()))
    params = drawn_params(generator, shapes, scale=0.5)
    return theta, params, drawn_gradients(generator, shapes, magnitude, spoiled=0.0)


@pytest.mark.parametrize("magnitude", [1e-4, 1.0, 1e3])
def test_the_lstm_sees_what_was_published(magnitude):
    """The oracle's run is advanced, and its accumulators and loss buffer are handed over."""
    shapes = ((), (7,), (4, 4), (1, 6), (2, 3, 4), (2, 2, 1, 3), (2, 1, 2, 1, 2, 2))
    theta, params, gradients = velo_world(0, *shapes, magnitude=magnitude)
    params[1] *= 0.0
    oracle = velo_reference.Settings(HORIZON)
    run = velo_reference.initial_run(theta, params, oracle)
    for turn, given_gradients in enumerate(gradients):
        loss = 2.3 + 0.1 * (-0.5) ** turn
        expected = velo_reference.stacked_lstm_inputs(
            run, velo_reference.update_loss_buffer(run.loss_buffer, loss), oracle
        )
        rows = [
            tensor_inputs(jnp.asarray(float32(parameter)), handed_over(before))
            for parameter, before in zip(run.parameters, run.accumulators, strict=True)
        ]
        tensors = jax.tree.map(lambda *rows: jnp.stack(rows), *rows)
        loss_row = jnp.asarray(expected[0, 9:18], jnp.float32)
        fraction = fraction_left_offset(jnp.float32(turn / HORIZON))
        found = lstm_inputs(fraction, loss_row, tensors)
        # logarithms of variances: cancellation takes digits where a mean is far from zero
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
        run = velo_reference.update(theta, run, given_gradients, loss, [1.0] * len(shapes), oracle)


def handed_over(before) -> Accumulators:
    """Return the oracle's accumulators as ours; factored ones are not looked at."""
    zeros = jnp.zeros((3, 1))
    momentum = jnp.stack([float32(m) for m in before.momenta])
    return Accumulators(momentum, jnp.asarray(before.second_moment, jnp.float32), zeros, None)


def test_both_formulas_of_the_fraction_left_are_named():
    x = np.array(velo_reference.FRACTIONS)
    for name, t in itertools.product(FRACTION_LEFT, (0.0, 0.25, 1.0)):
        expected = velo_reference.fraction_left(int(100 * t), 100, name)
        np.testing.assert_allclose(FRACTION_LEFT[name](jnp.float32(t)), expected, atol=2e-6)
    assert float(FRACTION_LEFT["offset"](jnp.float32(0.4))[3]) == pytest.approx(0.0, abs=1e-6)
    assert x[3] == 0.4


def first_update(theta, params, gradients, horizon=HORIZON, loss=1.0, config=None):
    """Return the update and the state after it."""
    return _first_update(config or VeloConfig(), horizon)(
        theta, params, gradients, jnp.float32(loss)
    )


@functools.cache
def _first_update(config, horizon):
    @jax.jit
    def update(theta, params, gradients, loss):
        roles = jax.tree.map(lambda _: role(1), params)
        built = velo(config).build(theta, roles, jnp.int32(horizon))
        return built.update(gradients, built.init(params), params, loss=loss)

    return update


def test_the_first_update_does_not_know_the_loss_and_the_third_does():
    theta, params, gradients = velo_world(1, (3, 4), (5,))
    run = program("muvelo", "mup", (1, 1))
    losses = np.float32([2.3, 2.2, 2.0, 2.5, 1.0, 1.5])
    ends = [
        run(theta, params, by_tensor(gradients), jnp.asarray(changed))[1][0]
        for changed in (losses, losses * np.float32([1, 1, 1.3, 1, 1, 1]), losses)
    ]
    assert not np.array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])
    one, other = (first_update(theta, params, gradients[0], loss=x)[0] for x in (0.1, 1e6))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_horizon_matters():
    theta, *given = velo_world(2, (3, 4))
    learned = velo(VeloConfig())

    @jax.jit
    def second_update(horizon):
        built = learned.build(theta, [role(1)], horizon)
        params, gradients = jax.tree.map(jnp.asarray, given)
        _, state = built.update(gradients[0], built.init(params), params, loss=jnp.float32(1))
        return built.update(gradients[1], state, params, loss=jnp.float32(1))[0][0]

    assert not np.array_equal(second_update(jnp.int32(10)), second_update(jnp.int32(1_000)))


# --- Physics --------------------------------------------------------------------------------------


@functools.cache
def named_program(*names: str):
    """Return a compiled run over a dict of tensors with these names."""
    learned = velo(VeloConfig(), adam_like)
    roles = {name: role(3) for name in names}
    return runner(lambda theta: learned.build(theta, roles, jnp.int32(HORIZON)))


NAMES = ("w0", "b0", "w1", "b1")
MLP = ((4, 8), (8,), (8, 3), (3,))
ROUNDING = 1e-4
"""Of sums in another order, over six steps; relative to a tensor's largest update."""


def mlp_run(theta, params, gradients, losses=None):
    losses = jnp.linspace(2.3, 1.1, UPDATES) if losses is None else losses
    return named_program(*params)(theta, params, gradients, losses)[1]


def mlp_world(seed: int):
    theta, params, gradients = velo_world(seed, *MLP)
    return (
        theta,
        dict(zip(NAMES, params, strict=True)),
        dict(zip(NAMES, by_tensor(gradients), strict=True)),
    )


def near(found, expected):
    def check(a, b):
        largest_update = float(jnp.abs(b).max())
        assert largest_update > 0.0
        np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING * largest_update)

    jax.tree.map(check, found, expected)


def test_permuting_hidden_units_permutes_their_updates():
    theta, params, gradients = mlp_world(3)
    order = np.random.default_rng(0).permutation(8)

    def permuted(tree):
        return {
            **tree,
            "w0": tree["w0"][..., order],
            "b0": tree["b0"][..., order],
            "w1": jnp.take(tree["w1"], order, axis=tree["w1"].ndim - 2),
        }

    updates = mlp_run(theta, params, gradients)
    near(mlp_run(theta, permuted(params), permuted(gradients)), permuted(updates))
    assert not np.allclose(updates["b0"], updates["b0"][order], rtol=10 * ROUNDING, atol=0)


def test_the_order_of_tensors_does_not_matter():
    theta, params, gradients = mlp_world(4)
    other_names = dict(zip(NAMES, ("3", "1", "0", "2"), strict=True))

    def renamed(tree):
        return {other_names[name]: leaf for name, leaf in tree.items()}

    found = mlp_run(theta, renamed(params), renamed(gradients))
    near(found, renamed(mlp_run(theta, params, gradients)))


def test_tensors_know_of_each_other():
    theta, params, gradients = mlp_world(5)
    beside = {**gradients, "w0": 100.0 * gradients["w0"]}
    one, other = (mlp_run(theta, params, g) for g in (gradients, beside))
    assert not np.allclose(one["b1"], other["b1"], rtol=10 * ROUNDING, atol=0)


def test_the_network_does_not_see_the_scale_of_large_gradients_but_for_the_lstm():
    """At the first update accumulators are zero: the LSTM sees no gradient, features are normed.

    What is not scale-free: clipping to 0.1, and floors far below these gradients.
    """
    theta, params, gradients = velo_world(6, (16, 16))
    signs = [np.sign(g) for g in gradients[0]]  # clipped or not, a sign is a sign
    one, other = (first_update(theta, params, [by * g for g in signs])[0][0] for by in (15.0, 30.0))
    np.testing.assert_allclose(one, other, rtol=0, atol=5e-3 * float(jnp.abs(other).max()))
    tiny = first_update(theta, params, [1e-4 * g for g in signs])[0][0]
    assert not np.allclose(tiny, other, rtol=0, atol=0.02 * float(jnp.abs(other).max()))


def test_parameter_scale_multiplies_updates_by_the_root_mean_square():
    theta, params, gradients = velo_world(7, (3, 4), (5,))
    plain, _ = first_update(theta, params, gradients[0])
    scaled, _ = first_update(theta, params, gradients[0], config=VeloConfig(parameter_scale=True))
    for before, a, b in zip(params, scaled, plain, strict=True):
        np.testing.assert_allclose(a, np.sqrt(np.mean(before**2) + 1e-9) * b, rtol=1e-5)


def test_interpolation_scale_multiplies_weights_and_biases():
    theta, params, gradients = velo_world(8, (3, 4))
    bigger, _ = first_update(
        theta, params, gradients[0], config=VeloConfig(interpolation_scale=7.0)
    )
    bank = jax.tree.map(lambda leaf: 7.0 * leaf, theta["ff_mod_stack"])
    expected, _ = first_update({**theta, "ff_mod_stack": bank}, params, gradients[0])
    np.testing.assert_allclose(bigger[0], expected[0], rtol=1e-5)


@pytest.mark.parametrize("leaf", ["linear", "third output"])
def test_what_published_weights_have_and_nothing_uses_changes_nothing(leaf):
    theta, params, gradients = velo_world(9, (3, 4))
    expected, _ = first_update(theta, params, gradients[0])
    if leaf == "linear":
        rnn = {
            **theta["rnn_params"],
            "linear": jax.tree.map(jnp.ones_like, theta["rnn_params"]["linear"]),
        }
        theta = {**theta, "rnn_params": rnn}
    else:
        bank = theta["ff_mod_stack"]
        changed = {name: bank[name].at[..., 2].set(9.0) for name in ("w2", "b2")}
        theta = {**theta, "ff_mod_stack": {**bank, **changed}}
    found, _ = first_update(theta, params, gradients[0])
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize(
    ("value", "counts_as"), [(np.nan, 0.0), (np.inf, 1e3), (-np.inf, -1e3), (4e4, 1e3)]
)
def test_gradients_are_clipped_and_nan_counts_as_zero(value, counts_as):
    theta, params, gradients = velo_world(10, (3, 4), (5,))
    spoiled, cleaned = (by_tensor(gradients) for _ in range(2))
    for leaf, entry in ((0, (0, 1, 2)), (1, (4, 0))):
        spoiled[leaf][entry], cleaned[leaf][entry] = value, counts_as
    run = program("muvelo", "mup", (1, 1))
    losses = jnp.linspace(2.3, 1.1, UPDATES)
    found, expected = (run(theta, params, g, losses)[1] for g in (spoiled, cleaned))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not np.array_equal(found[0], run(theta, params, by_tensor(gradients), losses)[1][0])


def test_it_counts_its_updates_and_starts_from_nothing():
    theta, params, gradients = velo_world(11, (3, 2))
    built = velo(VeloConfig()).build(theta, [role(3)], jnp.int32(HORIZON))
    state = built.init(params)
    assert isinstance(state, VeloState)
    rest = (state.updates_done, state.accumulators, state.lstm, state.loss_buffer.means)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(rest))
    step = jax.jit(built.update)
    for turn in range(2):
        _, state = step(gradients[turn], state, params, loss=jnp.float32(2.0))
    assert int(state.updates_done) == int(state.loss_buffer.seen) == 2
    assert state.lstm.hidden.shape == (1, 16)


# --- Theta ----------------------------------------------------------------------------------------


def test_theta_has_the_names_and_shapes_of_published_weights():
    units, lstm, bank = 4, 6, 5
    theta = init_theta(jax.random.key(0), VeloConfig(units, lstm, bank))

    def layer(inputs, outputs):
        return {"w": (inputs, outputs), "b": (outputs,)}

    sizes = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
    groups = {f"w0__{j}": (bank, size, units) for j, size in enumerate(sizes)}
    assert jax.tree.map(jnp.shape, theta) == {
        "lstm_init_state": {"hidden": (1, lstm), "cell": (1, lstm)},
        "rnn_params": {
            "linear": layer(30, lstm),
            "linear_1": layer(30, lstm),
            "linear_2": layer(30, lstm),
            "rnn": {"linear": layer(2 * lstm, 4 * lstm)},
            "rnn_to_controls": layer(lstm, bank),
            "step_size": layer(lstm, 1),
        },
        "ff_mod_stack": groups
        | {"b0": (bank, units), "w1": (bank, units, units), "b1": (bank, units)}
        | {"w2": (bank, units, 3), "b2": (bank, 3)},
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(theta)} == {jnp.dtype(jnp.float32)}


def test_theta_is_born_with_cut_normal_weights_and_zeros_elsewhere():
    units, lstm, bank = 20, 60, 50
    theta = init_theta(jax.random.key(1), VeloConfig(units, lstm, bank))
    fan_ins = {f"ff_mod_stack/w0__{j}": 30 for j in range(14)}
    fan_ins |= {"ff_mod_stack/w1": units, "ff_mod_stack/w2": units}
    fan_ins |= {f"rnn_params/{name}/w": 30 for name in ("linear", "linear_1", "linear_2")}
    fan_ins |= {f"rnn_params/{name}/w": lstm for name in ("rnn_to_controls", "step_size")}
    fan_ins["rnn_params/rnn/linear/w"] = 2 * lstm
    seen = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in fan_ins:
            assert not np.asarray(leaf).any(), name
            continue
        seen.add(name)
        scaled = np.asarray(leaf) * fan_ins[name] ** 0.5
        assert np.abs(scaled).max() <= 2.0 * (1 + 1e-6)
        # five standard errors of a deviation whose numbers are normal
        assert scaled.std() == pytest.approx(0.8796, rel=5 / np.sqrt(2 * scaled.size)), name
        assert abs(scaled.mean()) < 5 / np.sqrt(scaled.size), name
    assert seen == fan_ins.keys()


def test_networks_of_the_bank_are_drawn_independently():
    theta = init_theta(jax.random.key(2), VeloConfig(8, 4, 6))
    w1 = np.asarray(theta["ff_mod_stack"]["w1"]).reshape(6, -1)
    correlations = np.corrcoef(w1) - np.eye(6)
    assert np.abs(correlations).max() < 5 / np.sqrt(w1.shape[1])
