"""Gaussian perturbations of meta-parameters, and arithmetic on them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.types import PRNGKey, Theta


def sample_perturbation(key: PRNGKey, theta: Theta, sigma: float) -> Theta:
    """Draw sigma N(0, 1) for every meta-parameter; the key is consumed."""
    leaves, structure = jax.tree.flatten(theta)
    keys = jax.random.split(key, len(leaves))
    noise = [
        sigma * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, noise)


def add(a: Theta, b: Theta, scale: float | Float[Array, ""] = 1.0) -> Theta:
    """Return a + scale b."""
    return jax.tree.map(lambda x, y: x + scale * y, a, b)


def zeros_like(theta: Theta) -> Theta:
    """Return a perturbation of nothing."""
    return jax.tree.map(jnp.zeros_like, theta)
