"""The roles of a network as rows for people: what each leaf is, its multiplier, how it starts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import jax

from mulo_cli.mup.kinds import ParamRole, RoleKind, Roles, size
from mulo_cli.mup.readouts import FALLS, powers
from mulo_cli.mup.rules import adam_like, is_scaled_output
from mulo_cli.mup.scales import MOST_DRAWS, Power
from mulo_cli.mup.sketches import Init, Sketch, sketch

DRAWN = 10**7
"""Numbers that are drawn for a table, about: small networks are drawn up to 64 times."""

AS_FAN_IN = -0.5
"""Power of the fan-in that the scale of a hidden weight follows."""


@dataclass(frozen=True)
class RoleRow:
    """One leaf.

    Attributes:
        leaf: its path.
        shape: at the larger width.
        role: `input`, `hidden` or `output`.
        in_axes: summed over when the layer is applied.
        out_axes: of the layer's output.
        stack_axes: count layers.
        fan_in: at the larger width.
        fan_out: at the larger width.
        base_fan_in: what fan_in is relative to; 1 if multipliers are absolute.
        multiplier: of the update, under Adam and learned optimizers.
        readout: of an output, what divides by its fan-in: `forward` pass or `update`.
        scale_small: root mean square of the elements at first, at the smaller width.
        scale_large: at the larger width.
        remark: what does not suit muP about these scales.
    """

    leaf: str
    shape: tuple[int, ...]
    role: str
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    stack_axes: tuple[int, ...]
    fan_in: int
    fan_out: int
    base_fan_in: int
    multiplier: float
    readout: Literal["forward", "update"] | None
    scale_small: float | None
    scale_large: float | None
    remark: str | None
    kind: str = field(default="role", init=False)


def describe_roles(init_small: Init, init_large: Init, roles: Roles) -> list[RoleRow]:
    """Return a row for each leaf; both networks are initialised to measure their scales.

    Args:
        init_small: key -> params of the network at one width.
        init_large: of the network whose roles they are.
        roles: from `infer_roles`.
    """
    sketches = sketch(init_small), sketch(init_large)
    by_name = dict(zip(sketches[1].shapes, jax.tree.leaves(roles), strict=True))
    grown = {
        name: _grown(role, sketches[0].shapes[name], sketches[1].shapes[name])
        for name, role in by_name.items()
        if name in sketches[1].floating
    }
    elements = sum(size(shape, range(len(shape))) for shape in sketches[1].shapes.values())
    draws = max(1, min(MOST_DRAWS, DRAWN // max(elements, 1)))
    found = powers((init_small, init_large), sketches, grown, draws) if grown else {}
    return list(_rows(by_name, sketches[1], found))


def _grown(role: ParamRole, small: tuple[int, ...], large: tuple[int, ...]) -> tuple[int, int]:
    """Return what a leaf's initial scale is held against: fan-out of inputs, else fan-in."""
    axes = role.out_axes if role.kind is RoleKind.INPUT else role.in_axes
    return size(small, axes), size(large, axes)


def _rows(
    roles: Mapping[str, ParamRole], large: Sketch, found: Mapping[str, Power]
) -> Iterator[RoleRow]:
    for name, role in roles.items():
        scale = found.get(name)
        yield RoleRow(
            leaf=name,
            shape=large.shapes[name],
            role=role.kind.value,
            in_axes=role.in_axes,
            out_axes=role.out_axes,
            stack_axes=role.stack_axes,
            fan_in=role.fan_in,
            fan_out=role.fan_out,
            base_fan_in=role.base_fan_in,
            multiplier=adam_like(role),
            readout=_form(role),
            scale_small=None if scale is None else scale.small,
            scale_large=None if scale is None else scale.large,
            remark=None if scale is None else _remark(role, scale),
        )


def _form(role: ParamRole) -> Literal["forward", "update"] | None:
    if role.kind is not RoleKind.OUTPUT:
        return None
    return "update" if is_scaled_output(role) else "forward"


def _remark(role: ParamRole, scale: Power) -> str | None:
    """Say what is wrong with an initial scale; a leaf that starts at zero is never wrong."""
    wanted, of, words = _wanted(role)
    if scale.exponent is None or scale.may_be(wanted):
        return None
    return f"starts like {of}^{scale.exponent:+.2f}, muP wants {words}"


def _wanted(role: ParamRole) -> tuple[float, str, str]:
    if role.kind is RoleKind.HIDDEN:
        return AS_FAN_IN, "fan-in", "fan-in^-0.5"
    if is_scaled_output(role):
        return FALLS, "fan-in", "zero or fan-in^-1"
    if role.kind is RoleKind.OUTPUT:
        return 0.0, "fan-in", "zero or the same at every width"
    return 0.0, "width", "the same at every width"
