"""What every optimizer promises, hand-designed and learned alike: one interface, one contract.

An optimizer is an `optax.GradientTransformationExtraArgs` that anybody's optax code can use: it can
be jitted, mapped over its hyper-parameters (or its theta), scanned and chained.
"""

import inspect
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
from mulo_cli.optimizers.schedules import SCHEDULES

WIDTH = 16
"""A power of two: dividing by it is exact in binary."""

SETTINGS = {
    "small_fc_lopt": {"hidden_size": 4},
    "velo": {"hidden_size": 4, "lstm_size": 6, "bank_size": 3},
}
"""Small configurations of the learned ones; the contract is the same for all sizes."""

OURS = {"hidden_lr_mult": 2.0, "eps_scaling": 1.0}

OPTIONS = {
    "adam": OURS,
    "adamw": OURS,
    "muadam": OURS,
    "adopt": {**OURS, "weight_decay": 0.01},
    "lamb": OURS,
    "muon": {
        **OURS,
        "weight_decay": 0.01,
        "adam_weight_decay": 0.02,
        "adam_learning_rate": 0.01,
    },
    "sgd": {"momentum": 0.9, "hidden_lr_mult": 2.0},
    "sophia": {"hidden_lr_mult": 2.0},
}
"""Hyper-parameters that are off unless they are given, with values to try them at."""


def muon_of_optax(learning_rate, beta=0.95, eps=1e-8, adam_b1=0.9, adam_b2=0.999):
    """Return optax's Muon on `hidden`, the only matrix of which both sides grow."""
    parts = {
        "muon": optax.contrib.muon(learning_rate, beta=beta, eps=eps),
        "adam": optax.nadam(learning_rate, adam_b1, adam_b2, eps),
    }
    return optax.partition(parts, {"bias": "adam", "hidden": "muon", "readout": "adam"})


REFERENCES = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "muadam": optax.adam,
    "adopt": optax.contrib.adopt,
    "lamb": optax.lamb,
    "muon": muon_of_optax,
    "sgd": optax.sgd,
    "sophia": optax.contrib.sophia,
}
"""What each hand-designed optimizer is under standard parametrization."""

TO_THE_BIT = ("adam", "adamw", "muadam", "sgd")
"""Those whose operations are optax's in optax's order; the others differ by roundings."""

STEPS = jnp.int32(100)
DESCENT = 1_200
"""Steps in which a rate of 0.1, even divided by WIDTH, goes further than any number here is."""

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
            gradients, state, params, loss=loss(params), obj_fn=loss, unheard_of=jnp.ones(3)
        )

    return Candidate(make, hyper, update, traces)


def learned(name: str, rule=adam_like) -> Candidate:
    entry = LEARNED_OPTIMIZERS[name]
    optimizer = entry.make(entry.config(**SETTINGS[name]), rule)
    return candidate(optimizer.build, lively(optimizer.init(jax.random.key(0))))


def lively(theta: Any) -> Any:
    """Return theta without its many zeros: at birth VeLO's updates are a millionth, or nothing."""
    if "ff_mod_stack" not in theta:
        return theta
    generator = np.random.default_rng(0)

    def grown(leaf: jax.Array) -> jax.Array:
        return 3.0 * leaf + 0.5 * jnp.asarray(generator.standard_normal(leaf.shape), jnp.float32)

    return jax.tree.map(grown, theta)


class Variant(NamedTuple):
    """A hand-designed optimizer, and all that may be said about it beside numbers."""

    name: str
    parametrization: str
    schedule: str = "constant"
    options: bool = False

    @property
    def hyper(self) -> dict[str, float]:
        return {**OPTIMIZERS[self.name].defaults, **(OPTIONS[self.name] if self.options else {})}

    @property
    def make(self) -> MakeOptimizer:
        return OPTIMIZERS[self.name].under(self.parametrization, self.schedule)

    def __str__(self) -> str:
        more = ["options"] if self.options else []
        return "-".join([self.name, self.parametrization, self.schedule, *more])


VARIANTS = [
    *(Variant(name, "mup", options=True) for name in OPTIMIZERS),
    *(Variant("adamw", "sp", schedule) for schedule in SCHEDULES),
]
"""Every optimizer with every option, every schedule once; what they are without is told below."""


