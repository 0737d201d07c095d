"""One update of one tensor: its accumulators, its features' statistics, its network's step.

Statistics of the whole tensor come first, as in a distributed update; what follows needs nothing
but an element and those statistics. A small network is then one loop over the tensor; a large one,
whose hidden units must be written somewhere, goes block by block.

muLO (B. Therien et al., 2025), equation 3 and appendix A.1.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.learned_optimizers.accumulators import (
    Accumulators,
    Decays,
    accumulators_of,
    moments_of,
    update_factored,
    update_moments,
)
from mulo_cli.learned_optimizers.blocks import blocks_of, map_over_blocks
from mulo_cli.learned_optimizers.features import (
    Elements,
    FeatureGroup,
    Features,
    Norms,
    norms_of,
)
from mulo_cli.learned_optimizers.network import Network, is_arithmetic, network_outputs
from mulo_cli.learned_optimizers.parts import on_every_part


class UpdateRule(NamedTuple):
    """What the update of a tensor does, besides its network."""

    clean: Callable[[Array], Float[Array, "..."]]
    """Makes raw gradients finite, in float32; element by element."""
    features: Features
    decays: Decays
    magnitude_scale: float
    """lambda_2 of equation 3."""


def update_tensor(
    rule: UpdateRule,
    gradient: Float[Array, "*p"],
    parameter: Float[Array, "*p"],
    old: Accumulators,
    network: Network,
) -> tuple[Float[Array, "*p"], Accumulators]:
    """Return d exp(lambda_2 m) of every element, and the accumulators after this gradient.

    Args:
        rule: of the architecture.
        gradient: as it comes. It is cleaned wherever it is used: a clean copy would be large.
        parameter: before its update, in the user's type.
        old: accumulators before this gradient.
        network: this tensor's.
    """
    clean = rule.clean(gradient)
    factored = update_factored(old, rule.decays, clean)
    moments = update_moments(moments_of(old), rule.decays, clean)
    elements = Elements(gradient, parameter, moments, factored)
    norms = norms_of(_features(rule, elements))
    # else features of the whole tensor would be kept, from where they are normed to where they act
    elements, norms = jax.lax.optimization_barrier((elements, norms))
    step = on_every_part(functools.partial(_step, rule), elements, network, norms)
    return step, accumulators_of(elements.moments, factored)


def _step(
    rule: UpdateRule, elements: Elements, network: Network, norms: Norms
) -> Float[Array, "*p"]:
    """Return what the network says of every element of a tensor, or of a part of one."""
    shape = elements.gradient.shape
    arithmetic = is_arithmetic(network, shape)

    def apply(block: Elements) -> Float[Array, "*block"]:
        features = _features(rule, block)
        direction, magnitude = network_outputs(network, features, norms, arithmetic=arithmetic)
        return direction * jnp.exp(rule.magnitude_scale * magnitude)

    blocks = None if arithmetic else blocks_of(shape)
    return apply(elements) if blocks is None else map_over_blocks(apply, elements, blocks, shape)


def _features(rule: UpdateRule, elements: Elements) -> tuple[FeatureGroup, ...]:
    return rule.features(elements._replace(gradient=rule.clean(elements.gradient)))
