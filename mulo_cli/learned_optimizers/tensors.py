"""From a tree of parameters to the tensors that a learned optimizer works on, and back.

One leaf may be many tensors (layers stacked into one array): every statistic is a tensor's own. And
a leaf may be missing: wrappers such as `optax.masked` leave holes where another optimizer works.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from mulo_cli.errors import RoleError, UsageError
from mulo_cli.learned_optimizers.accumulators import Accumulators, init_accumulators
from mulo_cli.mup.roles import ParamRole, Roles
from mulo_cli.mup.rules import Rule
from mulo_cli.types import Concrete, Params


class LeafUpdate(NamedTuple):
    """What an update makes of one parameter."""

    update: Float[Array, "..."]
    accumulators: Accumulators


def roles_of(params: Params | None, roles: Roles) -> Roles:
    """Return the roles of the parameters that are there, in the structure of the params.

    Raises:
        UsageError: no params were passed; they are features.
        RoleError: they do not have the structure of the roles.
    """
    if params is None:
        raise UsageError(
            "a learned optimizer needs the parameters", "call update(grads, state, params, ...)"
        )
    leaves, structure = jax.tree.flatten(roles)
    try:
        found = structure.flatten_up_to(params)
    except ValueError as error:
        raise RoleError(
            f"the params do not have the structure of the roles: {str(error).splitlines()[0]}",
            "infer the roles from the very network that is trained: infer_roles(small, large)",
        ) from error
    present = [role for role, leaf in zip(leaves, found, strict=True) if not _is_hole(leaf)]
    return jax.tree.unflatten(jax.tree.structure(params), present)


def init_all(params: Params, roles: Roles) -> PyTree:
    """Return zero accumulators of every parameter; a stack of tensors has a stack of them."""

    def init_leaf(role: ParamRole, leaf: Float[Concrete, "..."]) -> Accumulators:
        return over_tensors(role, init_accumulators)(as_tensors(role, leaf))

    return jax.tree.map(init_leaf, roles_of(params, roles), params)


def pick(updates: PyTree, field: Literal["update", "accumulators"]) -> PyTree:
    """Return one field of every `LeafUpdate` in a tree."""
    return jax.tree.map(
        lambda leaf: getattr(leaf, field), updates, is_leaf=lambda n: isinstance(n, LeafUpdate)
    )


def as_tensors(role: ParamRole, leaf: Float[Concrete, "..."]) -> Float[Array, "..."]:
    """Return a leaf as a tensor (*p), or as a stack of tensors (S, *p).

    Stacked axes come to the front, as one. A tensor that is a scalar has shape (1,).
    """
    leaf = jnp.asarray(leaf)
    stack = role.stack_axes
    if not stack:
        return leaf.reshape(leaf.shape or (1,))
    leaf = jnp.moveaxis(leaf, stack, range(len(stack)))
    rest = leaf.shape[len(stack) :]
    return leaf.reshape(math.prod(leaf.shape[: len(stack)]), *(rest or (1,)))


def as_leaf(
    role: ParamRole, tensors: Float[Array, "..."], like: Float[Concrete, "*leaf"]
) -> Float[Array, "*leaf"]:
    """Undo `as_tensors`; the leaf gets the shape and the type of `like`."""
    stack = role.stack_axes
    if stack:
        sizes = [like.shape[axis] for axis in stack]
        rest = [size for axis, size in enumerate(like.shape) if axis not in stack]
        tensors = jnp.moveaxis(tensors.reshape(*sizes, *rest), range(len(stack)), stack)
    return tensors.reshape(like.shape).astype(like.dtype)


def over_tensors(role: ParamRole, function: Callable) -> Callable:
    """Return a function of a tensor that takes a stack of them where the role has one."""
    return jax.vmap(function) if role.stack_axes else function


def rows_for(roles: Roles, params: Params, table: PyTree) -> PyTree:
    """Deal the rows of a table to the parameters: one row to a tensor, S rows to a stack.

    Args:
        roles: of the params.
        params: those that are there.
        table: a tree of arrays (M, ...), one row per tensor.

    Returns:
        A tree of such tables in the structure of the params.
    """
    start = 0

    def deal(role: ParamRole, leaf: Float[Concrete, "..."]) -> PyTree:
        nonlocal start
        first, start = start, start + tensor_count(role, leaf)
        which = slice(first, start) if role.stack_axes else first
        return jax.tree.map(lambda x: x[which], table)

    return jax.tree.map(deal, roles, params)


def tensor_count(role: ParamRole, leaf: Float[Concrete, "..."]) -> int:
    """Return how many tensors a leaf is."""
    return math.prod(leaf.shape[axis] for axis in role.stack_axes)


def update_multipliers(roles: Roles, rule: Rule, base_fan_in: int) -> PyTree:
    """Return the update multiplier of every parameter.

    Args:
        roles: of the parameters.
        rule: role -> multiplier.
        base_fan_in: makes multipliers relative to it, for roles that have no base of their own.
    """

    def multiplier(role: ParamRole) -> float:
        based = role.base_fan_in != 1
        return rule(role if based else dataclasses.replace(role, base_fan_in=base_fan_in))

    return jax.tree.map(multiplier, roles)


def _is_hole(leaf: object) -> bool:
    return leaf is None or isinstance(leaf, optax.MaskedNode)
