"""Which layout a parameter may have, where no module tells: every reading of its shapes.

A leaf of more than two axes can be read in many ways: (in, heads, head size), (heads, head size,
out), a convolution, a stack of matrices. Where all readings give the same role it is told; where
they differ, nobody but the user can say.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from mulo_cli.mup.kinds import Layout, ParamRole, RoleKind, role_of

Shape: TypeAlias = tuple[int, ...]

Order: TypeAlias = Literal["in_out", "out_in"]
"""How matrices are stored: (in, out) as in flax and haiku, (out, in) as in torch and equinox."""

ORDERS: tuple[Order, ...] = ("in_out", "out_in")

VECTOR_NAMES = frozenset({"bias", "b", "scale", "gain", "shift", "gamma", "beta"})
"""Last names of leaves that are vectors whatever their shape; they never decide, they object."""

WEIGHT_OF_BIAS = {"bias": ("kernel", "weight", "w"), "b": ("kernel", "weight", "w", "W")}
"""Names of the matrix that a bias belongs to."""


def readings(small: Shape, large: Shape, stack: Shape, order: Order) -> Iterator[Layout]:
    """Yield every layout that a leaf may have, given the axes that are known to count layers.

    Args:
        small: shape at one width.
        large: shape at another width.
        stack: axes that count layers; there may be more that are not known.
        order: how matrices are stored.
    """
    axes = tuple(axis for axis in range(len(large)) if axis not in stack)
    if len(axes) < 2:
        yield Layout((), axes, stack)
        return
    yield from _splits(axes, stack, order)
    if len(axes) == 2:  # a matrix by convention; else no layer could be told
        return
    for count in range(1, len(axes)):
        if small[axes[count - 1]] != large[axes[count - 1]]:
            return  # the number of layers does not grow with width
        stacked = tuple(sorted((*stack, *axes[:count])))
        rest = axes[count:]
        yield from _splits(rest, stacked, order)
        yield Layout((), rest, stacked)


def _splits(axes: Shape, stack: Shape, order: Order) -> Iterator[Layout]:
    """Yield the ways to cut axes into inputs and outputs; a convolution's are among them."""
    for cut in reversed(range(1, len(axes))):
        first, last = axes[:cut], axes[cut:]
        yield Layout(first, last, stack) if order == "in_out" else Layout(last, first, stack)


def told_apart(small: Shape, large: Shape, layouts: Sequence[Layout]) -> list[ParamRole]:
    """Return the different roles of some readings, each with its first reading.

    Inputs are all alike: no rule asks an input for more than that it is one.
    """
    found: dict[tuple, ParamRole] = {}
    for layout in layouts:
        role = role_of(layout, small, large)
        found.setdefault(_what_counts(role), role)
    return list(found.values())


def _what_counts(role: ParamRole) -> tuple:
    if role.kind is RoleKind.INPUT:
        return (role.kind,)
    return (role.kind, role.fan_in, role.fan_out)


def in_words(role: ParamRole) -> str:
    """Return a reading as a user would write it after `--axes PATH=`, and what follows."""
    fan = "" if role.kind is RoleKind.INPUT else f", fan-in {role.fan_in}"
    return f"{axis_words(role.layout)} ({role.kind.value}{fan})"


def axis_words(layout: Layout) -> str:
    """Return `in,in,out` for a layout."""
    words = dict.fromkeys(layout.in_axes, "in") | dict.fromkeys(layout.out_axes, "out")
    words |= dict.fromkeys(layout.stack_axes, "stack")
    return ",".join(words[axis] for axis in sorted(words))
