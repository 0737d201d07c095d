"""What every optimizer promises, hand-designed and learned alike: one interface, one contract.

An optimizer is an `optax.GradientTransformationExtraArgs` that anybody's optax code can use: it can
be jitted, mapped over its hyper-parameters (or its theta), scanned and chained.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.mup.roles import infer_roles
from mulo_cli.mup.rules import adam_like, standard
from mulo_cli.optimizers.base import MakeOptimizer
from mulo_cli.optimizers.catalogue import OPTIMIZERS

WIDTH = 16
"""A power of two: dividing by it is exact in binary."""

SETTINGS = {"small_fc_lopt": {"hidden_size": 4}}
"""Small configurations of the learned ones; the contract is the same for all sizes."""

STEPS = jnp.int32(100)
ROUNDING = 2e-5
"""Relative: some hundred float32 operations in another order."""


class Candidate(NamedTuple):
    """An optimizer, and a hyper-parameter tree that it is content with."""

    make: MakeOptimizer
    hyper: Any


def learned(name: str, rule=adam_like) -> Candidate:
    entry = LEARNED_OPTIMIZERS[name]
    optimizer = entry.make(entry.config(**SETTINGS[name]), rule)
    return Candidate(optimizer.build, optimizer.init(jax.random.key(0)))


def candidate(name: str) -> Candidate:
    if name in OPTIMIZERS:
        hyper = OPTIMIZERS[name].defaults
        return Candidate(OPTIMIZERS[name].make, {k: jnp.float32(v) for k, v in hyper.items()})
    return learned(name)


def init_params(width: int):
    """Return the init of a network with a parameter of every rank and role."""

    def init(key):
        keys = jax.random.split(key, 4)
        return {
            "input": {"kernel": jax.random.normal(keys[0], (6, width)), "bias": jnp.ones(width)},
            "hidden": jax.random.normal(keys[1], (width, width)),
            "readout": jax.random.normal(keys[2], (width, 3)),
            "temperature": jnp.float32(0.5),
        }

    return init


ROLES = infer_roles(init_params(8), init_params(WIDTH))


@pytest.fixture(scope="module")
def params():
    return jax.jit(init_params(WIDTH))(jax.random.key(1))


@pytest.fixture(scope="module")
def gradients(params):
    return jax.tree.map(lambda p: jnp.sin(7.0 * p), params)


@pytest.fixture(scope="module", params=[*OPTIMIZERS, *LEARNED_OPTIMIZERS])
def built(request):
    made = candidate(request.param)
    return made.make(made.hyper, ROLES, STEPS)


@pytest.fixture(params=[*OPTIMIZERS, *LEARNED_OPTIMIZERS])
def made(request):
    return candidate(request.param)


def shapes(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.asarray(x).dtype), tree)


def loss(params) -> jax.Array:
    """Return a quadratic with its minimum at zero."""
    return 0.5 * sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params))


def close(found, expected):
    """Assert equality up to rounding, relative to the largest number of each tensor."""

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING * float(jnp.abs(b).max()))

    jax.tree.map(check, found, expected)


def test_every_learned_optimizer_has_its_row_here():
    assert SETTINGS.keys() == LEARNED_OPTIMIZERS.keys()


def test_it_is_an_optax_transformation_that_takes_the_loss_and_what_it_does_not_know(
    built, params, gradients
):
    assert isinstance(built, optax.GradientTransformationExtraArgs)
    state = built.init(params)
    update = jax.jit(lambda *a: built.update(*a, loss=jnp.float32(2.3), unheard_of=jnp.ones(3)))
    updates, _ = update(gradients, state, params)
    assert all(bool(jnp.any(u != 0)) for u in jax.tree.leaves(updates))


def test_updates_look_like_the_params_and_the_state_keeps_its_form(built, params, gradients):
    state = jax.jit(built.init)(params)
    updates, new_state = jax.eval_shape(
        lambda *a: built.update(*a, loss=jnp.float32(0)), gradients, state, params
    )
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == shapes(params)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new_state) == shapes(state)


def test_it_changes_neither_the_state_nor_the_params_it_is_given(built, params, gradients):
    state = built.init(params)
    before = jax.tree.map(lambda x: np.array(x), (gradients, state, params))
    built.update(gradients, state, params, loss=jnp.float32(0))
    jax.tree.map(np.testing.assert_array_equal, before, (gradients, state, params))


def test_it_is_compiled_once_however_often_and_with_whatever_hyper_parameters_it_is_called(
    made, params, gradients
):
    traces = []

    @jax.jit
    def step(hyper, num_steps, state, params):
        traces.append(1)
        optimizer = made.make(hyper, ROLES, num_steps)
        updates, state = optimizer.update(gradients, state, params, loss=jnp.float32(1.0))
        return state, optax.apply_updates(params, updates)

    state = made.make(made.hyper, ROLES, STEPS).init(params)
    for turn in range(3):
        hyper = jax.tree.map(lambda h, by=turn: h * (1.0 - 0.01 * by), made.hyper)
        state, params = step(hyper, STEPS + turn, state, params)
    assert len(traces) == 1


def test_a_grid_is_a_vmap_over_hyper_parameters(made, params, gradients):
    @jax.jit
    def first_update(hyper):
        optimizer = made.make(hyper, ROLES, STEPS)
        return optimizer.update(gradients, optimizer.init(params), params, loss=jnp.float32(0))[0]

    grid = [jax.tree.map(lambda h, by=by: by * h, made.hyper) for by in (1.0, 0.5)]
    stacked = jax.tree.map(lambda *hypers: jnp.stack(hypers), *grid)
    together = jax.jit(jax.vmap(first_update))(stacked)
    for i, hyper in enumerate(grid):
        close(jax.tree.map(lambda u, i=i: u[i], together), first_update(hyper))
    assert not np.allclose(together["hidden"][0], together["hidden"][1])


def test_scanning_it_is_calling_it_again_and_again(built, params):
    def step(carry, _):
        params, state = carry
        updates, state = built.update(params, state, params, loss=loss(params))
        return (optax.apply_updates(params, updates), state), None

    start = (params, built.init(params))
    scanned, _ = jax.jit(lambda start: jax.lax.scan(step, start, length=4))(start)
    carry, once = start, jax.jit(step)
    for _ in range(4):
        carry, _ = once(carry, None)
    close(scanned[0], carry[0])
    assert int(jnp.max(jnp.abs(scanned[0]["hidden"] - params["hidden"])) > 0) == 1


def test_it_can_be_chained(built, params, gradients):
    chained = optax.chain(optax.clip_by_global_norm(1e-2), built, optax.scale(2.0))
    update = jax.jit(lambda *a: chained.update(*a, loss=jnp.float32(0)))
    found, _ = update(gradients, chained.init(params), params)
    clipped, _ = optax.clip_by_global_norm(1e-2).update(gradients, optax.EmptyState())
    alone, _ = jax.jit(built.update)(clipped, built.init(params), params)
    close(found, jax.tree.map(lambda u: 2.0 * u, alone))


# --- Hand-designed optimizers ---------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_hand_designed_optimizer_descends_a_quadratic(name, params):
    entry = OPTIMIZERS[name]
    # a step of 0.02 per coordinate, for hidden ones under muP too, so that all arrive in 400
    factor = WIDTH if entry.parametrization == "mup" else 1
    hyper = {**entry.defaults, "learning_rate": 0.01 * factor**0.5}
    optimizer = entry.make(hyper, ROLES, STEPS)

    def step(carry, _):
        params, state = carry
        gradients = jax.grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params, loss=loss(params))
        return (optax.apply_updates(params, updates), state), loss(params)

    start = (params, optimizer.init(params))
    (end, _), losses = jax.jit(lambda start: jax.lax.scan(step, start, length=400))(start)
    assert float(losses[1]) < float(losses[0])
    assert float(loss(end)) < 0.05 * float(losses[0])


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_its_defaults_name_every_hyper_parameter_with_optax_values(name):
    reference = {"adamw": optax.adamw, "muadam": optax.adam}[name]
    params, gradients = {"w": jnp.ones((4, 4))}, {"w": jnp.full((4, 4), 0.3)}
    roles = infer_roles(lambda key: {"w": jnp.ones((4, 2))}, lambda key: params)
    ours = OPTIMIZERS[name].make(OPTIMIZERS[name].defaults, roles, STEPS)
    theirs = reference(OPTIMIZERS[name].defaults["learning_rate"])
    updates, _ = ours.update(gradients, ours.init(params), params)
    expected, _ = theirs.update(gradients, theirs.init(params), params)
    np.testing.assert_array_equal(updates["w"], expected["w"])


def test_muadam_is_adam_but_for_hidden_matrices_and_those_by_one_over_their_fan_in(
    params, gradients
):
    hyper = OPTIMIZERS["muadam"].defaults
    ours, adam = OPTIMIZERS["muadam"].make(hyper, ROLES, STEPS), optax.adam(**hyper)
    ours_state, adam_state = ours.init(params), adam.init(params)
    for _ in range(3):
        found, ours_state = ours.update(gradients, ours_state, params)
        expected, adam_state = adam.update(gradients, adam_state, params)
        expected["hidden"] = expected["hidden"] / WIDTH
        jax.tree.map(np.testing.assert_array_equal, found, expected)


# --- Learned optimizers ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LEARNED_OPTIMIZERS))
def test_a_learned_optimizer_under_mup_divides_hidden_updates_by_fan_in_and_no_others(
    name, params, gradients
):
    found = {}
    for rule in (adam_like, standard):
        made = learned(name, rule)
        optimizer = made.make(made.hyper, ROLES, STEPS)
        found[rule], _ = optimizer.update(gradients, optimizer.init(params), params)
    expected = {**found[standard], "hidden": found[standard]["hidden"] / WIDTH}
    jax.tree.map(np.testing.assert_array_equal, found[adam_like], expected)


@pytest.mark.parametrize("name", sorted(LEARNED_OPTIMIZERS))
def test_a_learned_optimizer_does_not_know_which_hidden_unit_is_which(
    name, params, gradients, getkey
):
    made = learned(name)
    optimizer = made.make(made.hyper, ROLES, STEPS)
    order = jax.random.permutation(getkey(), WIDTH)

    def permuted(tree):
        """Return the same network with its first layer of hidden units in another order."""
        return {
            **tree,
            "input": {
                "kernel": tree["input"]["kernel"][:, order],
                "bias": tree["input"]["bias"][order],
            },
            "hidden": tree["hidden"][order],
        }

    @jax.jit
    def two_updates(params, gradients):
        updates, state = optimizer.update(gradients, optimizer.init(params), params)
        opposite = jax.tree.map(lambda g: jnp.cos(g), gradients)
        more, _ = optimizer.update(opposite, state, optax.apply_updates(params, updates))
        return jax.tree.map(jnp.add, updates, more)

    # a vector whose elements are all alike would not notice
    params = {**params, "input": {**params["input"], "bias": params["hidden"][0]}}
    gradients = {**gradients, "input": {**gradients["input"], "bias": gradients["hidden"][0]}}
    close(two_updates(permuted(params), permuted(gradients)), permuted(two_updates(params, gradients)))


@pytest.mark.parametrize("name", sorted(LEARNED_OPTIMIZERS))
def test_birth_of_theta_is_a_pure_function_of_its_key(name, getkey):
    entry = LEARNED_OPTIMIZERS[name]
    init = entry.make(entry.config(**SETTINGS[name]), adam_like).init
    one, other = getkey(), getkey()
    jax.tree.map(np.testing.assert_array_equal, init(one), init(one))
    flat = [jax.flatten_util.ravel_pytree(init(key))[0] for key in (one, other)]
    assert not np.array_equal(*flat)
