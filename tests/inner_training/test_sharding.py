"""Networks spread over four devices train as on one, and hardly speak during an update."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.programs import environment

ROOT = Path(__file__).parents[2]
DEVICES = 4
QUICK = ("mlp-small-32",)
REST = (
    "mlp-adamw", "mlp-muadam", "mlp-small-4", "mlp-velo",
    "gpt-muadam", "gpt-small-4", "gpt-small-32", "gpt-velo",
)  # fmt: skip

LOSS_TOLERANCE = 1e-5
"""Of losses between 1 and 5. Sums are taken in another order: a rounding of 1e-7 in the gradients,
which a dozen steps carry on."""

PARAMETER_TOLERANCE = 2e-3
"""Of how far a tensor has moved: rounding of parameters as large as one, beside moves of 1e-2."""

FEW_BYTES = 0.02
"""Of the parameters': more than all that crosses devices in an update."""

WHOLE = 10.0
"""Times the parameters' bytes: a gradient, a parameter, four averages, and less than four of what
an update makes of them (`tests/learned_optimizers/test_memory.py`)."""

FAST_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Half the time of these tests; what crosses devices, and where things lie, is decided before."""


def run(names):
    """Return what was found of these cases, in a process that has several devices."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.studies.spread_trainings", *names],
        cwd=ROOT,
        env=environment(
            XLA_FLAGS=f"--xla_force_host_platform_device_count={DEVICES} {FAST_TO_COMPILE}",
            JAX_PLATFORMS="cpu",
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def quick():
    return run(QUICK)


@pytest.fixture(scope="module")
def rest():
    return run(REST)


CASES = [
    *(pytest.param(name, "quick", id=name) for name in QUICK),
    *(pytest.param(name, "rest", id=name, marks=pytest.mark.slow) for name in REST),
]

LOOKED_AT = [case for case in CASES if case.id in ("mlp-small-32", "mlp-velo")]


@pytest.fixture
def found(request):
    return lambda name, fixture: request.getfixturevalue(fixture)[name]


@pytest.mark.parametrize(("name", "fixture"), CASES)
def test_a_spread_network_trains_as_on_one_device(found, name, fixture):
    case = found(name, fixture)
    assert case["cut"] > 0.9
    assert case["losses"] < LOSS_TOLERANCE
    assert case["params"] < PARAMETER_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp-small-4", "mlp-velo"])
def test_statistics_of_a_part_alone_would_be_noticed(rest, name):
    assert rest[name]["planted"] > 10 * PARAMETER_TOLERANCE


@pytest.mark.parametrize(("name", "fixture"), LOOKED_AT)
def test_an_update_sends_statistics_and_no_tensor(found, name, fixture):
    assert 0 < found(name, fixture)["largest crossing"] < found(name, fixture)["all crossing"]
    assert found(name, fixture)["all crossing"] < FEW_BYTES


@pytest.mark.parametrize(("name", "fixture"), LOOKED_AT)
def test_each_device_has_its_share_of_state_and_temporaries(found, name, fixture):
    assert found(name, fixture)["bytes of each"] < WHOLE / DEVICES
