"""`scale_by_mup` in other people's chains."""

import jax.numpy as jnp
import optax
import pytest

from mulo_cli.errors import RoleError
from mulo_cli.mup.roles import ParamRole, RoleKind
from mulo_cli.mup.scaling import scale_by_mup

ROLES = {
    "hidden": ParamRole(RoleKind.HIDDEN, (0,), (1,), fan_in=8, fan_out=8),
    "bias": ParamRole(RoleKind.INPUT, (), (0,), fan_in=1, fan_out=8),
}
UPDATES = {"hidden": jnp.ones((8, 8)), "bias": jnp.ones(8)}


def test_hidden_updates_are_divided_by_their_fan_in():
    scale = scale_by_mup(ROLES)
    found, _ = scale.update(UPDATES, scale.init(UPDATES))
    assert (float(found["hidden"][0, 0]), float(found["bias"][0])) == (1 / 8, 1.0)


def test_holes_of_a_mask_are_left_alone():
    masked = optax.masked(scale_by_mup(ROLES), {"hidden": True, "bias": False})
    found, _ = masked.update(UPDATES, masked.init(UPDATES))
    assert (float(found["hidden"][0, 0]), float(found["bias"][0])) == (1 / 8, 1.0)


def test_a_parameter_without_a_role_is_an_error_that_names_it():
    scale = scale_by_mup({"hidden": ROLES["hidden"]})
    with pytest.raises(RoleError, match="'bias' has no role"):
        scale.update(UPDATES, scale.init(UPDATES))
