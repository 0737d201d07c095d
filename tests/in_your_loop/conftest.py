"""Loops as users write them: with JAX's own promotion of dtypes, and an optimizer by its path."""

import jax
import pytest

from tests.in_your_loop.loops import ARCHITECTURES, DESK, Learned, learned, save_velo


@pytest.fixture(autouse=True)
def standard_promotion():
    """Promote dtypes as JAX does by default: optax relies on it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def both(tmp_path_factory) -> dict[str, Learned]:
    """Return both architectures as users get them: by the path of an artefact."""
    with jax.numpy_dtype_promotion("standard"):
        velo = save_velo(tmp_path_factory.mktemp("in-your-loop") / "velo")
        return {"small_fc_lopt": learned(DESK), "velo": learned(velo)}


@pytest.fixture(params=ARCHITECTURES)
def either(request, both) -> Learned:
    """Return each of them in turn."""
    return both[request.param]


@pytest.fixture
def mulo_m(both) -> Learned:
    """Return the one that was meta-trained."""
    return both["small_fc_lopt"]


@pytest.fixture
def velo(both) -> Learned:
    """Return the one that looks at the loss."""
    return both["velo"]
