"""From a tree of parameters to the tensors that a learned optimizer works on, and back.

One leaf may be many tensors (layers stacked into one array): every statistic is a tensor's own. And
a leaf may be missing: wrappers such as `optax.masked` leave holes where another optimizer works.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mulo_cli.errors import RoleError, UsageError
from mulo_cli.learned_optimizers.accumulators import Accumulators, init_accumulators
from mulo_cli.mup.roles import ParamRole, Roles
from mulo_cli.mup.rules import Rule
from mulo_cli.mup.sketches import named_leaves
from mulo_cli.types import Concrete, Params

NAMED = 3
"""Names that an error tells."""


def roles_of(params: Params | None, roles: Roles) -> dict[str, ParamRole]:
    """Return the role of every parameter that is there, by name, in the order of the params.

    Names are compared, not trees: params may come in boxes (flax) at one time and bare at another.

    Raises:
        UsageError: no params were passed; they are features.
        RoleError: a parameter has no role.
    """
    if params is None:
        raise UsageError(
            "a learned optimizer needs the parameters", "call update(grads, state, params, ...)"
        )
    known = named_leaves(roles)
    for name in named_leaves(params):
        if name not in known:
            raise RoleError(
                f"parameter {name!r} has no role: the roles are those of "
                f"{', '.join(list(known)[:NAMED])}{', ...' if len(known) > NAMED else ''}",
                "infer the roles from the very network that is trained: infer_roles(small, large)",
            )
    return {name: known[name] for name in named_leaves(params)}


def init_all(params: Params, roles: Mapping[str, ParamRole]) -> dict[str, Accumulators]:
    """Return zero accumulators of every parameter; a stack of tensors has a stack of them."""
    return {
        name: init_accumulators(as_tensors(roles[name], leaf), stacked=bool(roles[name].stack_axes))
        for name, leaf in named_leaves(params).items()
    }


def update_all(
    update_one: Callable[..., tuple[Float[Array, "*p"], Accumulators]],
    factor: Callable[[ParamRole], float],
    roles: Mapping[str, ParamRole],
    updates: Params,
    params: Params,
    accumulators: Mapping[str, Accumulators],
    own: Mapping[str, tuple[PyTree, ...]],
) -> tuple[Params, dict[str, Accumulators]]:
    """Update every parameter that is there.

    Args:
        update_one: (gradient, parameter, accumulators, *own) of a tensor -> (step, accumulators).
        factor: role -> what steps are multiplied by.
        roles: of the params, by name.
        updates: gradients; holes and boxes of the result are theirs.
        params: before their update.
        accumulators: before these gradients, by name.
        own: what else a parameter's tensors have, by name; a stack has a leading axis.
    """
    gradients, named = named_leaves(updates), named_leaves(params)
    steps, new = {}, {}
    for name, role in roles.items():
        tensors = [as_tensors(role, leaf) for leaf in (gradients[name], named[name])]
        update_each = over_tensors(role, update_one)
        step, new[name] = update_each(*tensors, accumulators[name], *own.get(name, ()))
        steps[name] = as_leaf(role, factor(role) * step, like=named[name])
    leaves = [steps[name] for name in gradients]
    return jax.tree.unflatten(jax.tree.structure(updates), leaves), new


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


def rows_for(roles: Mapping[str, ParamRole], params: Params, table: PyTree) -> dict[str, PyTree]:
    """Deal the rows of a table to the parameters: one row to a tensor, S rows to a stack.

    Args:
        roles: of the params, by name.
        params: those that are there.
        table: a tree of arrays (M, ...), one row per tensor.
    """
    dealt, start = {}, 0
    for name, leaf in named_leaves(params).items():
        count = tensor_count(roles[name], leaf)
        which = slice(start, start + count) if roles[name].stack_axes else start
        dealt[name] = jax.tree.map(lambda x, which=which: x[which], table)
        start += count
    return dealt


def tensor_count(role: ParamRole, leaf: Float[Concrete, "..."]) -> int:
    """Return how many tensors a leaf is."""
    return math.prod(leaf.shape[axis] for axis in role.stack_axes)


def update_multiplier(role: ParamRole, rule: Rule, base_fan_in: int) -> float:
    """Return the update multiplier of a parameter.

    Args:
        role: of the parameter.
        rule: role -> multiplier.
        base_fan_in: makes the multiplier relative to it, if the role has no base of its own.
    """
    based = role.base_fan_in != 1
    return rule(role if based else dataclasses.replace(role, base_fan_in=base_fan_in))
