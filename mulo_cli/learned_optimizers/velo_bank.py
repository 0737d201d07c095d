"""VeLO's bank of per-parameter networks, from which every tensor's own is mixed.

L. Metz et al., "VeLO: Training versatile learned optimizers by scaling up" (2022); sizes and
interpolation scale of muVeLO: muLO (B. Therien et al., 2025), appendix A.1.2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.learned_optimizers.network import Network
from mulo_cli.mup.initializers import truncated_normal
from mulo_cli.types import PRNGKey, Theta

GROUP_SIZES = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
"""Inputs of the 14 groups, each with weights `w0__j` of its own in published files."""

NETWORK_INPUTS = sum(GROUP_SIZES)

OUTPUTS = 3
"""Direction d, magnitude m, and one that nothing uses."""


def init_bank(key: PRNGKey, units: int, bank: int) -> Theta:
    """Draw the networks independently; fan-in of all `w0__j` is that of the whole first layer.

    Args:
        key: consumed.
        units: hidden units `H` of each.
        bank: how many, `P`.
    """
    shapes = {f"w0__{j}": (size, units) for j, size in enumerate(GROUP_SIZES)}
    shapes |= {"w1": (units, units), "w2": (units, OUTPUTS)}
    keys = jax.random.split(key, len(shapes))
    weights = {
        name: truncated_normal(
            key_leaf, (bank, *shape), NETWORK_INPUTS if name.startswith("w0") else units
        )
        for key_leaf, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    biases = {"b0": units, "b1": units, "b2": OUTPUTS}
    return weights | {name: jnp.zeros((bank, size)) for name, size in biases.items()}


def mixed_networks(bank: Theta, controls: Float[Array, "M P"], scale: float) -> Network:
    """Return every tensor's network: scale * mean_i(control_i * bank_i), weights and biases alike.

    Args:
        bank: `ff_mod_stack` of theta, leaves of shape (P, ...).
        controls: of every tensor.
        scale: interpolation scale `s`.

    Returns:
        Networks with a leading axis of M on every field.
    """

    def mixed(leaf: Float[Array, "P ..."]) -> Float[Array, "M ..."]:
        return scale / leaf.shape[0] * jnp.tensordot(controls, leaf, axes=1)

    groups = [bank[f"w0__{j}"] for j in range(len(GROUP_SIZES))]
    return Network(
        w0=mixed(jnp.concatenate(groups, axis=1)),
        b0=mixed(bank["b0"]),
        w1=mixed(bank["w1"]),
        b1=mixed(bank["b1"]),
        w2=mixed(bank["w2"][..., :2]),
        b2=mixed(bank["b2"][..., :2]),
    )
