"""From role to update multiplier: one function per family of optimizers, each with its source."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from mulo_cli.mup.kinds import ParamRole, RoleKind

Rule: TypeAlias = Callable[[ParamRole], float]


def standard(role: ParamRole) -> float:
    """Standard parametrization: every update as the optimizer made it, depth scaling aside."""
    return role.update_multiplier


def adam_like(role: ParamRole) -> float:
    """Updates of size one per coordinate: hidden x base_fan_in/fan_in, all others x 1.

    Learned optimizers: muLO (Therien et al., 2025), equation 3. Adam: Tensor Programs V (Yang et
    al., 2022), Table 8, with the readout's factor 1/fan_in in the forward pass. An output that the
    network does not divide by its fan-in has the factor here (Table 3 there): two equal forms.
    """
    slowed = role.kind is RoleKind.HIDDEN or is_scaled_output(role)
    return role.update_multiplier * (role.base_fan_in / role.fan_in if slowed else 1.0)


def is_scaled_output(role: ParamRole) -> bool:
    """Say whether a role is that of an output whose factor 1/fan_in acts on its update."""
    return role.kind is RoleKind.OUTPUT and not role.forward_multiplier


LEARNED_OPTIMIZER_RULES: Mapping[str, Rule] = {"mup": adam_like, "sp": standard}
"""The rule of a learned optimizer by its parametrization."""
