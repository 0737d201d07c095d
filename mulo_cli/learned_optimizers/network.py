"""The network of three layers that is applied to every element of a tensor.

L. Metz et al., "Practical tradeoffs between memory, compute, and performance in learned optimizers"
(2022). small_fc_lopt has one network for all tensors, VeLO mixes one for each.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.learned_optimizers.features import FeatureGroup, Norms

ARITHMETIC_ELEMENTS = 1_000
"""Tensors of so many elements run the network as fused arithmetic: on a CPU 2 to 3 times faster
than matrix products with a tiny inner dimension. Smaller ones do not repay its compilation."""

ARITHMETIC_UNITS = 16
"""Hidden units up to which that holds."""


class Network(NamedTuple):
    """Weights of one tensor's network F -> H -> H -> 2; inputs equal for all elements are in b0."""

    w0: Float[Array, "F H"]
    b0: Float[Array, " H"]
    w1: Float[Array, "H H"]
    b1: Float[Array, " H"]
    w2: Float[Array, "H 2"]
    b2: Float[Array, "2"]


Inputs: TypeAlias = tuple[tuple[Float[Array, "_ H"], Float[Array, "_ ..."]], ...]
"""Per group of features: the first layer's weights, normalisation folded in, and the features."""

Outputs: TypeAlias = tuple[Float[Array, "*p"], Float[Array, "*p"]]
"""Direction d and magnitude m of every element."""


def network_outputs(network: Network, groups: Sequence[FeatureGroup], norms: Norms) -> Outputs:
    """Run the network on every element of a tensor or of a block of it.

    The features' norms are folded into the first layer's weights.
    """
    inputs = tuple(
        (network.w0[jnp.array(group.rows)] * norm[:, None], group.values)
        for group, norm in zip(groups, norms, strict=True)
    )
    elements = math.prod(groups[0].values.shape[1:])
    fused = elements >= ARITHMETIC_ELEMENTS and network.b0.size <= ARITHMETIC_UNITS
    return (_by_arithmetic if fused else _by_products)(network, inputs)


def _by_products(network: Network, inputs: Inputs) -> Outputs:
    """Run the network as matrix products over all elements."""
    axes = inputs[0][1].ndim - 1
    hidden = _column(network.b0, axes)
    for weights, values in inputs:
        hidden = hidden + _product(weights, values)
    hidden = jax.nn.relu(hidden)
    hidden = jax.nn.relu(_product(network.w1, hidden) + _column(network.b1, axes))
    direction, magnitude = _product(network.w2, hidden) + _column(network.b2, axes)
    return direction, magnitude


def _by_arithmetic(network: Network, inputs: Inputs) -> Outputs:
    """Run the network unit by unit: the compiler makes one loop over the elements of it."""
    hidden = [jax.nn.relu(unit) for unit in _units(inputs, network.b0)]
    hidden = [jax.nn.relu(unit) for unit in _units(((network.w1, hidden),), network.b1)]
    direction, magnitude = _units(((network.w2, hidden),), network.b2)
    return direction, magnitude


def _product(weights: Float[Array, "F H"], x: Float[Array, "F *p"]) -> Float[Array, "H *p"]:
    return jnp.einsum("fh,f...->h...", weights, x)


def _units(
    inputs: Sequence[tuple[Float[Array, "_ H"], Sequence[Array] | Array]],
    bias: Float[Array, " H"],
) -> list[Float[Array, "*p"]]:
    """Return the sums of one layer, one array per unit; what repeats is summed unrepeated."""
    return [
        bias[unit]
        + sum(sum(weights[i, unit] * x for i, x in enumerate(values)) for weights, values in inputs)
        for unit in range(bias.size)
    ]


def _column(bias: Float[Array, " H"], axes: int) -> Float[Array, "H ..."]:
    return bias.reshape(-1, *(1,) * axes)
