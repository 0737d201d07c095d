"""From role to update multiplier: one function per family of optimizers, each with its source.

`docs/explanation/optimizers-under-mup.md` has them as a table, with the derivation of every entry.
"""

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
    ADOPT, Sophia: "Extending muP" (Gupta et al., 2025), Table 2 and appendices C.1 and C.2.
    """
    return role.update_multiplier * (_narrowing(role) if _is_slowed(role) else 1.0)


def sgd(role: ParamRole) -> float:
    """Gradients as they are: hidden x 1; input, vectors and a divided readout x width.

    Tensor Programs V (Yang et al., 2022), Table 3: fan_out for inputs, 1 for hidden, 1/fan_in for
    an output without a forward factor. With the factor 1/fan_in in the forward pass a readout's
    gradient has it, too, and so has its bias, which the division includes: both x fan_in (ours).
    Depth scaling asks nothing of it: branches of depth^-1/2 scale the gradient already (Tensor
    Programs VI, Yang et al., 2023).
    """
    if role.kind is RoleKind.HIDDEN:
        return 1.0
    return _narrowing(role) if is_scaled_output(role) else role.widening


def lamb(role: ParamRole) -> float:
    """Updates as large as their tensor, by Frobenius norms: hidden x (base_fan_in/fan_in)^1/2.

    Ours: a random hidden matrix has a Frobenius norm of fan_out^1/2, and an update of low rank a
    spectral norm as large as its Frobenius norm, which muP wants at (fan_out/fan_in)^1/2. Inputs,
    vectors and outputs in both forms move by a share of their own size: x 1.
    """
    slowed = role.kind is RoleKind.HIDDEN
    return role.update_multiplier * (_narrowing(role) ** 0.5 if slowed else 1.0)


def lamb_paper(role: ParamRole) -> float:
    """LAMB's rule as printed: x 1 for every kind.

    "Extending muP" (Gupta et al., 2025), Table 2 and appendix C.3. It takes the Frobenius norm of a
    weight matrix for its spectral norm, which is smaller by fan_in^1/2 for a random one: hidden
    layers move further in wider networks.
    """
    return role.update_multiplier


def muon(role: ParamRole) -> float:
    """Orthogonal updates of hidden matrices x (fan_out/fan_in)^1/2; Adam's rule for all others.

    "A spectral condition for feature learning" (Yang, Simon and Bernstein, 2023), condition 1: an
    orthogonal update has a spectral norm of 1.
    """
    if role.kind is RoleKind.HIDDEN:
        return role.update_multiplier * (role.fan_out / role.fan_in) ** 0.5
    return adam_like(role)


def muon_standard(role: ParamRole) -> float:
    """Muon under standard parametrization: hidden matrices x max(1, fan_out/fan_in)^1/2.

    K. Jordan, "Muon" (2024); the same factor as in optax.
    """
    if role.kind is RoleKind.HIDDEN:
        return role.update_multiplier * max(1.0, role.fan_out / role.fan_in) ** 0.5
    return standard(role)


def is_scaled_output(role: ParamRole) -> bool:
    """Say whether a role is that of an output whose factor 1/fan_in acts on its update."""
    return role.kind is RoleKind.OUTPUT and not role.forward_multiplier


def _is_slowed(role: ParamRole) -> bool:
    return role.kind is RoleKind.HIDDEN or is_scaled_output(role)


def _narrowing(role: ParamRole) -> float:
    return role.base_fan_in / role.fan_in


LEARNED_OPTIMIZER_RULES: Mapping[str, Rule] = {
    "mup": adam_like,
    "sp": standard,
    "spectral": adam_like,
}
"""The rule of a learned optimizer by its parametrization."""
