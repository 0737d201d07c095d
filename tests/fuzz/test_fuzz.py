"""No input makes mulo crash, hang, grow without bound, write elsewhere, or run what it reads.

By default a few inputs of each kind, always the same; `pytest -m slow tests/fuzz` tries thousands,
and `python -m tests.fuzz.campaign` as many as there is time for.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.harness import attempt
from tests.fuzz.targets import TARGETS

SECONDS = 0.25
"""Of each target by default, roughly."""

MANY = 2_000


def _try(name: str, number: int) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def tried(value):
        attempt(target, value)

    tried()


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_hostile_inputs_are_read_or_refused(name):
    _try(name, max(3, min(40, round(SECONDS / TARGETS[name].cost))))


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_thousands_of_hostile_inputs_are_read_or_refused(name):
    _try(name, max(50, min(MANY, round(60 / TARGETS[name].cost))))
