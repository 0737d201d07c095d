"""Inside wrappers that hide parameters, without what it needs, and in other types."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.errors import RoleError, UsageError
from tests.learned_optimizers.architectures import NAMES, make, theta_of
from tests.learned_optimizers.draws import UPDATES, float32, role

HORIZON = 50


def tensors(seed: int, scale: float = 0.5):
    generator = np.random.default_rng(seed)
    shapes = {"w": (4, 6), "b": (6,), "out": (6, 3)}
    return {
        name: jnp.asarray(float32(scale * generator.standard_normal(shape)))
        for name, shape in shapes.items()
    }


PARAMS, GRADIENTS = tensors(0), tensors(1)
ROLES = {"w": role(4), "b": role(1), "out": role(6)}
LOSS = jnp.float32(2.0)


def build(name: str, roles=ROLES):
    return make(name).build(theta_of(name), roles, jnp.int32(HORIZON))


def updates_and_state(transformation, params=PARAMS, gradients=GRADIENTS):
    """Return the second update and the state after it."""

    @jax.jit
    def two(params, gradients):
        state = transformation.init(params)
        for _ in range(2):
            updates, state = transformation.update(gradients, state, params, loss=LOSS)
        return updates, state

    return two(params, gradients)


def without_biases(tree):
    return {name: leaf for name, leaf in tree.items() if name != "b"}


# --- Holes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_masked_parameters_are_holes_and_others_do_not_feel_it(name):
    mask = {"w": True, "b": False, "out": True}
    found, state = updates_and_state(optax.masked(build(name), mask))
    alone, expected_state = updates_and_state(
        build(name, without_biases(ROLES)), without_biases(PARAMS), without_biases(GRADIENTS)
    )
    np.testing.assert_array_equal(found["b"], GRADIENTS["b"])  # what `masked` promises
    for leaf in ("w", "out"):
        np.testing.assert_allclose(found[leaf], alone[leaf], rtol=1e-5, atol=1e-9)
    accumulators = state.inner_state.accumulators
    assert accumulators.keys() == {"w", "out"}
    for leaf in ("w", "out"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-12),
            accumulators[leaf],
            expected_state.accumulators[leaf],
        )


@pytest.mark.parametrize("name", NAMES)
def test_parameters_can_be_shared_out_between_optimizers(name):
    shared = optax.multi_transform(
        {"learned": build(name), "sgd": optax.sgd(0.5)}, {"w": "learned", "b": "sgd", "out": "sgd"}
    )
    found, _ = updates_and_state(shared)
    only = {"w": ROLES["w"]}
    alone, _ = updates_and_state(build(name, only), {"w": PARAMS["w"]}, {"w": GRADIENTS["w"]})
    np.testing.assert_allclose(found["w"], alone["w"], rtol=1e-5, atol=1e-9)
    for leaf in ("b", "out"):
        np.testing.assert_array_equal(found[leaf], -0.5 * GRADIENTS[leaf])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_train_is_no_error(name):
    nothing = optax.masked(build(name), dict.fromkeys(PARAMS, False))
    found, _ = updates_and_state(nothing)
    jax.tree.map(np.testing.assert_array_equal, found, GRADIENTS)


# --- Complaints -----------------------------------------------------------------------------------


def is_one_sentence(error) -> bool:
    return "\n" not in error.message and 0 < len(error.message) < 200 and bool(error.hint)


@pytest.mark.parametrize("name", NAMES)
def test_without_params_it_says_that_it_needs_them(name):
    built = build(name)
    with pytest.raises(UsageError, match="parameters") as caught:
        built.update(GRADIENTS, built.init(PARAMS), loss=LOSS)
    assert is_one_sentence(caught.value)


def test_velo_without_a_loss_says_that_it_needs_it():
    built = build("velo")
    with pytest.raises(UsageError, match="loss") as caught:
        built.update(GRADIENTS, built.init(PARAMS), PARAMS)
    assert is_one_sentence(caught.value)
    assert "loss=loss" in caught.value.hint


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("params", "called"),
    [({**PARAMS, "gain": PARAMS["b"]}, "gain"), (list(PARAMS.values()), "0")],
    ids=["more", "another container"],
)
def test_a_parameter_without_a_role_is_refused_by_name(name, params, called):
    with pytest.raises(RoleError, match=f"'{called}' has no role") as caught:
        build(name).init(params)
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_role_without_a_parameter_is_as_if_it_were_not_there(name):
    some = without_biases(PARAMS), without_biases(GRADIENTS)
    found, _ = updates_and_state(build(name), *some)
    expected, _ = updates_and_state(build(name, without_biases(ROLES)), *some)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# --- Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(jnp.bfloat16, 2.0**-8), pytest.param(jnp.float16, 2.0**-11, marks=pytest.mark.slow)],
)
def test_parameters_in_half_precision_have_accumulators_in_float32(name, dtype, tolerance):
    """Everything between is float32: only the params, the gradients and the end are rounded."""

    def cast(tree, to):
        return jax.tree.map(lambda x: x.astype(to), tree)

    half = cast(PARAMS, dtype), cast(GRADIENTS, dtype)
    found, state = updates_and_state(build(name), *half)
    expected, expected_state = updates_and_state(
        build(name), *(cast(tree, jnp.float32) for tree in half)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    for leaf, same in zip(
        jax.tree.leaves(state.accumulators),
        jax.tree.leaves(expected_state.accumulators),
        strict=True,
    ):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, same, rtol=1e-5, atol=1e-9)
    for leaf, same in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert bool(jnp.isfinite(leaf).all())
        smallest = float(jnp.finfo(dtype).smallest_subnormal)
        np.testing.assert_allclose(
            np.asarray(leaf, np.float32), same, rtol=1.1 * tolerance, atol=smallest
        )


@pytest.mark.parametrize("name", NAMES)
def test_params_and_gradients_may_have_different_types(name):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), GRADIENTS)
    found, _ = updates_and_state(build(name), PARAMS, half)
    expected, _ = updates_and_state(
        build(name), PARAMS, jax.tree.map(lambda x: x.astype(jnp.float32), half)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), found, expected
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_gradients_that_overflow_in_half_precision_do_no_harm(name, dtype):
    infinite = jax.tree.map(lambda x: jnp.where(x > 0.5, jnp.inf, x).astype(dtype), GRADIENTS)
    assert any(np.isinf(np.asarray(x, np.float32)).any() for x in jax.tree.leaves(infinite))
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    found, state = updates_and_state(build(name), params, infinite)
    for leaf in jax.tree.leaves((found, state.accumulators)):
        assert bool(jnp.isfinite(leaf).all())


# --- VeLO's state under persistent evolution strategies -------------------------------------------


def test_a_run_takes_the_lstms_first_state_from_theta_at_its_first_update():
    """Both signs of an antithetic pair share the birth of a run, not the state that theta says."""
    theta, learned = theta_of("velo"), make("velo")
    born = learned.build(theta, ROLES, jnp.int32(HORIZON)).init(PARAMS)

    @jax.jit
    def updates(theta, state):
        built = learned.build(theta, ROLES, jnp.int32(HORIZON))
        found = []
        for _ in range(UPDATES):
            update, state = built.update(GRADIENTS, state, PARAMS, loss=LOSS)
            found.append(update)
        return found, state

    def moved(leaf, by):
        first = {**theta["lstm_init_state"], leaf: theta["lstm_init_state"][leaf] + by}
        return {**theta, "lstm_init_state": first}

    plain, end = updates(theta, born)
    for leaf in ("hidden", "cell"):
        other_theta = moved(leaf, np.float32(0.5))
        found, _ = updates(other_theta, born)
        expected, _ = updates(
            other_theta, learned.build(other_theta, ROLES, jnp.int32(HORIZON)).init(PARAMS)
        )
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        for update, before in zip(found, plain, strict=True):
            assert not np.allclose(update["w"], before["w"], rtol=1e-3, atol=0)
        # later it is the run's own
        later, _ = updates(other_theta, end)
        jax.tree.map(np.testing.assert_array_equal, later, updates(theta, end)[0])
        # and a run that starts anew, as a restart selects it, begins from it again
        anew = jax.tree.map(lambda new, old: jnp.where(True, new, old), born, end)
        again, _ = updates(other_theta, anew)
        jax.tree.map(np.testing.assert_array_equal, again, found)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_without_elements_does_no_harm(name):
    empty = jnp.zeros((0, 6))
    built = build(name, {**ROLES, "z": role(1)})
    found, _ = updates_and_state(built, {**PARAMS, "z": empty}, {**GRADIENTS, "z": empty})
    assert found["z"].shape == (0, 6)
    assert all(np.isfinite(found[leaf]).all() for leaf in PARAMS)
