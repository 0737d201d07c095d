"""From measured changes to verdicts: slopes are those of the power law, whatever else varies."""

import dataclasses
import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulo_cli.results.coordinates import (
    TOLERANCE,
    CoordinateRecord,
    check_coordinates,
    confidence_interval,
    fit_layer,
    verdict_of,
)
from mulo_cli.results.store import to_line

WIDTHS = (64, 128, 256, 512, 1024)


def record(width: int, seed: int, change: dict[str, tuple[float, ...]]) -> CoordinateRecord:
    return CoordinateRecord(
        optimizer="muadam",
        settings={"learning_rate": 0.1},
        parametrization="mup",
        recipe_digest=None,
        task="mlp",
        dataset="digits",
        real=True,
        width=width,
        depth=3,
        batch_size=64,
        seed=seed,
        steps=len(next(iter(change.values()))),
        code_version="0",
        change=change,
    )


def power_law(slopes, scale=1.0, widths=WIDTHS, steps=4) -> list[CoordinateRecord]:
    """Return records whose one layer grows like width^slope, each seed with its own slope."""
    return [
        record(w, seed, {"layer": tuple(scale * (t + 1) * w**slope for t in range(steps))})
        for w in widths
        for seed, slope in enumerate(slopes)
    ]


def replace_change(one: CoordinateRecord, step: int, value: float) -> CoordinateRecord:
    values = list(one.change["layer"])
    values[step] = value
    return dataclasses.replace(one, change={"layer": tuple(values)})


# --- Slopes ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=6), st.floats(1e-3, 1e3), st.randoms())
def test_a_power_law_gives_its_exponent_whatever_its_scale_and_the_order(slopes, scale, chance):
    records = power_law(slopes, scale)
    chance.shuffle(records)
    fit = fit_layer(records, "layer")
    # tolerance: float64 logarithms
    assert fit.slopes == pytest.approx(tuple(slopes), abs=1e-9)
    assert fit.slope == pytest.approx(np.mean(slopes), abs=1e-9)
    assert set(fit.slope_at) == {1, 2, 3, 4}
    assert list(fit.slope_at.values()) == pytest.approx([np.mean(slopes)] * 4, abs=1e-9)


def test_the_interval_is_that_of_students_t():
    low, high = confidence_interval([0.0, 0.1, 0.2])
    # 4.302653 is the 97.5 % quantile with two degrees of freedom, as tables of t have it
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert (high + low) / 2 == pytest.approx(0.1)
    assert confidence_interval([0.0, 0.1]) is None


def test_an_interval_of_95_percent_holds_the_true_slope_95_times_in_100():
    generator = np.random.default_rng(0)
    trials = generator.normal(0.3, 0.05, (2_000, 5))
    intervals = [confidence_interval(trial.tolist()) for trial in trials]
    hits = [low <= 0.3 <= high for low, high in intervals]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)  # four standard errors of 2 000 trials


def test_the_measured_size_is_a_geometric_mean_over_seeds_and_steps():
    fit = fit_layer(power_law([0.0, 0.5, 1.0], steps=2), "layer")
    assert fit.change[64] == pytest.approx(64**0.5 * math.sqrt(2))
    assert tuple(fit.change) == WIDTHS


# --- What does not count --------------------------------------------------------------------------


def test_a_step_at_which_any_network_has_not_moved_is_left_out_for_all():
    """The others would be compared at different steps: here their sizes differ tenfold."""
    records = power_law([0.2, 0.2, 0.2])
    records = [replace_change(r, 0, 10.0) for r in records]
    records[7] = replace_change(records[7], 0, 0.0)
    fit = fit_layer(records, "layer")
    assert fit.steps == (2, 3, 4)
    assert fit.slopes == pytest.approx((0.2, 0.2, 0.2))
    assert set(fit.slope_at) == {2, 3, 4}


def test_a_layer_that_never_moves_has_no_slope():
    still = [record(w, s, {"layer": (0.0, 0.0)}) for w in WIDTHS for s in range(3)]
    fit = fit_layer(still, "layer")
    assert (fit.slope, fit.steps, fit.verdict) == (None, (), "not enough data")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_number_that_is_not_finite_is_a_divergence_and_null_in_json(bad):
    records = power_law([0.0, 0.0, 0.0])
    records[4] = replace_change(records[4], 2, bad)
    check = check_coordinates(records)
    (fit,) = check.fits
    assert fit.verdict == "diverged"
    assert fit.slope is None
    assert not check.passed
    plain = json.loads(to_line(fit), parse_constant=pytest.fail)
    assert plain["change"]["128"] is None
    assert plain["change"]["64"] > 0
    assert json.loads(to_line(records[4]))["change"]["layer"][2] is None


@pytest.mark.parametrize(
    ("seeds", "widths"), [(2, WIDTHS), (1, WIDTHS), (5, WIDTHS[:2]), (5, WIDTHS[:1])]
)
def test_few_seeds_or_widths_are_not_enough_data(seeds, widths):
    fit = fit_layer(power_law([0.0] * seeds, widths=widths), "layer")
    assert fit.verdict == "not enough data"


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
    fit = fit_layer(power_law([slope - 0.001, slope, slope + 0.001]), "layer")
    assert fit.verdict == verdict


def test_an_optimizer_passes_if_every_layer_is_stable():
    def layers(exponent: float) -> list[CoordinateRecord]:
        return [
            record(w, s, {"input": (1.0 + s, 2.0), "logits": (w**exponent, w**exponent)})
            for w in WIDTHS
            for s in range(3)
        ]

    assert check_coordinates(layers(0.0)).passed
    failed = check_coordinates(layers(0.5))
    assert not failed.passed
    assert failed.verdict.layers == {"input": "stable", "logits": "grows"}
    assert json.loads(to_line(failed.verdict))["verdict"] == "fail"


def test_the_order_of_records_is_irrelevant():
    records = power_law([0.1, 0.3, -0.2, 0.0])
    shuffled = records[:]
    random.Random(0).shuffle(shuffled)
    assert check_coordinates(shuffled).fits == check_coordinates(records).fits
