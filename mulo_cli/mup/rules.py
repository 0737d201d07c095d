"""From role to update multiplier: one function per family of optimizers, each with its source."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from mulo_cli.mup.roles import ParamRole, RoleKind

Rule: TypeAlias = Callable[[ParamRole], float]


def standard(role: ParamRole) -> float:
    """Standard parametrization: every update as the optimizer made it."""
    del role
    return 1.0


def adam_like(role: ParamRole) -> float:
    """Updates of size one per coordinate: hidden x base_fan_in/fan_in, all others x 1.

    Learned optimizers: muLO (Therien et al., 2025), equation 3. Adam: Tensor Programs V (Yang et
    al., 2022), Table 8, with the readout's factor 1/fan_in in the forward pass.
    """
    return role.base_fan_in / role.fan_in if role.kind is RoleKind.HIDDEN else 1.0


LEARNED_OPTIMIZER_RULES: Mapping[str, Rule] = {"mup": adam_like, "sp": standard}
"""The rule of a learned optimizer by its parametrization."""
