"""Depth scaling: what deep residual networks multiply their branches and updates by.

G. Yang et al., "Tensor Programs VI" (2023): branches over the root of depth, and Adam's rate, too;
N. Dey et al., "Don't be lazy" (2025): branches over depth. Both as in A. Gupta et al., "Extending
muP" (2025), appendix D, where they are empirical.
"""

from collections.abc import Mapping

from mulo_cli.errors import UsageError

DEPTH_POWERS = (0.0, 0.5, 1.0)


def branch_multiplier(depth: int, power: float) -> float:
    """Return what each branch is multiplied by before it is added to the stream.

    Raises:
        UsageError: there is no depth scaling of this power.
    """
    if power not in DEPTH_POWERS:
        raise UsageError(
            f"depth_power={power:g} is unknown",
            f"known are: {', '.join(f'{known:g}' for known in DEPTH_POWERS)}",
        )
    return depth**-power


def block_multipliers(depth: int, power: float) -> Mapping[str, float]:
    """Return factors on the updates of all blocks, by their name, beside muP's own."""
    return {"blocks": depth**-0.5} if power == 0.5 else {}
