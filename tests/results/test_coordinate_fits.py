"""From measured numbers to powers: slopes are those of the power law, whatever else varies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulo_cli.results.coordinate_fits import TOLERANCE, common_slope, fit_power, verdict_of

SIZES = (64, 128, 256, 512, 1024)
STEPS = (1, 2, 3, 4)


def powers(slopes, scale=1.0, sizes=SIZES, steps=STEPS) -> np.ndarray:
    """Return sizes x seeds x steps: each seed has its own slope and its own size."""
    n, s, t = np.meshgrid(np.log(sizes), range(len(slopes)), steps, indexing="ij")
    return scale * (s + 1.0) * t * np.exp(n * np.array(slopes)[s.astype(int)])


# --- Slopes ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=6), st.floats(1e-3, 1e3))
def test_a_power_law_gives_its_exponent_whatever_its_scale(slopes, scale):
    fit = fit_power(SIZES, powers(slopes, scale), STEPS)
    # tolerance: float64 logarithms
    assert fit.slopes == pytest.approx(tuple(slopes), abs=1e-9)
    assert fit.slope == pytest.approx(np.mean(slopes), abs=1e-9)
    assert set(fit.slope_at) == {1, 2, 3, 4}
    assert list(fit.slope_at.values()) == pytest.approx([np.mean(slopes)] * 4, abs=1e-9)
    assert (fit.low + fit.high) / 2 == pytest.approx(fit.slope, abs=1e-9)


def test_the_interval_of_exact_lines_of_one_slope_is_that_slope_whatever_their_constants():
    low, high = common_slope(SIZES, np.log(powers([0.3] * 3))[:, :, 0])
    assert (low, high) == pytest.approx((0.3, 0.3), abs=1e-9)


def test_the_interval_is_that_of_students_t():
    """Three seeds, three sizes, one slope: 9 - 4 = 5 degrees of freedom."""
    sizes = (1, 2, 4)
    log_NxS = np.log(2) * np.array([[0.0, 0, 0], [0, 0, 3], [1, 1, 1]])
    low, high = common_slope(sizes, log_NxS)
    residuals = log_NxS - log_NxS.mean(axis=0) - 0.5 * np.log(2) * np.array([[-1], [0], [1]])
    error = math.sqrt((residuals**2).sum() / 5 / (3 * 2 * np.log(2) ** 2))
    # 2.570582 is the 97.5 % quantile with five degrees of freedom, as tables of t have it
    assert (high - low) / 2 == pytest.approx(2.570582 * error, rel=1e-6)
    assert (high + low) / 2 == pytest.approx(0.5)


def test_where_seeds_have_slopes_of_their_own_only_these_tell():
    """Three slopes: 3 - 1 = 2 degrees of freedom, whatever the number of sizes."""
    low, high = common_slope(SIZES, np.log(powers([0.0, 0.1, 0.5]))[:, :, 0])
    error = np.std([0.0, 0.1, 0.5], ddof=1) / math.sqrt(3)
    # 4.302653 is the 97.5 % quantile with two degrees of freedom, as tables of t have it
    assert (high - low) / 2 == pytest.approx(4.302653 * error, rel=1e-6)
    assert (high + low) / 2 == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "covered"),
    [
        (3, 0.0, 0.96),
        (3, 0.05, 0.914),
        (3, 0.1, 0.937),
        (8, 0.0, 0.96),
        (8, 0.05, 0.95),
        (8, 0.1, 0.95),
    ],
)
def test_the_interval_holds_the_true_slope_about_95_times_in_100(seeds, of_seeds, covered):
    """Whether all seeds have one slope or each its own; the noise is 0.05."""
    draw = np.random.default_rng(0)
    logs = np.log(SIZES)[:, None]
    hits = []
    for _ in range(2_000):
        own = draw.normal(0.3, of_seeds, seeds) * logs + draw.normal(0.0, 1.0, seeds)
        low, high = common_slope(SIZES, own + draw.normal(0.0, 0.05, (len(SIZES), seeds)))
        hits.append(low <= 0.3 <= high)
    assert np.mean(hits) == pytest.approx(covered, abs=0.025)  # four standard errors


def test_slopes_that_differ_between_seeds_widen_the_interval():
    same, different = (common_slope(SIZES, np.log(powers(s))[:, :, 0]) for s in
                       ([0.0, 0.0, 0.0], [-0.2, 0.0, 0.2]))  # fmt: skip
    assert same[1] - same[0] < 1e-9
    assert different[1] - different[0] > 0.1


def test_the_measured_size_is_a_geometric_mean_over_seeds_and_steps():
    fit = fit_power(SIZES, powers([0.0, 0.5, 1.0], steps=(1, 2)), (1, 2))
    assert fit.values[64] == pytest.approx(64**0.5 * math.sqrt(2) * 6 ** (1 / 3))
    assert tuple(fit.values) == SIZES


# --- What does not count --------------------------------------------------------------------------


def test_a_step_at_which_any_number_is_zero_is_left_out_for_all():
    """The others would be compared at different steps: here their sizes differ tenfold."""
    values = powers([0.2, 0.2, 0.2])
    values[:, :, 0] = 10.0
    values[2, 1, 0] = 0.0
    fit = fit_power(SIZES, values, STEPS)
    assert fit.steps == (2, 3, 4)
    assert fit.slopes == pytest.approx((0.2, 0.2, 0.2))
    assert set(fit.slope_at) == {2, 3, 4}


def test_only_the_first_of_the_steps_that_count_may_be_asked_for():
    values = powers([0.0, 0.0, 0.0])
    values[:, :, 0] = 0.0
    values[:, :, 3] = values[:, :, 3] * np.array(SIZES)[:, None]
    fit = fit_power(SIZES, values, STEPS, most_steps=2)
    assert (fit.steps, fit.verdict) == ((2, 3), "stable")


def test_numbers_that_are_always_zero_have_no_slope():
    fit = fit_power(SIZES, np.zeros((5, 3, 4)), STEPS)
    assert (fit.slope, fit.steps, fit.verdict) == (None, (), "not enough data")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_number_that_is_not_finite_is_a_divergence(bad):
    values = powers([0.0, 0.0, 0.0])
    values[1, 1, 2] = bad
    fit = fit_power(SIZES, values, STEPS)
    assert (fit.verdict, fit.slope) == ("diverged", None)
    assert fit.values[128] is None
    assert fit.values[64] > 0


@pytest.mark.parametrize(("seeds", "sizes"), [(2, SIZES), (1, SIZES), (5, SIZES[:2])])
def test_few_seeds_or_sizes_are_not_enough_data(seeds, sizes):
    fit = fit_power(sizes, powers([0.0] * seeds, sizes=sizes), STEPS)
    assert fit.verdict == "not enough data"


# --- Networks that are too small ------------------------------------------------------------------


def bent(by: tuple[float, ...]) -> np.ndarray:
    """Return stable numbers whose smallest sizes are off by some factors."""
    factors = np.ones(len(SIZES))
    factors[: len(by)] = by
    return powers([0.0, 0.001, -0.001]) * factors[:, None, None]


@pytest.mark.parametrize(
    ("by", "dropped"), [((), ()), ((2.0,), (64,)), ((4.0, 2.0), (64, 128)), ((1.0, 4.0), (64, 128))]
)
def test_up_to_two_of_the_smallest_networks_may_be_too_small(by, dropped):
    fit = fit_power(SIZES, bent(by), STEPS)
    assert (fit.verdict, fit.dropped) == ("stable", dropped)
    assert fit.sizes == SIZES[len(dropped) :]
    assert set(fit.values) == set(SIZES), "what was dropped is shown all the same"


def test_where_dropping_does_not_help_all_sizes_count():
    fit = fit_power(SIZES, bent((1.0, 1.0, 4.0)), STEPS)
    assert fit.verdict != "stable"
    assert fit.dropped == ()
    grown = fit_power(SIZES, powers([1.0, 1.0, 1.0]), STEPS)
    assert (grown.verdict, grown.dropped) == ("grows", ())


def test_three_sizes_always_stay():
    three = bent((4.0,))[:3]
    assert fit_power(SIZES[:3], three, STEPS).dropped == ()


# --- Verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.05, 0.05), "stable"),
        ((-TOLERANCE, TOLERANCE), "stable"),
        ((0.02, 0.101), "not enough data"),
        ((-0.101, 0.0), "not enough data"),
        ((-0.5, 0.5), "not enough data"),
        ((0.1, 0.3), "not enough data"),
        ((0.11, 0.3), "grows"),
        ((-0.3, -0.11), "vanishes"),
        ((math.nan, math.nan), "not enough data"),
        (None, "not enough data"),
    ],
)
def test_a_verdict_needs_the_whole_interval(interval, verdict):
    assert verdict_of(interval) == verdict


@pytest.mark.parametrize(
    ("slope", "verdict"), [(0.0, "stable"), (0.09, "stable"), (0.5, "grows"), (-0.5, "vanishes")]
)
def test_power_laws_are_judged_by_their_exponent(slope, verdict):
    fit = fit_power(SIZES, powers([slope - 0.001, slope, slope + 0.001]), STEPS)
    assert fit.verdict == verdict
