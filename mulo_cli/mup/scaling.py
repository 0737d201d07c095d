"""muP for any optimizer: one small transformation that multiplies updates by a factor per role."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from mulo_cli.errors import RoleError
from mulo_cli.mup.kinds import ParamRole, Roles
from mulo_cli.mup.rules import Rule, adam_like
from mulo_cli.mup.sketches import named_leaves


def scale_by_mup(roles: Roles, rule: Rule = adam_like) -> optax.GradientTransformationExtraArgs:
    """Multiply each update by `rule(role)`; put it after the optimizer, before weight decay.

    Args:
        roles: a tree of `ParamRole`, one for every parameter; updates are told by name, so that
            wrappers may leave holes.
        rule: role -> multiplier, from `mulo_cli.mup.rules`.
    """
    known = named_leaves(roles)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del params, extra
        scaled = [rule(_role(known, name)) * u for name, u in named_leaves(updates).items()]
        return jax.tree.unflatten(jax.tree.structure(updates), scaled), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _role(known: Mapping[str, ParamRole], name: str) -> ParamRole:
    if name not in known:
        raise RoleError(
            f"parameter {name!r} has no role",
            "infer the roles from the very network that is trained: infer_roles(small, large)",
        )
    return known[name]


def multipliers(roles: Roles, rule: Rule = adam_like) -> Any:
    """Return the tree of update multipliers, one float per parameter tensor."""
    return jax.tree.map(rule, roles)