def hand_designed(variant: Variant) -> Candidate:
    return candidate(variant.make, {k: jnp.float32(v) for k, v in variant.hyper.items()})


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


ROLES = infer_roles(init_params(8), init_params(WIDTH), readout="forward")
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


@pytest.fixture(scope="module", params=[*VARIANTS, *LEARNED_OPTIMIZERS], ids=str)
def made(request):
    variant = isinstance(request.param, Variant)
    return hand_designed(request.param) if variant else learned(request.param)


def loss(params) -> jax.Array:
    """Return a quadratic with its minimum at zero."""
    return 0.5 * sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params))


def experienced(made) -> optax.OptState:
    """Return the state after one update: ADOPT's first one only looks."""
    return made.update(made.hyper, STEPS, GRADIENTS, made.built.init(PARAMS), PARAMS)[1]


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
    updates, _ = made.update(made.hyper, STEPS, GRADIENTS, experienced(made), PARAMS)
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

    def second_update(hyper):
        built = made.make(hyper, ROLES, STEPS)
        told = {"loss": loss(PARAMS), "obj_fn": loss}
        _, state = built.update(GRADIENTS, built.init(PARAMS), PARAMS, **told)
        return built.update(GRADIENTS, state, PARAMS, **told)[0]

    together = jax.jit(jax.vmap(second_update))(stacked)
    for i, hyper in enumerate(grid):
        _, state = made.update(hyper, STEPS, GRADIENTS, made.built.init(PARAMS), PARAMS)
        alone, _ = made.update(hyper, STEPS, GRADIENTS, state, PARAMS)
        close(jax.tree.map(lambda u, i=i: u[i], together), alone)
    assert not np.allclose(together["hidden"][0], together["hidden"][1])


def test_scanning_it_is_calling_it_again_and_again(made):
    def step(carry, _):
        params, state = carry
        updates, state = made.built.update(params, state, params, loss=loss(params), obj_fn=loss)
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
    update = jax.jit(
        lambda *arguments: chained.update(*arguments, loss=jnp.float32(0), obj_fn=loss)
    )
    clipped, _ = clip.update(GRADIENTS, optax.EmptyState())
    state, alone = chained.init(PARAMS), made.built.init(PARAMS)
    for _ in range(2):
        found, state = update(GRADIENTS, state, PARAMS)
        expected, alone = made.update(made.hyper, STEPS, clipped, alone, PARAMS)
    close(found, jax.tree.map(lambda u: 2.0 * u, expected))


# --- Hand-designed optimizers ---------------------------------------------------------------------


def test_every_hand_designed_optimizer_and_every_option_has_its_row_here():
    assert REFERENCES.keys() == OPTIMIZERS.keys()
    options = {name: set(entry.optional) for name, entry in OPTIMIZERS.items() if entry.optional}
    assert {name: set(values) for name, values in OPTIONS.items()} == options


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_hand_designed_optimizer_descends_a_quadratic(variant):
    # under muP hidden matrices move WIDTH times more slowly: this rate is right for them
    hyper = {**variant.hyper, "learning_rate": jnp.float32(0.1)}
    built = variant.make(hyper, ROLES, jnp.int32(DESCENT))

    def step(carry, _):
        params, state = carry
        updates, state = built.update(
            jax.grad(loss)(params), state, params, loss=loss(params), obj_fn=loss
        )
        return (optax.apply_updates(params, updates), state), loss(params)

    start = (PARAMS, built.init(PARAMS))
    (end, _), losses = jax.jit(lambda start: jax.lax.scan(step, start, length=DESCENT))(start)
    assert float(losses[2]) < float(losses[0])  # ADOPT only looks at first
    assert float(loss(end)) < 0.01 * float(losses[0])


