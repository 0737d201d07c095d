"""A coordinate check finds every planted mistake, names its layer, and passes what is right.

The whole table, with repetitions: `python -m tests.benchmarks.planted_mistakes`.
"""

import dataclasses

import jax
import pytest

from tests.studies.planted import BY_DEPTH, BY_NETWORK, RIGHT, Mistake
from tests.studies.planting import World, check, found, world

FAST = ("hidden factor missing",)
"""Those that are not slow."""

RIGHT_SEEDS = 16
"""A right network must be seen to be right by every measure; a wrong one by a single one."""

EVERY = [
    pytest.param(
        network,
        mistake,
        id=f"{network}-{mistake.name}",
        marks=[] if network == "mlp" and mistake.name in FAST else pytest.mark.slow,
    )
    for network, mistakes in (BY_NETWORK | BY_DEPTH).items()
    for mistake in mistakes
]


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize(("network", "mistake"), EVERY)
def test_a_mistake_fails_and_its_layer_is_named(network: str, mistake: Mistake):
    one = check(_small(world(network, seeds=3), mistake), mistake)
    assert one.verdict.verdict == "fail"
    assert found(one, mistake), one.verdict.diagnosis


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "right"),
    [
        pytest.param(network, right, id=f"{network}-{right.optimizer.partition(':')[0]}")
        for network, of_network in RIGHT.items()
        for right in of_network
    ],
)
def test_a_right_network_passes(network: str, right: Mistake):
    one = check(world(network, seeds=RIGHT_SEEDS), right)
    failing = [(fit.place, fit.measure, fit.slope) for fit in one.fits if fit.failed]
    assert not failing
    assert one.passed, [
        (fit.place, fit.measure, fit.low, fit.high)
        for fit in one.fits
        if fit.judged and fit.verdict != "stable"
    ]


def _small(where: World, mistake: Mistake) -> World:
    """Return a world that is quickly checked, for mistakes that are checked by default."""
    if mistake.name not in FAST or where.network != "mlp":
        return where
    return dataclasses.replace(where, sizes=(16, 64, 256), steps=3)
