"""What every optimizer promises, hand-designed and learned alike: one interface, one contract.

An optimizer is an `optax.GradientTransformationExtraArgs` that anybody's optax code can use: it can
be jitted, mapped over its hyper-parameters (or its theta), scanned and chained.
"""

from collections.abc import Callable
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
    """An optimizer, a hyper-parameter tree that it is content with, and its one program."""

    make: MakeOptimizer
    hyper: Any
    update: Callable
    """Compiled: (hyper, num_steps, gradients, state, params) -> (updates, state)."""

    traces: list[int]
    """One entry for each time that the program was traced."""

    @property
    def built(self) -> optax.GradientTransformationExtraArgs:
        return self.make(self.hyper, ROLES, STEPS)


def candidate(make: MakeOptimizer, hyper: Any) -> Candidate:
    traces = []

    @jax.jit
    def update(hyper, num_steps, gradients, state, params):
        traces.append(1)
        optimizer = make(hyper, ROLES, num_steps)
        return optimizer.update(
            gradients, state, params, loss=jnp.float32(2.3), unheard_of=jnp.ones(3)
        )

    return Candidate(make, hyper, update, traces)


def learned(name: str, rule=adam_like) -> Candidate:
    entry = LEARNED_OPTIMIZERS[name]
    optimizer = entry.make(entry.config(**SETTINGS[name]), rule)
    return candidate(optimizer.build, optimizer.init(jax.random.key(0)))


def hand_designed(name: str) -> Candidate:
    entry = OPTIMIZERS[name]
    return candidate(entry.make, {k: jnp.float32(v) for k, v in entry.defaults.items()})


def init_params(width: int):
    """Return the init of a network with a parameter of every role."""

    def init(key):
        keys = jax.random.split(key, 3)
        return {
            "bias": jax.random.normal(keys[0], (width,)),
            "hidden": jax.random.normal(keys[1], (width, width)),
            "readout": jax.random.normal(keys[2], (width, 3)),
        }

    return init


ROLES = infer_roles(init_params(8), init_params(WIDTH))
PARAMS = jax.jit(init_params(WIDTH))(jax.random.key(1))
GRADIENTS = jax.tree.map(lambda p: jnp.sin(7.0 * p), PARAMS)


@pytest.fixture(autouse=True)
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module", params=sorted(LEARNED_OPTIMIZERS))
def learned_name(request):
    return request.param


@pytest.fixture(scope="module", params=[*OPTIMIZERS, *LEARNED_OPTIMIZERS])
def made(request):
    return hand_designed(request.param) if request.param in OPTIMIZERS else learned(request.param)


def loss(params) -> jax.Array:
    """Return a quadratic with its minimum at zero."""
    return 0.5 * sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params))


def form(tree):
    """Return structure, shapes and types of a tree."""
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def close(found, expected):
    """Assert equality up to rounding, relative to the largest number of each tensor."""

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING * float(jnp.abs(b).max()))

    jax.tree.map(check, found, expected)


def test_every_learned_optimizer_has_its_row_here():
    assert SETTINGS.keys() == LEARNED_OPTIMIZERS.keys()


def test_it_is_an_optax_transformation_that_moves_every_parameter(made):
    assert isinstance(made.built, optax.GradientTransformationExtraArgs)
    state = made.built.init(PARAMS)
    updates, _ = made.update(made.hyper, STEPS, GRADIENTS, state, PARAMS)
    for update in jax.tree.leaves(updates):
        assert bool(jnp.isfinite(update).all())
        assert float(jnp.mean(update != 0)) > 0.9


def test_updates_look_like_the_params_and_the_state_keeps_its_form(made):
    state = made.built.init(PARAMS)
    updates, new_state = made.update(made.hyper, STEPS, GRADIENTS, state, PARAMS)
    assert form(updates) == form(PARAMS)
    assert form(new_state) == form(state)


def test_it_is_compiled_once_however_often_and_with_whatever_hyper_parameters_it_is_called(made):
    params, state = PARAMS, made.built.init(PARAMS)
    for turn in range(3):
        hyper = jax.tree.map(lambda h, by=turn: h * (1.0 - 0.01 * by), made.hyper)
        updates, state = made.update(hyper, STEPS + turn, GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
    assert len(made.traces) == 1


def test_a_grid_is_a_vmap_over_hyper_parameters(made):
    grid = [jax.tree.map(lambda h, by=by: by * h, made.hyper) for by in (1.0, 0.5)]
    stacked = jax.tree.map(lambda *hypers: jnp.stack(hypers), *grid)
    state = made.built.init(PARAMS)

    def first_update(hyper):
        built = made.make(hyper, ROLES, STEPS)
        return built.update(GRADIENTS, built.init(PARAMS), PARAMS, loss=jnp.float32(0))[0]

    together = jax.jit(jax.vmap(first_update))(stacked)
    for i, hyper in enumerate(grid):
        alone, _ = made.update(hyper, STEPS, GRADIENTS, state, PARAMS)
        close(jax.tree.map(lambda u, i=i: u[i], together), alone)
    assert not np.allclose(together["hidden"][0], together["hidden"][1])


def test_scanning_it_is_calling_it_again_and_again(made):
    def step(carry, _):
        params, state = carry
        updates, state = made.built.update(params, state, params, loss=loss(params))
        return (optax.apply_updates(params, updates), state), None

    start = (PARAMS, made.built.init(PARAMS))
    (scanned, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, length=4))(start)
    params, state = start
    for _ in range(4):
        updates, state = made.update(made.hyper, STEPS, params, state, params)
        params = optax.apply_updates(params, updates)
    close(scanned, params)
    assert not np.array_equal(scanned["hidden"], PARAMS["hidden"])


