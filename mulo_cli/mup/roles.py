"""Which part a parameter plays when the network grows: input, hidden or output.

A role is read off two shapes of the same parameter, at two widths: an axis that changes is a width
axis. Tensor Programs V (Yang et al., 2022), Table 8; muLO (Therien et al., 2025), section 4.
"""

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import jax
from jaxtyping import PyTree

from mulo_cli.errors import RoleError
from mulo_cli.types import Params, PRNGKey


class RoleKind(enum.Enum):
    """The three kinds of parameters that the Maximal Update Parametrization knows."""

    INPUT = "input"
    """Its fan-in does not grow: first layers, embeddings, every bias, gain and shift."""

    HIDDEN = "hidden"
    """Its fan-in and its fan-out grow."""

    OUTPUT = "output"
    """Its fan-in grows, its fan-out does not."""


@dataclass(frozen=True)
class ParamRole:
    """The role of one parameter; a leaf in a tree of the params' structure.

    `in_axes`, `out_axes` and `stack_axes` are axes of the parameter as stored. Statistics and norms
    of one tensor leave `stack_axes` alone (layers stacked into one array are many tensors).
    """

    kind: RoleKind
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    fan_in: int
    fan_out: int
    stack_axes: tuple[int, ...] = ()
    base_fan_in: int = 1
    """1 is the absolute 1/fan_in of muLO; another number makes multipliers relative to it."""


Roles: TypeAlias = PyTree[ParamRole]
Init: TypeAlias = Callable[[PRNGKey], Params]


def infer_roles(
    init_small: Init, init_large: Init, overrides: Mapping[str, RoleKind] | None = None
) -> Roles:
    """Tell the role of every parameter by comparing its shapes at two widths.

    Nothing is initialised: both functions are evaluated for shapes alone. Matrices are taken as
    (in, out), the layout of flax.

    Args:
        init_small: key -> params of the network at one width.
        init_large: key -> params of the same network at another width. The roles returned carry
            the fans of *this* one: it is the network to be trained.
        overrides: leaf path (as in `layer/kernel`) -> kind, for leaves whose shapes do not tell.

    Returns:
        A tree of `ParamRole` with the structure of the large network's params.

    Raises:
        RoleError: the two networks differ in structure, or a leaf's role cannot be told.
    """
    overrides = dict(overrides or {})
    key = jax.eval_shape(lambda: jax.random.key(0))
    small = jax.eval_shape(init_small, key)
    large = jax.eval_shape(init_large, key)
    if jax.tree.structure(small) != jax.tree.structure(large):
        raise RoleError(
            "the two networks have different parameters",
            "give the same architecture at two widths (same depth, same layer names)",
        )

    def role(path: tuple, leaf_small: jax.ShapeDtypeStruct, leaf_large: jax.ShapeDtypeStruct):
        name = leaf_name(path)
        return _role_of(name, leaf_small.shape, leaf_large.shape, overrides.pop(name, None))

    roles = jax.tree.map_with_path(role, small, large)
    if overrides:
        raise RoleError(
            f"no parameter is called {sorted(overrides)[0]!r}",
            "name leaves by their path, for example 'hidden_0/kernel'",
        )
    return roles


def leaf_name(path: tuple) -> str:
    """Spell the path of a leaf as people read it: `hidden_0/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _role_of(
    name: str, small: tuple[int, ...], large: tuple[int, ...], override: RoleKind | None
) -> ParamRole:
    if len(small) != len(large):
        raise RoleError(
            f"parameter {name!r} changes its number of axes with width ({small}, {large})",
            "give the same architecture at two widths",
        )
    if len(large) > 2:
        raise RoleError(
            f"the role of parameter {name!r} with shape {large} cannot be told from its shapes",
            "only scalars, vectors and (in, out) matrices are inferred; "
            "reshape the parameter, or build its ParamRole by hand",
        )
    if len(large) < 2:
        return _vector_role(large, override)
    fan_in, fan_out = large
    kind = override or _matrix_kind(fan_in != small[0], fan_out != small[1])
    return ParamRole(kind, in_axes=(0,), out_axes=(1,), fan_in=fan_in, fan_out=fan_out)


def _vector_role(shape: tuple[int, ...], override: RoleKind | None) -> ParamRole:
    """Biases, gains and shifts: input-like, as if multiplied with a constant input of size 1."""
    return ParamRole(
        override or RoleKind.INPUT,
        in_axes=(),
        out_axes=tuple(range(len(shape))),
        fan_in=1,
        fan_out=math.prod(shape),
    )


def _matrix_kind(fan_in_grows: bool, fan_out_grows: bool) -> RoleKind:
    if fan_in_grows and fan_out_grows:
        return RoleKind.HIDDEN
    return RoleKind.OUTPUT if fan_in_grows else RoleKind.INPUT
