"""What a parameter is to the Maximal Update Parametrization: its axes, and the part it plays.

Tensor Programs V (Yang et al., 2022), Table 8; muLO (Therien et al., 2025), section 4.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
from jaxtyping import PyTree


class RoleKind(enum.Enum):
    """The three kinds of parameters that the Maximal Update Parametrization knows."""

    INPUT = "input"
    """Its fan-in does not grow: first layers, embeddings, every bias, gain and shift."""

    HIDDEN = "hidden"
    """Its fan-in and its fan-out grow."""

    OUTPUT = "output"
    """Its fan-in grows, its fan-out does not."""


@dataclass(frozen=True)
class Layout:
    """What each axis of a parameter, as stored, is for.

    Attributes:
        in_axes: summed over when the layer is applied; none for a vector (bias, gain, shift).
        out_axes: of the layer's output.
        stack_axes: count tensors of their own (layers stacked into one array, expert weights).
    """

    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    stack_axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class ParamRole:
    """The role of one parameter; a leaf in a tree of the params' structure.

    `in_axes`, `out_axes` and `stack_axes` are axes of the parameter as stored. Statistics and norms
    of one tensor leave `stack_axes` alone (layers stacked into one array are many tensors), and
    fans do not count them.
    """

    kind: RoleKind
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    fan_in: int
    fan_out: int
    stack_axes: tuple[int, ...] = ()
    base_fan_in: int = 1
    """1 is the absolute 1/fan_in of muLO; another number makes multipliers relative to it."""

    forward_multiplier: bool = True
    """Of an output: whether the network divides its product by fan_in (else its update is)."""

    update_multiplier: float = 1.0
    """What the network asks its update to be multiplied by, beside the rule (depth scaling)."""

    divided_by: int | None = None
    """Of an input that does not grow with width (a readout's bias): what the network divides the
    sum by that it is part of, 1 if by nothing. None: it grows."""

    base_width: int = 1
    """Its `width` in the network that multipliers are relative to; 1 if they are absolute."""

    @property
    def width(self) -> int:
        """What its gradient is divided by as the network grows, under muP.

        A feature is one of fan_out, and each has its share of the loss; a readout's share is the
        factor by which its product is divided. Where the network has no such factor it is 1.
        """
        if self.kind is RoleKind.OUTPUT:
            return self.fan_in if self.forward_multiplier else 1
        return self.fan_out if self.divided_by is None else self.divided_by

    @property
    def widening(self) -> float:
        """Its width over that of the base network."""
        return self.width / self.base_width

    @property
    def layout(self) -> Layout:
        """What each axis is for."""
        return Layout(self.in_axes, self.out_axes, self.stack_axes)


Roles: TypeAlias = PyTree[ParamRole]


def leaf_name(path: tuple) -> str:
    """Spell the path of a leaf as people read it: `hidden_0/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def role_of(layout: Layout, small: Sequence[int], large: Sequence[int]) -> ParamRole:
    """Return the role that a layout and the shapes at two widths give; fans are the large one's."""
    grows = [a != b for a, b in zip(small, large, strict=True)]
    return role_of_kind(_kind(layout, grows), layout, large)


def role_of_kind(kind: RoleKind, layout: Layout, shape: Sequence[int]) -> ParamRole:
    """Return the role of a kind that is known."""
    return ParamRole(
        kind,
        in_axes=layout.in_axes,
        out_axes=layout.out_axes,
        fan_in=size(shape, layout.in_axes),
        fan_out=size(shape, layout.out_axes),
        stack_axes=layout.stack_axes,
    )


def size(shape: Sequence[int], axes: Sequence[int]) -> int:
    """Return the number of elements along some axes; 1 along none."""
    return math.prod(shape[axis] for axis in axes)


def _kind(layout: Layout, grows: Sequence[bool]) -> RoleKind:
    if not any(grows[axis] for axis in layout.in_axes):
        return RoleKind.INPUT
    return RoleKind.HIDDEN if any(grows[axis] for axis in layout.out_axes) else RoleKind.OUTPUT
