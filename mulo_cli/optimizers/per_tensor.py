"""Optimizers that look at a whole tensor at once, on leaves that hold many of them.

Layers that are stacked into one array (`ParamRole.stack_axes`) are tensors of their own: a norm is
taken, and a matrix made orthogonal, within each.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mulo_cli.errors import UsageError
from mulo_cli.mup.kinds import ParamRole, Roles
from mulo_cli.mup.sketches import named_leaves
from mulo_cli.types import Concrete, Params


def over_matrices(
    of_matrix: optax.GradientTransformation, roles: Roles
) -> optax.GradientTransformationExtraArgs:
    """Apply a transformation of one matrix to every tensor by itself.

    Args:
        of_matrix: sees a matrix of at least as many rows as columns; a vector is one column.
        roles: of the params; leaves are told by name, so that wrappers may leave holes.
    """
    known = named_leaves(roles)

    def init(params: Params) -> dict[str, Any]:
        return {
            name: _each(known[name], of_matrix.init)(as_matrices(known[name], leaf))
            for name, leaf in named_leaves(params).items()
        }

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, dict[str, Any]]:
        del extra
        if params is None:
            raise UsageError(
                "this optimizer needs the parameters", "call update(grads, state, params)"
            )
        old_state = cast(Mapping[str, Any], state)
        given, new_state, new = named_leaves(params), {}, []
        for name, leaf in named_leaves(updates).items():
            role = known[name]
            matrices = as_matrices(role, leaf), as_matrices(role, given[name])
            step, new_state[name] = _each(role, of_matrix.update)(
                matrices[0], old_state[name], matrices[1]
            )
            new.append(from_matrices(role, step, leaf.shape))
        return jax.tree.unflatten(jax.tree.structure(updates), new), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def as_matrices(role: ParamRole, leaf: Float[Concrete, "..."]) -> Float[Array, "*stack tall short"]:
    """Return a leaf as a matrix, or a stack of them, each lying so that its rows are not fewer."""
    sizes = (role.fan_in, role.fan_out)
    stack = [leaf.shape[axis] for axis in role.stack_axes]
    matrices = jnp.transpose(jnp.asarray(leaf), _order(role)).reshape(-1, *sizes)
    if sizes[0] < sizes[1]:
        matrices = matrices.swapaxes(1, 2)
    return matrices if stack else matrices[0]


def from_matrices(
    role: ParamRole, matrices: Float[Array, "*stack tall short"], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Undo `as_matrices` for a leaf of a shape."""
    if role.fan_in < role.fan_out:
        matrices = matrices.swapaxes(-2, -1)
    order = _order(role)
    laid_out = matrices.reshape([shape[axis] for axis in order])
    return jnp.transpose(laid_out, sorted(range(len(order)), key=order.__getitem__))


def _order(role: ParamRole) -> tuple[int, ...]:
    return (*role.stack_axes, *role.in_axes, *role.out_axes)


def _each(role: ParamRole, function: Callable) -> Callable:
    return jax.vmap(function) if role.stack_axes else function
