"""Strict mode for every test: no silent dtype promotion, shapes checked, compilations shared."""

import gc
import os
import tempfile
from pathlib import Path

import pytest

CACHE = os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="mulo-tests-compiled-")
)
"""Subprocesses inherit it, so that a program is compiled once for all tests."""

for folder in ("MULO_DATA_DIR", "TFDS_DATA_DIR"):  # not what is prepared on this machine
    os.environ[folder] = os.path.join(tempfile.gettempdir(), "mulo-tests-have-no-data")

os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.pop("MULO_DEBUG", None)


# what jax keeps of thousands of programs is no garbage, and looking through it takes a second
gc.set_threshold(10_000, 10, 100)


@pytest.fixture(scope="session", autouse=True)
def strict_dtypes():
    """Forbid implicit promotion between dtypes while a test session lasts."""
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "strict")


QUICK_ROOMS = (
    "cli",
    "contracts",
    "faults",
    "in_your_loop",
    "learned_optimizers",
    "optimizees",
    "optimizers",
    "tasks",
)
"""Where numbers are compared within a tolerance, or with those of the very same programs, so that
it does not matter how XLA rounds; and where training takes less time than compiling."""


@pytest.fixture(scope="module", autouse=True)
def quick_programs(request):
    """In those rooms let XLA optimize next to nothing: its compiling is most of their time.

    Only by default: `-m slow`, or any other choice, compiles as users do. Processes inherit it.
    """
    import jax

    room = request.path.relative_to(Path(__file__).parent).parts[0]
    if room not in QUICK_ROOMS or request.config.option.markexpr != "not slow":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def getkey():
    """Return a function that gives a new key at each call, so that no test counts seeds."""
    import jax

    numbers = iter(range(1_000))
    return lambda: jax.random.key(next(numbers))
