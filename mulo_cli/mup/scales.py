"""How large parameters are at first, measured: which forms of muP a network may be given.

A readout whose product the network does not divide by its fan-in is served by scaling its update
instead; then it must start at zero or at N(0, 1/fan_in^2). Tensor Programs V (Yang et al., 2022),
Table 8; G. Yang, J. Simon, J. Bernstein, *A spectral condition for feature learning*, 2023.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from mulo_cli.mup.sketches import Init, params_of
from mulo_cli.types import PRNGKey

TOLERANCE = 0.25
"""Of a power of the width: half the distance between the powers that muP tells apart."""

SIGMAS = 4
"""Standard errors of a measured power that are allowed for."""

MOST_DRAWS = 64
"""Initialisations over which one small leaf is averaged."""


@dataclass(frozen=True)
class Power:
    """How a leaf's initial scale depends on width: scale ~ width^exponent.

    Attributes:
        small: root mean square of its elements in the narrower network.
        large: in the wider one.
        exponent: None if one of the scales is zero or not finite, or nothing grew.
        error: standard error of the exponent, from the number of elements that were drawn.
    """

    small: float
    large: float
    exponent: float | None
    error: float

    @property
    def zero(self) -> bool:
        """Whether the leaf starts at zero at both widths."""
        return self.small == self.large == 0

    def may_be(self, exponent: float) -> bool:
        """Whether a power can be the true one, sampling errors granted."""
        if self.exponent is None:
            return False
        return abs(self.exponent - exponent) <= TOLERANCE + SIGMAS * self.error


def initial_scales(init: Init, leaves: Sequence[int], draws: int) -> list[float]:
    """Return the root mean square of some leaves over several initialisations.

    One compiled program returns these numbers alone; what they do not need is never computed.

    Args:
        init: key -> params.
        leaves: their numbers in the order of `jax.tree.leaves`.
        draws: number of initialisations.
    """

    def mean_squares(key: PRNGKey) -> list[jax.Array]:
        made = jax.tree.leaves(params_of(init(key)))
        return [jnp.mean(jnp.square(made[number].astype(jnp.float32))) for number in leaves]

    keys = jax.random.split(jax.random.key(0), draws)
    squares = jax.jit(lambda keys: jax.lax.map(mean_squares, keys))(keys)
    return [math.sqrt(np.asarray(of_leaf, np.float64).mean()) for of_leaf in squares]


def draws_needed(elements: int, widening: float) -> int:
    """Return how many initialisations settle a power to within the tolerance.

    The logarithm of a scale taken over n normal draws has a standard error of (2 n)^-1/2.

    Args:
        elements: of the smaller leaf.
        widening: larger over smaller width.
    """
    wanted = (SIGMAS / (TOLERANCE * math.log(widening))) ** 2
    return max(1, min(MOST_DRAWS, math.ceil(wanted / max(elements, 1))))


def power(scales: tuple[float, float], widths: tuple[int, int], elements: tuple[int, int]) -> Power:
    """Return the power of the width that two measured scales follow.

    Args:
        scales: at both widths.
        widths: what grew: a fan-in or a fan-out.
        elements: drawn at both widths, over all initialisations.
    """
    error = math.sqrt(sum(0.5 / max(count, 1) for count in elements))
    widening = math.log(widths[1] / widths[0])
    if not widening or not all(0 < scale < math.inf for scale in scales):
        return Power(*scales, None, math.inf)
    return Power(*scales, math.log(scales[1] / scales[0]) / widening, error / abs(widening))
