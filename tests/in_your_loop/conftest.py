"""Loops as users write them: with JAX's own promotion of dtypes, and an optimizer by its path."""

import jax
import pytest

import mulo_cli as mulo
from tests.in_your_loop.loops import ARCHITECTURES, DESK, STEPS, roles, save_velo


@pytest.fixture(autouse=True)
def standard_promotion():
    """Promote dtypes as JAX does by default: optax relies on it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def paths(tmp_path_factory):
    """Return the artefact of each architecture."""
    return {
        "small_fc_lopt": DESK,
        "velo": save_velo(tmp_path_factory.mktemp("in-your-loop") / "velo"),
    }


@pytest.fixture(params=ARCHITECTURES)
def tx(request, paths):
    """Return each learned optimizer as users get it."""
    return mulo.learned_optimizer(paths[request.param], roles=roles(), num_steps=STEPS)
