"""Where the factor 1/fan_in of an output acts: in the forward pass, or in its update.

Two equal forms, never both: (a) the network divides the readout's product by its fan-in, and the
update is left alone; (b) it does not, and the update is multiplied by 1/fan_in. `Readout` is (a).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from mulo_cli.errors import RoleError
from mulo_cli.mup.kinds import ParamRole, RoleKind, size
from mulo_cli.mup.scales import (
    SIGMAS,
    TOLERANCE,
    Power,
    draws_needed,
    initial_scales,
    power,
)
from mulo_cli.mup.sketches import Init, Sketch

ReadoutForm: TypeAlias = Literal["auto", "forward", "update"]
READOUT_FORMS: tuple[ReadoutForm, ...] = ("auto", "forward", "update")

FALLS = -1.0
"""Power of the fan-in that the scale of a readout without forward factor follows."""


def with_forms(
    roles: Mapping[str, ParamRole], forward: Mapping[str, bool], form: ReadoutForm
) -> dict[str, ParamRole]:
    """Return the roles with each output's form.

    Args:
        roles: by leaf.
        forward: whether a leaf is part of a `Readout`.
        form: what the user says about outputs.

    Raises:
        RoleError: the user wants the factor in the update, and the network has it already.
    """
    outputs = {name: role for name, role in roles.items() if role.kind is RoleKind.OUTPUT}
    twice = sorted(name for name in outputs if form == "update" and forward.get(name))
    if twice:
        raise RoleError(
            f"parameter {twice[0]!r} is part of a Readout, which divides by its fan-in already",
            "leave readout='update' (--readout update) away: each output needs the factor once",
        )
    formed = {
        name: dataclasses.replace(
            role, forward_multiplier=form == "forward" or forward.get(name, False)
        )
        for name, role in outputs.items()
    }
    return {**roles, **formed}


def with_divisors(
    roles: Mapping[str, ParamRole],
    shapes: tuple[Mapping[str, Sequence[int]], Mapping[str, Sequence[int]]],
    forward: Mapping[str, bool],
) -> dict[str, ParamRole]:
    """Return the roles with what inputs are divided by that do not grow themselves.

    The bias of a `Readout` is divided by the fan-in of the kernel beside it; anywhere else nobody
    tells, and a bias that is taken for undivided moves too little at worst.

    Args:
        roles: by leaf.
        shapes: of every leaf, at two widths.
        forward: whether a leaf is part of a `Readout`.
    """
    fixed = {
        name: role
        for name, role in roles.items()
        if role.kind is RoleKind.INPUT and shapes[0][name] == shapes[1][name]
    }
    fan_ins = {
        _parent(name): role.fan_in
        for name, role in roles.items()
        if role.kind is RoleKind.OUTPUT and forward.get(name)
    }
    divided = {
        name: dataclasses.replace(
            role, divided_by=fan_ins.get(_parent(name), 1) if forward.get(name) else 1
        )
        for name, role in fixed.items()
    }
    return {**roles, **divided}


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def check_readouts(
    inits: tuple[Init, Init], sketches: tuple[Sketch, Sketch], roles: Mapping[str, ParamRole]
) -> None:
    """Measure the initial scales of outputs whose update is scaled.

    Args:
        inits: of the two networks.
        sketches: of the two networks.
        roles: of the outputs to be checked, by leaf.

    Raises:
        RoleError: a scale that does not belong to this form.
    """
    growing = {
        name: role
        for name, role in roles.items()
        if size(sketches[0].shapes[name], role.in_axes) != role.fan_in
    }
    for name, found in measured_readouts(inits, sketches, growing).items():
        role = roles[name]
        if found.zero or (found.may_be(FALLS) and SIGMAS * found.error <= TOLERANCE):
            continue
        fan_in = size(sketches[0].shapes[name], role.in_axes)
        if found.may_be(FALLS):
            raise RoleError(
                f"whether the initial scale of output {name!r} falls like 1/fan_in cannot be "
                f"measured between fan-ins {fan_in} and {role.fan_in}",
                "give two widths that lie further apart, at least a factor of 2",
            )
        raise RoleError(
            f"output {name!r} starts with standard deviation {found.small:.3g} at fan-in {fan_in} "
            f"and {found.large:.3g} at fan-in {role.fan_in}; where the network does not divide its "
            "product by fan_in, muP wants 0, or a deviation that falls like 1/fan_in",
            "start it at zero or at N(0, 1/fan_in^2), or let mulo_cli.Readout be the "
            "last layer; if the network itself divides by fan_in (or is to be trained under SP, "
            "which scales nothing), say so: readout='forward' (--readout forward)",
        )


def measured_readouts(
    inits: tuple[Init, Init], sketches: tuple[Sketch, Sketch], roles: Mapping[str, ParamRole]
) -> dict[str, Power]:
    """Return how the initial scales of some outputs depend on their fan-ins."""
    if not roles:
        return {}
    fans = {
        name: (size(sketches[0].shapes[name], role.in_axes), role.fan_in)
        for name, role in roles.items()
    }
    draws = max(_draws(sketches, name, fans[name]) for name in roles)
    return powers(inits, sketches, fans, draws)


def powers(
    inits: tuple[Init, Init],
    sketches: tuple[Sketch, Sketch],
    widths: Mapping[str, tuple[int, int]],
    draws: int,
) -> dict[str, Power]:
    """Return how initial scales depend on what grew (`widths`), leaf by leaf."""
    numbers = [list(sketches[1].shapes).index(name) for name in widths]
    scales = [initial_scales(init, numbers, draws) for init in inits]
    return {
        name: power(
            (small, large),
            widths[name],
            (_elements(sketches[0], name, draws), _elements(sketches[1], name, draws)),
        )
        for name, small, large in zip(widths, *scales, strict=True)
    }


def _draws(sketches: Sequence[Sketch], name: str, fans: tuple[int, int]) -> int:
    elements = min(_elements(one, name, 1) for one in sketches)
    return draws_needed(elements, max(fans) / min(fans))


def _elements(of: Sketch, name: str, draws: int) -> int:
    shape = of.shapes[name]
    return draws * size(shape, range(len(shape)))
