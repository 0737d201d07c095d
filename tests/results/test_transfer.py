"""The analysis of transfer finds a drift that is there, and claims none where it cannot know."""

import dataclasses
import math

import numpy as np
import pytest

from mulo_cli.results.transfer import best_rate, judge_transfer, sweeps, verdict_of
from mulo_cli.results.transfer_records import TransferRow

RATES = tuple(2.0**power for power in range(-12, 1))


def row(size: int, rate: float, seed: int, loss: float | None, **changed) -> TransferRow:
    told = TransferRow(
        optimizer="adamw", learning_rate=rate, settings={"learning_rate": rate},
        parametrization="mup", task="gpt", dataset="pydoc", real=True, width=size, depth=2,
        batch_size=8, seed=seed, steps=100, validate_every=10, validation_batches=4, patience=50,
        window=10, code_version="0", validation_loss=loss, training_loss=loss, best_step=100,
        stopped_at=100, status="all steps", validation=(), parameters=1, seconds_per_step=0.0,
    )  # fmt: skip
    return dataclasses.replace(told, **changed)


def rows_with(
    drift: float, *, seeds=3, noise=0.0, at=-6.3, sizes=(16, 32, 64, 128), limit=math.inf
):
    """Return rows whose loss is a parabola in log2 of the rate, its minimum drifting with size.

    Args:
        drift: bits per doubling.
        seeds: of each rate and size.
        noise: standard deviation of a seed's minimum, in bits.
        at: log2 of the best rate of the smallest size.
        sizes: widths.
        limit: rates so many times above the best diverge.
    """
    generator = np.random.default_rng(3)
    for size in sizes:
        for seed in range(seeds):
            best = at + drift * math.log2(size / sizes[0]) + noise * generator.normal()
            for rate in RATES:
                off = math.log2(rate) - best
                loss = None if 2.0**off > limit else 1.0 + 0.05 * off**2
                yield row(size, rate, seed, loss)


def judged(rows, axis="width", measure="validation"):
    (sweep,) = sweeps(rows, axis, measure)
    return judge_transfer(sweep)


