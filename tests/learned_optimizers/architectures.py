"""Both architectures, small, for what holds of either."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.mup.rules import adam_like
from tests.learned_optimizers.draws import shaken

NAMES = sorted(LEARNED_OPTIMIZERS)


def make(name: str, **settings: Any) -> LearnedOptimizer:
    entry = LEARNED_OPTIMIZERS[name]
    return entry.make(entry.config(**{"hidden_size": 4, **settings}), adam_like)


def theta_of(name: str, seed: int = 0, **settings: Any) -> Any:
    """Return theta at birth, shaken: no number is zero, and VeLO's heads speak up."""
    theta = shaken(
        np.random.default_rng(seed), make(name, **settings).init(jax.random.key(seed)), by=0.2
    )
    if name == "velo":
        bank = theta["ff_mod_stack"]
        theta = {**theta, "ff_mod_stack": jax.tree.map(lambda leaf: np.float32(4) * leaf, bank)}
    return jax.tree.map(jnp.asarray, theta)
