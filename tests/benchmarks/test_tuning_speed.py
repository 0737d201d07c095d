"""The benchmark of tuning holds lanes against as many steps as they did, not against more."""

import pytest

from tests.benchmarks.tuning_speed import trained_steps


@pytest.mark.parametrize(
    ("steps", "diverged_at", "trained"),
    [(500, None, 500), (500, 1, 50), (500, 50, 50), (500, 51, 100), (60, 31, 60)],
)
def test_a_training_that_diverges_counts_to_the_end_of_its_segment(steps, diverged_at, trained):
    assert trained_steps({"steps": steps, "diverged_at": diverged_at}) == trained
