"""An output has its factor 1/fan_in once: in the forward pass, or in its update."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulo_cli.errors import RoleError
from mulo_cli.mup.modules import Readout
from mulo_cli.mup.roles import ParamRole, RoleKind, infer_roles
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES, adam_like, standard
from mulo_cli.mup.scales import draws_needed, initial_scales
from mulo_cli.mup.scaling import multipliers, scale_by_mup
from tests.mup.networks import by_name, linen, transformer

CLASSES = 5


class Network(nn.Module):
    """A hidden layer and a bare one at the end."""

    width: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width, name="hidden")(x))
        return nn.Dense(CLASSES, kernel_init=self.kernel_init, name="head")(x)


def ending_in(kernel_init):
    return linen(lambda width: Network(width, kernel_init), 1, 7)


def like_fan_in(power: float, size: float = 1.0):
    def kernel_init(key, shape, dtype=jnp.float32):
        return size * shape[0] ** power * jax.random.normal(key, shape, dtype)

    return kernel_init


ZEROS, ONES = nn.initializers.zeros, nn.initializers.ones


@pytest.mark.parametrize(
    ("kernel_init", "small", "large"),
    [
        (ZEROS, 64, 128),
        (like_fan_in(-1), 64, 128),
        (like_fan_in(-1), 128, 64),
        (like_fan_in(-1, 0.02), 48, 64),
        (like_fan_in(-1, 50.0), 16, 256),
    ],
    ids=["zero", "1/fan-in", "downwards", "small", "large"],
)
def test_a_bare_output_that_starts_right_is_scaled_in_its_update(kernel_init, small, large):
    make = ending_in(kernel_init)
    roles = by_name(infer_roles(make(small), make(large)))
    head = roles["head/kernel"]
    assert head.kind is RoleKind.OUTPUT
    assert not head.forward_multiplier
    assert adam_like(head) == 1 / large
    assert adam_like(roles["head/bias"]) == 1.0
    assert {standard(role) for role in roles.values()} == {1.0}


@pytest.mark.parametrize(
    ("kernel_init", "small", "large"),
    [
        (nn.initializers.lecun_normal(), 64, 128),
        (nn.initializers.lecun_normal(), 256, 16),
        (nn.initializers.normal(1.0), 64, 128),
        (ONES, 64, 128),
        (like_fan_in(-2), 16, 64),
    ],
    ids=["flax's own", "downwards", "N(0, 1)", "ones", "too steep"],
)
def test_a_bare_output_that_starts_wrong_is_an_error_with_both_scales(kernel_init, small, large):
    make = ending_in(kernel_init)
    with pytest.raises(RoleError) as caught:
        infer_roles(make(small), make(large))
    message, hint = caught.value.message, caught.value.hint
    assert "'head/kernel'" in message
    assert f"at fan-in {small} and" in message
    assert f"at fan-in {large};" in message
    for cure in ("zero", "N(0, 1/fan_in^2)", "Readout", "readout='forward'", "SP"):
        assert cure in hint
    roles = by_name(infer_roles(make(small), make(large), readout="forward"))
    assert adam_like(roles["head/kernel"]) == 1.0, "the user says that the network divides"


def test_zero_at_one_width_only_is_an_error():
    def make(width):
        return ending_in(ZEROS if width == 8 else like_fan_in(-1))(width)

    with pytest.raises(RoleError, match="deviation 0 at fan-in 8"):
        infer_roles(make(8), make(16))


def test_widths_too_close_to_tell_a_power_are_an_error():
    make = ending_in(like_fan_in(-1))
    with pytest.raises(RoleError, match="cannot be measured between fan-ins 64 and 65") as caught:
        infer_roles(make(64), make(65))
    assert "further apart" in caught.value.hint
    zero = ending_in(ZEROS)
    infer_roles(zero(64), zero(65))


def test_our_readout_is_found_and_nothing_is_measured():
    class Reader(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(self.width)(x)
            return Readout(CLASSES, kernel_init=nn.initializers.normal(1.0))(x)

    make = linen(Reader, 1, 7)
    roles = by_name(infer_roles(make(8), make(16)))
    assert roles["Readout_0/kernel"].forward_multiplier
    assert adam_like(roles["Readout_0/kernel"]) == 1.0
    with pytest.raises(RoleError, match="'Readout_0/kernel' is part of a Readout"):
        infer_roles(make(8), make(16), readout="update")


def test_a_readout_and_a_bare_output_in_one_network():
    class Two(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(self.width)(x)
            value = nn.Dense(1, kernel_init=ZEROS, name="value")(x)
            return Readout(CLASSES, name="policy")(x), value

    make = linen(Two, 1, 7)
    roles = by_name(infer_roles(make(8), make(16)))
    assert roles["policy/kernel"].forward_multiplier
    assert not roles["value/kernel"].forward_multiplier


def test_said_to_act_in_the_update_it_is_measured_all_the_same():
    zeros, wrong = ending_in(ZEROS), ending_in(nn.initializers.normal(1.0))
    roles = infer_roles(zeros(16), zeros(64), readout="update")
    assert not by_name(roles)["head/kernel"].forward_multiplier
    with pytest.raises(RoleError, match="head/kernel"):
        infer_roles(wrong(16), wrong(64), readout="update")


def test_a_whole_role_is_not_measured():
    make = ending_in(nn.initializers.normal(1.0))
    role = ParamRole(RoleKind.OUTPUT, (0,), (1,), 64, CLASSES, forward_multiplier=False)
    roles = by_name(infer_roles(make(16), make(64), {"head/kernel": role}))
    assert adam_like(roles["head/kernel"]) == 1 / 64


def test_models_of_tasks_under_sp_raise_nothing():
    from tests.worlds import digits_task

    for parametrization in ("mup", "sp"):
        roles = by_name(digits_task(16, parametrization).roles)
        assert roles["readout/kernel"].forward_multiplier


def test_the_rule_of_learned_optimizers_knows_both_forms():
    forward = ParamRole(RoleKind.OUTPUT, (0,), (1,), fan_in=64, fan_out=5)
    update = ParamRole(RoleKind.OUTPUT, (0,), (1,), fan_in=64, fan_out=5, forward_multiplier=False)
    relative = ParamRole(RoleKind.OUTPUT, (0,), (1,), 64, 5, (), 16, forward_multiplier=False)
    rule = LEARNED_OPTIMIZER_RULES["mup"]
    assert (rule(forward), rule(update), rule(relative)) == (1.0, 1 / 64, 1 / 4)
    assert standard(update) == 1.0


def test_both_forms_are_the_same_training():
    """Tensor Programs V, Tables 3 and 8: W/n with rate r, or W with rate r/n, from W = 0."""
    width, steps, rate = 32, 6, 0.05
    x = jax.random.normal(jax.random.key(1), (16, 7))
    y = jax.random.normal(jax.random.key(2), (16, CLASSES))

    def init(width):
        def of_key(key):
            return {
                "hidden": jax.random.normal(key, (7, width)) / 7**0.5,
                "middle": jax.random.normal(key, (width, width)) / width**0.5,
                "head": jnp.zeros((width, CLASSES)),
            }

        return of_key

    def losses(readout, divisor):
        roles = infer_roles(init(8), init(width), readout=readout)
        tx = optax.chain(optax.scale_by_adam(eps=1e-30), scale_by_mup(roles), optax.scale(-rate))

        def loss(params):
            h = jnp.tanh(jnp.tanh(x @ params["hidden"]) @ params["middle"])
            return jnp.mean((h @ params["head"] / divisor - y) ** 2)

        params = init(width)(jax.random.key(0))
        state, found = tx.init(params), []
        for _ in range(steps):
            value, gradients = jax.value_and_grad(loss)(params)
            updates, state = tx.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            found.append(float(value))
        return found

    with jax.numpy_dtype_promotion("standard"):
        forward, update = losses("forward", width), losses("auto", 1)
    assert forward[-1] < forward[0]
    # both differ by the rounding of one division per step
    np.testing.assert_allclose(forward, update, rtol=1e-4)


def test_a_measurement_returns_the_root_mean_square_of_the_leaves_asked_for():
    def init(key):
        return {"a": 3 + 4 * jax.random.normal(key, (50, 50)), "b": jnp.ones(3), "c": ONES(key, ())}

    found = initial_scales(init, [0, 1], draws=4)
    # the mean of 10 000 squares of N(3, 16) has a relative standard error of 1.5 %
    np.testing.assert_allclose(found, [5.0, 1.0], rtol=0.05)


@given(st.integers(1, 10**7), st.floats(1.5, 64))
def test_fewer_draws_do_for_larger_leaves_and_wider_ranges(elements, widening):
    draws = draws_needed(elements, widening)
    assert 1 <= draws <= 64
    assert draws_needed(2 * elements, widening) <= draws
    assert draws_needed(elements, 2 * widening) <= draws
    assert draws_needed(elements, 1 / widening) == draws


def test_multipliers_of_a_transformer_are_those_of_the_paper():
    roles = infer_roles(transformer(8), transformer(24))
    for name, factor in by_name_of(multipliers(roles)).items():
        hidden = name.endswith("kernel") and "readout" not in name
        assert factor == (1 / (96 if "down" in name else 24) if hidden else 1.0), name


def by_name_of(tree) -> dict[str, float]:
    from mulo_cli.mup.roles import leaf_name

    return {leaf_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
