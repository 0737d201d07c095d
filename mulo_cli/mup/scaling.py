"""muP for any optimizer: one small transformation that multiplies updates by a factor per role."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import optax
from jaxtyping import Array, Float

from mulo_cli.errors import RoleError
from mulo_cli.mup.kinds import ParamRole, RoleKind, Roles
from mulo_cli.mup.rules import Rule, adam_like
from mulo_cli.mup.sketches import named_leaves

Factor: TypeAlias = float | Float[Array, ""]
"""A number, or a traced one."""


def scale_by_mup(
    roles: Roles, rule: Rule = adam_like, hidden_mult: Factor = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Multiply each update by `rule(role)`; put it after the optimizer, before weight decay.

    Args:
        roles: a tree of `ParamRole`, one for every parameter; updates are told by name, so that
            wrappers may leave holes.
        rule: role -> multiplier, from `mulo_cli.mup.rules`.
        hidden_mult: multiplies the multiplier of hidden matrices; may be traced.
    """

    def factor(role: ParamRole) -> Factor:
        return rule(role) * (hidden_mult if role.kind is RoleKind.HIDDEN else 1.0)

    return _scale_by_role(roles, factor)


def scale_by_width(roles: Roles, power: Factor) -> optax.GradientTransformationExtraArgs:
    """Multiply each gradient by its width to a power; put it before an optimizer with an epsilon.

    Under muP gradients fall like 1/width (`ParamRole.width`) and an epsilon does not. For an
    optimizer that else does not see how large gradients are, it is the same to divide its epsilon.

    Args:
        roles: a tree of `ParamRole`, as in `scale_by_mup`.
        power: of the width; 1 takes the leak away, 0 changes nothing. May be traced.
    """
    return _scale_by_role(roles, lambda role: role.widening**power)


def _scale_by_role(
    roles: Roles, factor: Callable[[ParamRole], Factor]
) -> optax.GradientTransformationExtraArgs:
    known = named_leaves(roles)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del params, extra
        scaled = [factor(_role(known, name)) * u for name, u in named_leaves(updates).items()]
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
