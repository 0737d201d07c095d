"""muP for any optimizer: one small transformation that multiplies updates by a factor per role."""

from typing import Any

import jax
import optax

from mulo_cli.mup.kinds import Roles
from mulo_cli.mup.rules import Rule, adam_like


def scale_by_mup(roles: Roles, rule: Rule = adam_like) -> optax.GradientTransformationExtraArgs:
    """Multiply each update by `rule(role)`; put it after the optimizer, before weight decay.

    Args:
        roles: a tree of `ParamRole` with the structure of the params.
        rule: role -> multiplier, from `mulo_cli.mup.rules`.
    """

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del params, extra
        return jax.tree.map(lambda role, u: rule(role) * u, roles, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def multipliers(roles: Roles, rule: Rule = adam_like) -> Any:
    """Return the tree of update multipliers, one float per parameter tensor."""
    return jax.tree.map(rule, roles)
