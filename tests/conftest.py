"""Strict mode for every test: no silent dtype promotion, shapes checked, compilations shared."""

import os
import tempfile

import pytest

CACHE = os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="mulo-tests-compiled-")
)
"""Subprocesses inherit it, so that a program is compiled once for all tests."""

for folder in ("MULO_DATA_DIR", "TFDS_DATA_DIR"):  # not what is prepared on this machine
    os.environ[folder] = os.path.join(tempfile.gettempdir(), "mulo-tests-have-no-data")

os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.pop("MULO_DEBUG", None)


@pytest.fixture(scope="session", autouse=True)
def strict_dtypes():
    """Forbid implicit promotion between dtypes while a test session lasts."""
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def getkey():
    """Return a function that gives a new key at each call, so that no test counts seeds."""
    import jax

    numbers = iter(range(1_000))
    return lambda: jax.random.key(next(numbers))
