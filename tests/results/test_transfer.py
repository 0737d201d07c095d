"""The analysis of transfer finds a drift that is there, and claims none where it cannot know."""

import dataclasses
import math

import numpy as np
import pytest

from mulo_cli.results.transfer import best_rate, judge_transfer, sweeps, verdict_of, widening
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
    drift: float,
    *,
    seeds=3,
    noise=0.0,
    at=-6.3,
    sizes=(16, 32, 64, 128),
    limit=math.inf,
    rough=0.0,
    study=3,
):
    """Return rows whose loss is a parabola in log2 of the rate, its minimum drifting with size.

    Args:
        drift: bits per doubling.
        seeds: of each rate and size.
        noise: standard deviation of a seed's minimum, in bits.
        at: log2 of the best rate of the smallest size.
        sizes: widths.
        limit: rates so many times above the best diverge.
        rough: standard deviation of every loss.
        study: number of its noise.
    """
    generator = np.random.default_rng(study)
    for size in sizes:
        for seed in range(seeds):
            best = at + drift * math.log2(size / sizes[0]) + noise * generator.normal()
            for rate in RATES:
                off = math.log2(rate) - best
                grain = rough * generator.normal() if rough else 0.0
                loss = None if 2.0**off > limit else 1.0 + 0.05 * off**2 + grain
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


def test_sizes_whose_best_rate_lies_beside_one_that_diverged_do_not_count():
    """A cliff tells where training breaks, not where it is best: `transfers` was certain here."""
    found = judged(rows_with(0.0, at=-6.0, limit=1.5))
    assert {best.rate for best in found.optima} == {2.0**-6}
    assert all(best.beside_diverged and not best.on_border for best in found.optima)
    assert (found.drift, found.verdict) == (None, "not enough data")
    assert "width 16, 32, 64, 128 training diverged beside the best rate" in found.notes[0]


def test_a_drift_is_told_by_the_sizes_that_no_cliff_hides():
    rows = [
        dataclasses.replace(one, validation_loss=None)
        if one.width == 256 and one.seed == 0 and one.learning_rate > 2.0**-8
        else one
        for one in rows_with(-0.5, sizes=(16, 32, 64, 128, 256))
    ]
    found = judged(rows)
    assert [best.beside_diverged for best in found.optima] == [False] * 4 + [True]
    assert found.drift == pytest.approx(-0.5)


def test_a_rate_without_two_neighbours_is_known_to_half_a_step_only():
    """Its seeds agree to the last bit, and the interval had no width."""
    (best, *_) = judged(rows_with(0.0, at=-20.0)).optima
    assert math.log2(best.high / best.low) == pytest.approx(0.95, abs=0.05)


def test_intervals_of_few_seeds_are_widened():
    assert [widening(seeds) for seeds in (3, 5, 100)] == pytest.approx([2.69, 1.58, 1.02], abs=0.01)
    assert widening(3, sizes=4) == pytest.approx(1.44, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("drift", "noise", "rough"), [(0.0, 0.3, 0.0), (-0.4, 0.5, 0.02)])
def test_intervals_hold_the_true_drift_as_often_as_they_claim(seeds, drift, noise, rough):
    """Of noise in a seed's best rate, and of noise in each loss."""
    told = [
        judged(rows_with(drift, seeds=seeds, noise=noise, rough=rough, study=study))
        for study in range(100)
    ]
    inside = [of.low <= drift <= of.high for of in told if of.low is not None]
    assert len(inside) > 90
    assert sum(inside) / len(inside) >= 0.9


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
