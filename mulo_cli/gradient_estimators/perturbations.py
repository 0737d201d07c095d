"""Gaussian perturbations of meta-parameters, and arithmetic on them."""

import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mulo_cli.types import PRNGKey, Theta


def sample_perturbation(key: PRNGKey, theta: Theta, sigma: float) -> Theta:
    """Draw sigma N(0, 1) for every meta-parameter; the key is consumed."""
    flat, unravel = ravel_pytree(theta)
    return unravel(sigma * jax.random.normal(key, flat.shape))


def add(a: Theta, b: Theta, scale: float | Float[Array, ""] = 1.0) -> Theta:
    """Return a + scale b."""
    return jax.tree.map(lambda x, y: x + scale * y, a, b)