def trajectory(optimizer: optax.GradientTransformation, steps: int = 3):
    """Return every update of a short training, whose gradients change with its parameters."""
    optimizer = optax.with_extra_args_support(optimizer)
    params, state, found = PARAMS, optimizer.init(PARAMS), []
    for _ in range(steps):
        gradients = jax.tree.map(lambda p: jnp.sin(7.0 * p), params)
        updates, state = optimizer.update(gradients, state, params, obj_fn=loss)
        params = optax.apply_updates(params, updates)
        found.append(updates)
    return found


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_defaults_are_those_of_optax(name):
    reference = optax.contrib.muon if name == "muon" else REFERENCES[name]
    theirs = inspect.signature(reference).parameters
    defaults = {k: v for k, v in OPTIMIZERS[name].defaults.items() if k != "learning_rate"}
    assert {key: theirs[key].default for key in defaults} == defaults


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        (
            "adamw",
            {"learning_rate": 0.3, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.5},
        ),
        ("muadam", {"learning_rate": 0.3, "b1": 0.8, "b2": 0.9, "eps": 1e-3}),
        ("adopt", {"learning_rate": 0.3, "b1": 0.8, "b2": 0.9, "eps": 1e-3}),
        (
            "lamb",
            {"learning_rate": 0.3, "b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.5},
        ),
        (
            "muon",
            {"learning_rate": 0.3, "beta": 0.8, "eps": 1e-3, "adam_b1": 0.8, "adam_b2": 0.9},
        ),
        (
            "sophia",
            {
                "learning_rate": 0.3,
                "b1": 0.8,
                "b2": 0.9,
                "eps": 1e-3,
                "gamma": 30.0,
                "clip_threshold": 0.5,
                "update_interval": 2,
                "weight_decay": 0.5,
            },
        ),
        ("sgd", {"learning_rate": 0.3}),
        ("sgd", {"learning_rate": 0.3, "momentum": 0.8}),
    ],
)
def test_under_standard_parametrization_it_is_that_of_optax(name, hyper):
    ours = OPTIMIZERS[name].under("sp")(hyper, ROLES, STEPS)
    found, expected = trajectory(ours), trajectory(REFERENCES[name](**hyper))
    if name in TO_THE_BIT:
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    else:
        close(found, expected)
    assert not np.array_equal(found[0]["hidden"], found[2]["hidden"])


@pytest.mark.parametrize("name", ["adamw", "muadam"])
def test_under_mup_adam_moves_hidden_matrices_by_one_over_their_fan_in_and_all_else_alike(name):
    hyper = {**OPTIMIZERS[name].defaults, "weight_decay": 0.0}
    if name == "muadam":
        hyper.pop("weight_decay")
    found = {}
    for parametrization in ("sp", "mup"):
        built = OPTIMIZERS[name].under(parametrization)(hyper, ROLES, STEPS)
        state, found[parametrization] = built.init(PARAMS), []
        for turn in range(3):  # the same gradients and params for both
            gradients = jax.tree.map(lambda g, by=turn + 1.0: by * g, GRADIENTS)
            updates, state = built.update(gradients, state, PARAMS)
            found[parametrization].append(updates)
    for under_sp, under_mup in zip(found["sp"], found["mup"], strict=True):
        expected = {**under_sp, "hidden": under_sp["hidden"] / WIDTH}
        jax.tree.map(np.testing.assert_array_equal, under_mup, expected)


@pytest.mark.parametrize(
    ("name", "width"),
    [("adamw", WIDTH), *((name, 4 * WIDTH) for name in ("adamw", "adopt", "sophia", "muon"))],
)
def test_decay_is_rate_times_decay_at_every_width_and_for_every_role(name, width):
    """Without a gradient an optimizer stands still, and what is left is decay."""
    init = init_params(width)
    params = init(jax.random.key(2))
    roles = infer_roles(init_params(8), init, readout="forward")
    hyper = {**OPTIMIZERS[name].defaults, "learning_rate": 0.25, "weight_decay": 0.5}
    if name == "muon":
        hyper["adam_weight_decay"] = 0.5
    nothing = jax.tree.map(jnp.zeros_like, params)
    for parametrization in ("sp", "mup"):
        built = OPTIMIZERS[name].under(parametrization)(hyper, roles, STEPS)
        updates, _ = built.update(nothing, built.init(params), params, obj_fn=loss)
        expected = jax.tree.map(lambda p: -0.25 * 0.5 * p, params)  # powers of two: exact
        jax.tree.map(np.testing.assert_array_equal, updates, expected)


def test_each_has_the_parametrization_of_its_paper_unless_told_otherwise():
    own = {name: entry.parametrization for name, entry in OPTIMIZERS.items()}
    assert own == {name: "mup" if name == "muadam" else "sp" for name in OPTIMIZERS}


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
