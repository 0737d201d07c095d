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

ARITHMETIC_ELEMENTS = 16
"""Smallest tensor that runs a small network as arithmetic. Less does not repay compiling it."""

ARITHMETIC_UNITS = 8
"""Hidden units of a small network. Matrix products are faster for more: registers have room for so
many units, not for sixteen."""


class Network(NamedTuple):
    """Weights of one tensor's network F -> H -> H -> 2; inputs equal for all elements are in b0."""

    w0: Float[Array, "F H"]
    b0: Float[Array, " H"]
    w1: Float[Array, "H H"]
    b1: Float[Array, " H"]
    w2: Float[Array, "H 2"]
    b2: Float[Array, "2"]


Inputs: TypeAlias = Sequence[tuple[Float[Array, "_ H"], Sequence[Float[Array, "..."]]]]
"""Of a layer: weights of some inputs that share a shape, and these inputs."""

Outputs: TypeAlias = tuple[Float[Array, "*p"], Float[Array, "*p"]]
"""Direction d and magnitude m of every element."""


def is_arithmetic(network: Network, shape: tuple[int, ...]) -> bool:
    """Whether the network runs on a tensor of this shape as arithmetic.

    Its units are then expressions of the elements, which the compiler evaluates in one loop and
    keeps nowhere: such a tensor needs no blocks.
    """
    return network.b0.size <= ARITHMETIC_UNITS and math.prod(shape) >= ARITHMETIC_ELEMENTS


def network_outputs(
    network: Network, groups: Sequence[FeatureGroup], norms: Norms, *, arithmetic: bool
) -> Outputs:
    """Run the network on every element of a tensor or of a block of it.

    Args:
        network: of the tensor.
        groups: features of its elements.
        norms: of the features; they are folded into the first layer's weights.
        arithmetic: unit by unit, as expressions; else as matrix products.
    """
    rows = [row for group in groups for row in group.rows]
    weights = network.w0[jnp.array(rows)] * norms[:, None]
    # group by group also for arithmetic: else XLA norms every weight anew for every element
    of_groups = jax.lax.split(weights, [len(group.rows) for group in groups])
    inputs = [(w, group.values) for w, group in zip(of_groups, groups, strict=True)]
    return (_by_arithmetic if arithmetic else _by_products)(network, inputs)


def _by_products(network: Network, inputs: Inputs) -> Outputs:
    """Run the network as matrix products over all elements."""
    axes = inputs[0][1][0].ndim
    sums = [_product(weights, jnp.stack(values)) for weights, values in inputs]
    hidden = jax.nn.relu(sum(sums, start=_column(network.b0, axes)))
    hidden = jax.nn.relu(_product(network.w1, hidden) + _column(network.b1, axes))
    direction, magnitude = _product(network.w2, hidden) + _column(network.b2, axes)
    return direction, magnitude


def _by_arithmetic(network: Network, inputs: Inputs) -> Outputs:
    """Run the network unit by unit, as expressions of the elements."""
    hidden = [jax.nn.relu(unit) for unit in _units(inputs, network.b0)]
    hidden = [jax.nn.relu(unit) for unit in _units([(network.w1, hidden)], network.b1)]
    direction, magnitude = _units([(network.w2, hidden)], network.b2)
    return direction, magnitude


def _product(weights: Float[Array, "F H"], x: Float[Array, "F *p"]) -> Float[Array, "H *p"]:
    return jnp.einsum("fh,f...->h...", weights, x)


def _units(inputs: Inputs, bias: Float[Array, " H"]) -> list[Float[Array, "*p"]]:
    """Return the sums of one layer, one array per unit; what repeats is summed unrepeated."""
    weighed = [(_numbers(weights), values) for weights, values in inputs]
    units = []
    for unit, start in enumerate(_numbers(bias)):
        columns = [(numbers[unit :: bias.size], values) for numbers, values in weighed]
        units.append(start + sum(_weighted_sum(column, values) for column, values in columns))
    return units


def _weighted_sum(
    weights: Sequence[Float[Array, "1"]], values: Sequence[Float[Array, "*p"]]
) -> Float[Array, "*p"]:
    return jnp.asarray(sum(weight * x for weight, x in zip(weights, values, strict=True)))


def _numbers(array: Float[Array, "..."]) -> Sequence[Float[Array, "1"]]:
    """Return all numbers of an array, one by one: in one operation, which is fast to trace."""
    return jax.lax.split(array.reshape(-1), [1] * array.size)


def _column(bias: Float[Array, " H"], axes: int) -> Float[Array, "H ..."]:
    return bias.reshape(-1, *(1,) * axes)