def test_it_can_be_chained(made):
    clip = optax.clip_by_global_norm(1e-2)
    chained = optax.chain(clip, made.built, optax.scale(2.0))
    update = jax.jit(lambda *arguments: chained.update(*arguments, loss=jnp.float32(0)))
    found, _ = update(GRADIENTS, chained.init(PARAMS), PARAMS)
    clipped, _ = clip.update(GRADIENTS, optax.EmptyState())
    alone, _ = made.update(made.hyper, STEPS, clipped, made.built.init(PARAMS), PARAMS)
    close(found, jax.tree.map(lambda u: 2.0 * u, alone))


# --- Hand-designed optimizers ---------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_hand_designed_optimizer_descends_a_quadratic(name):
    made = hand_designed(name)
    # under muP hidden matrices move WIDTH times more slowly: this rate is right for them
    hyper = {**made.hyper, "learning_rate": jnp.float32(0.1)}
    built = made.make(hyper, ROLES, STEPS)

    def step(carry, _):
        params, state = carry
        updates, state = built.update(jax.grad(loss)(params), state, params, loss=loss(params))
        return (optax.apply_updates(params, updates), state), loss(params)

    start = (PARAMS, built.init(PARAMS))
    (end, _), losses = jax.jit(lambda start: jax.lax.scan(step, start, length=600))(start)
    assert float(losses[1]) < float(losses[0])
    assert float(loss(end)) < 0.01 * float(losses[0])


@pytest.mark.parametrize(("name", "reference"), [("adamw", optax.adamw), ("muadam", optax.adam)])
def test_defaults_are_those_of_optax(name, reference):
    ours = OPTIMIZERS[name].make(
        OPTIMIZERS[name].defaults, jax.tree.map(lambda _: ROLES["readout"], ROLES), STEPS
    )
    theirs = reference(OPTIMIZERS[name].defaults["learning_rate"])
    found, _ = ours.update(GRADIENTS, ours.init(PARAMS), PARAMS)
    expected, _ = theirs.update(GRADIENTS, theirs.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_muadam_is_adam_but_for_hidden_matrices_and_those_by_one_over_their_fan_in():
    hyper = OPTIMIZERS["muadam"].defaults
    ours, adam = OPTIMIZERS["muadam"].make(hyper, ROLES, STEPS), optax.adam(**hyper)
    ours_state, adam_state = ours.init(PARAMS), adam.init(PARAMS)
    for _ in range(3):
        found, ours_state = ours.update(GRADIENTS, ours_state, PARAMS)
        expected, adam_state = adam.update(GRADIENTS, adam_state, PARAMS)
        expected = {**expected, "hidden": expected["hidden"] / WIDTH}
        jax.tree.map(np.testing.assert_array_equal, found, expected)


# --- Learned optimizers ---------------------------------------------------------------------------


def test_a_learned_optimizer_under_mup_divides_hidden_updates_by_fan_in_and_no_others(learned_name):
    found = {}
    for rule in (adam_like, standard):
        made = learned(learned_name, rule)
        state = made.built.init(PARAMS)
        found[rule], _ = made.update(made.hyper, STEPS, GRADIENTS, state, PARAMS)
    expected = {**found[standard], "hidden": found[standard]["hidden"] / WIDTH}
    jax.tree.map(np.testing.assert_array_equal, found[adam_like], expected)


def test_a_learned_optimizer_does_not_know_which_hidden_unit_is_which(learned_name, getkey):
    made = learned(learned_name)
    order = jax.random.permutation(getkey(), WIDTH)

    def permuted(tree):
        """Return the same network with the units that `hidden` reads in another order."""
        return {**tree, "bias": tree["bias"][order], "hidden": tree["hidden"][order]}

    def second_update(params, gradients):
        state = made.built.init(params)
        updates, state = made.update(made.hyper, STEPS, gradients, state, params)
        params = optax.apply_updates(params, updates)
        return made.update(made.hyper, STEPS, jax.tree.map(jnp.cos, gradients), state, params)[0]

    updates = second_update(PARAMS, GRADIENTS)
    close(second_update(permuted(PARAMS), permuted(GRADIENTS)), permuted(updates))
    assert not np.allclose(updates["hidden"], updates["hidden"][order], rtol=1e-2)


def test_the_birth_of_theta_is_a_pure_function_of_its_key(learned_name, getkey):
    entry = LEARNED_OPTIMIZERS[learned_name]
    init = entry.make(entry.config(**SETTINGS[learned_name]), adam_like).init
    one, other = getkey(), getkey()
    jax.tree.map(np.testing.assert_array_equal, init(one), init(one))
    flat = [jax.flatten_util.ravel_pytree(init(key))[0] for key in (one, other)]
    assert not np.array_equal(*flat)