@pytest.mark.parametrize("drift", [-1.0, -0.37, 0.0, 0.2, 1.0])
def test_a_drift_is_found_exactly(drift):
    found = judged(rows_with(drift))
    assert found.drift == pytest.approx(drift, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((drift, drift), abs=1e-9)
    assert found.verdict == ("transfers" if abs(drift) <= 0.25 else "drifts")
    assert math.log2(found.optima[0].rate) == pytest.approx(-6.3)
    assert found.notes == ()


def test_noise_of_seeds_makes_the_interval_and_can_leave_it_open():
    quiet, loud = judged(rows_with(0.0, noise=0.1)), judged(rows_with(0.0, noise=1.5))
    assert quiet.verdict == "transfers"
    assert quiet.low < quiet.drift < quiet.high
    assert loud.high - loud.low > 5 * (quiet.high - quiet.low)
    assert loud.verdict == "not enough data"
    assert quiet.optima[1].low < quiet.optima[1].rate < quiet.optima[1].high


def test_the_same_rows_give_the_same_interval_each_time():
    rows = list(rows_with(0.1, noise=0.5))
    assert judged(rows) == judged(rows[::-1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": 2}, "needs 3 seeds; here are 2"),
        ({"sizes": (16, 32)}, "needs 3 sizes that tell a best rate; here are 2"),
        ({"at": -20.0}, "first or last of the list"),
    ],
)
def test_too_little_is_not_enough_data_and_says_why(given, said):
    found = judged(rows_with(0.0, **given))
    assert found.verdict == "not enough data"
    assert said in " ".join(found.notes)


def test_sizes_whose_best_rate_is_at_the_border_do_not_count():
    """They would hide a drift: here the best rates of the two widest lie below the list."""
    found = judged(rows_with(-1.5, at=-6.8, sizes=(16, 32, 64, 128, 256, 512)))
    assert [best.on_border for best in found.optima] == [False] * 4 + [True] * 2
    assert found.drift == pytest.approx(-1.5)
    assert "width 256, 512" in found.notes[0]


def test_beside_a_rate_that_diverged_the_best_one_is_taken_as_it_was_tried():
    found = judged(rows_with(0.0, at=-6.0, limit=1.5))
    assert {best.rate for best in found.optima} == {2.0**-6}
    assert not any(best.on_border for best in found.optima)
    assert found.verdict == "transfers"


def test_one_seed_that_diverges_takes_its_rate_out():
    rows = [
        dataclasses.replace(one, validation_loss=None)
        if one.seed == 1 and one.learning_rate == 2.0**-6
        else one
        for one in rows_with(0.0, at=-6.0)
    ]
    assert {best.tried for best in judged(rows).optima} <= {2.0**-5, 2.0**-7}
    (sweep,) = sweeps(rows, "width", "validation")
    assert np.isnan(sweep.means(16)[RATES.index(2.0**-6)])
    assert judge_transfer(sweeps(rows, "width", "training")[0]).optima[0].tried == 2.0**-6


def test_a_size_at_which_all_diverges_is_left_out_and_named():
    rows = [
        dataclasses.replace(one, validation_loss=None) if one.width == 32 else one
        for one in rows_with(0.5)
    ]
    found = judged(rows)
    assert found.drift == pytest.approx(0.5)
    assert "width 32 every rate diverged" in " ".join(found.notes)


def test_seeds_and_rates_that_a_size_lacks_count_nowhere():
    rows = [one for one in rows_with(0.0, seeds=4) if (one.width, one.seed) != (64, 3)]
    rows = [one for one in rows if (one.width, one.learning_rate) != (16, RATES[0])]
    (sweep,) = sweeps(rows, "width", "validation")
    assert sweep.rates == RATES[1:]
    assert {of.shape for of in sweep.losses.values()} == {(3, len(RATES) - 1)}


def test_optimizers_and_parametrizations_are_judged_apart():
    rows = [*rows_with(0.0)]
    rows += [dataclasses.replace(one, parametrization="sp") for one in rows_with(-1.0)]
    mup, sp = (judge_transfer(sweep) for sweep in sweeps(rows, "width", "validation"))
    assert (mup.parametrization, mup.verdict) == ("mup", "transfers")
    assert (sp.parametrization, sp.verdict) == ("sp", "drifts")


def test_depth_is_an_axis_as_well():
    rows = [dataclasses.replace(one, depth=one.width, width=32) for one in rows_with(-0.5)]
    found = judged(rows, axis="depth")
    assert found.drift == pytest.approx(-0.5)
    assert [best.size for best in found.optima] == [16, 32, 64, 128]


def test_rates_need_not_be_evenly_spaced():
    """The lists of the paper are not: 0.2, 0.07, 0.02 ..."""
    rates = (0.002, 0.02, 0.07, 0.2)
    losses = np.array([(math.log2(rate) + 4.4) ** 2 for rate in rates])
    assert math.log2(best_rate(rates, losses)) == pytest.approx(-4.4)


def test_equal_losses_give_the_first_rate_tried():
    assert best_rate((0.1, 0.2, 0.4), np.array([2.0, 1.0, 1.0])) == pytest.approx(0.2 * 2**0.5), (
        "between the two"
    )
    assert best_rate((0.1, 0.2, 0.4), np.ones(3)) == 0.1
    assert best_rate((0.1, 0.2), np.full(2, np.nan)) is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.25, 0.25, "transfers"),
        (0.26, 0.5, "drifts"),
        (-0.9, -0.3, "drifts"),
        (-0.3, 0.1, "not enough data"),
        (-0.3, -0.2, "not enough data"),
        (None, None, "not enough data"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low, high, verdict):
    assert verdict_of(low, high) == verdict
