"""A sharded tree of parameters: the same updates, and everything stays where it lies."""

import json
import subprocess
import sys

import pytest

from tests.cli.programs import environment
from tests.in_your_loop.loops import ROOT

TOLERANCE = 1e-4
"""Of a tensor's largest update. Sums over a tensor are taken in another order, so that features'
norms differ by a few float32 roundings; the network and two updates pass these on."""


@pytest.fixture(
    scope="module", params=["small_fc_lopt", pytest.param("velo", marks=pytest.mark.slow)]
)
def found(request, both):
    """Return what comes out on four devices, in a process that has them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.in_your_loop.sharded_updates", str(both[request.param].path)],
        cwd=ROOT,
        env=environment(XLA_FLAGS="--xla_force_host_platform_device_count=4", JAX_PLATFORMS="cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_updates_are_those_of_whole_parameters(found):
    assert {name for name, leaf in found.items() if not leaf["worst"] < TOLERANCE} == set()


def test_averages_and_parameters_lie_where_the_parameters_were(found):
    assert {name: leaf["elsewhere"] for name, leaf in found.items() if leaf["elsewhere"]} == {}
