"""Does the best learning rate carry over to larger networks? Its drift with size, and a verdict.

A. Gupta et al., "Extending muP: spectral conditions for feature learning across optimizers",
Tables 5 to 20, mark the best rate of each size; the estimate between rates, the intervals and the
verdict are ours.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.special import ndtri, stdtrit

from mulo_cli.results.transfer_records import Axis, TransferRow

TOLERANCE = 0.25
"""A drift within +-0.25 is transfer: over four doublings the best rate changes by a factor of two
at most, which costs little."""

CONFIDENCE = 95.0
"""Percent, of intervals."""

MIN_SEEDS = 3
"""Fewer say nothing about how much a best rate owes to its seeds."""

MIN_SIZES = 3
"""A line through two points always fits."""

RESAMPLES = 1_000
"""Of the bootstrap."""

Measure: TypeAlias = Literal["validation", "training"]
TransferVerdictWord: TypeAlias = Literal["transfers", "drifts", "not enough data"]


@dataclass(frozen=True)
class Sweep:
    """Losses of one optimizer under one parametrization, at every rate and size.

    Attributes:
        optimizer, parametrization: whose.
        axis: what grows.
        rates: learning rates, ascending.
        losses: size, ascending -> seeds x rates; NaN for a training that diverged.
        measure: which loss.
    """

    optimizer: str
    parametrization: str
    axis: Axis
    rates: tuple[float, ...]
    losses: Mapping[int, np.ndarray]
    measure: Measure

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths or depths."""
        return tuple(self.losses)

    def means(self, size: int) -> np.ndarray:
        """Return the mean over seeds at each rate; NaN where a seed diverged."""
        return self.losses[size].mean(axis=0)


@dataclass(frozen=True)
class Optimum:
    """The best learning rate of one size.

    Attributes:
        rate: estimated; between the rates that were tried if there are three to tell it.
        low, high: its interval: bootstrap over seeds; null with fewer than three.
        tried: the best of the rates that were tried; null if all diverged.
        loss: its mean over seeds.
        on_border: it is the first or the last of the list: the true best may lie beyond.
        beside_diverged: a seed diverged at a neighbour of it: the true best may lie between.
        seeds: how many.
    """

    size: int
    rate: float | None
    low: float | None
    high: float | None
    tried: float | None
    loss: float | None
    on_border: bool
    beside_diverged: bool
    seeds: int

    @property
    def tells(self) -> bool:
        """Whether losses on both sides of it tell where the best rate is."""
        return self.rate is not None and not self.on_border and not self.beside_diverged


@dataclass(frozen=True)
class TransferVerdict:
    """Whether the best rate of one optimizer carries over.

    Attributes:
        optimizer, parametrization, axis, measure: of what.
        optima: one per size.
        drift: slope of log2(best rate) against log2(size): bits per doubling.
        low, high: its interval: bootstrap over seeds, widened for few of them.
        verdict: `transfers` if the interval lies within +-0.25, `drifts` if it lies outside.
        notes: what was left out, and why, a sentence each.
    """

    optimizer: str
    parametrization: str
    axis: Axis
    measure: Measure
    optima: tuple[Optimum, ...]
    drift: float | None
    low: float | None
    high: float | None
    verdict: TransferVerdictWord
    notes: tuple[str, ...]
    kind: Literal["transfer-verdict"] = "transfer-verdict"


def sweeps(rows: Iterable[TransferRow], axis: Axis, measure: Measure) -> tuple[Sweep, ...]:
    """Gather rows into one sweep per optimizer and parametrization, in the order of the rows.

    Seeds and rates that some size lacks are left out, so that sizes are compared by the same.
    """
    groups: dict[tuple[str, str], list[TransferRow]] = {}
    for row in rows:
        groups.setdefault((row.optimizer, row.parametrization), []).append(row)
    return tuple(_sweep(of, axis, measure) for of in groups.values())


def _sweep(rows: Sequence[TransferRow], axis: Axis, measure: Measure) -> Sweep:
    by_place = {(getattr(row, axis), row.learning_rate, row.seed): row for row in rows}
    sizes = sorted({size for size, _, _ in by_place})
    tried = [{rate for at, rate, _ in by_place if at == size} for size in sizes]
    rates = sorted(set.intersection(*tried))
    seeds = [
        seed
        for seed in sorted({seed for _, _, seed in by_place})
        if all((size, rate, seed) in by_place for size in sizes for rate in rates)
    ]

    def loss(size: int, rate: float, seed: int) -> float:
        told = getattr(by_place[size, rate, seed], f"{measure}_loss")
        return math.nan if told is None else told

    return Sweep(
        optimizer=rows[0].optimizer,
        parametrization=rows[0].parametrization,
        axis=axis,
        rates=tuple(rates),
        losses={
            size: np.array([[loss(size, rate, seed) for rate in rates] for seed in seeds]).reshape(
                len(seeds), len(rates)
            )
            for size in sizes
        },
        measure=measure,
    )


def judge_transfer(sweep: Sweep) -> TransferVerdict:
    """Tell the best rate of every size, how it drifts, and what that means.

    Sizes whose best rate is the first or last of the list say only that it lies beyond, and those
    where training diverged beside it only where the cliff is: they are left out of the drift.
    """
    drawn = {size: _drawn_rates(sweep, size) for size in sweep.sizes}
    optima = tuple(_optimum(sweep, size, drawn[size]) for size in sweep.sizes)
    usable = [best for best in optima if best.tells]
    sizes = [best.size for best in usable]
    rates = np.array([best.rate for best in usable], np.float64)
    notes = _notes(optima, sweep.axis)
    drift = low = high = None
    if len(usable) >= MIN_SIZES:
        drift = float(_slope(sizes, np.log2(rates)[np.newaxis])[0])
        if usable[0].seeds >= MIN_SEEDS:
            slopes = _slope(sizes, np.stack([drawn[size] for size in sizes], axis=1))
            surer = widening(usable[0].seeds, len(sizes)) / widening(usable[0].seeds)
            low, high = _interval(drift + surer * (slopes - drift))
    return TransferVerdict(
        optimizer=sweep.optimizer,
        parametrization=sweep.parametrization,
        axis=sweep.axis,
        measure=sweep.measure,
        optima=optima,
        drift=drift,
        low=low,
        high=high,
        verdict=verdict_of(low, high),
        notes=notes,
    )


def verdict_of(low: float | None, high: float | None) -> TransferVerdictWord:
    """Judge a drift by its interval; one that contains a border of +-0.25 does not tell."""
    if low is None or high is None:
        return "not enough data"
    if low >= -TOLERANCE and high <= TOLERANCE:
        return "transfers"
    return "drifts" if low > TOLERANCE or high < -TOLERANCE else "not enough data"


def best_rate(rates: Sequence[float], losses: np.ndarray) -> float | None:
    """Return the rate of the lowest loss, estimated between the rates that were tried.

    The minimum of the parabola through the best rate and its two neighbours, against log2 of the
    rate. At the end of the list, and beside a rate that diverged, the best rate itself.

    Args:
        rates: ascending.
        losses: one each; NaN where a training diverged.
    """
    if not np.isfinite(losses).any():
        return None
    between = _vertex(rates, losses)
    return float(rates[int(np.nanargmin(losses))]) if between is None else 2.0**between


def _vertex(rates: Sequence[float], losses: np.ndarray) -> float | None:
    """Return log2 of the rate at the parabola's minimum; None where none can be drawn."""
    best = int(np.nanargmin(losses))
    if _on_border(best, rates) or not np.isfinite(losses[best - 1 : best + 2]).all():
        return None
    x, y = np.log2(rates[best - 1 : best + 2]), losses[best - 1 : best + 2]
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    if right <= left:  # all three are equal
        return None
    # slopes of the two halves are those of the parabola in their middles
    middles = (x[:-1] + x[1:]) / 2.0
    return float(middles[0] - left * (middles[1] - middles[0]) / (right - left))


def _on_border(place: int, rates: Sequence[float]) -> bool:
    return place in (0, len(rates) - 1)


def _optimum(sweep: Sweep, size: int, drawn: np.ndarray) -> Optimum:
    means, seeds = sweep.means(size), len(sweep.losses[size])
    rate = best_rate(sweep.rates, means)
    if rate is None:
        nothing = dict.fromkeys(("rate", "low", "high", "tried", "loss"))
        return Optimum(size, **nothing, on_border=False, beside_diverged=False, seeds=seeds)
    best = int(np.nanargmin(means))
    low, high = _interval(drawn) if seeds >= MIN_SEEDS else (None, None)
    return Optimum(
        size=size,
        rate=rate,
        low=None if low is None else 2.0**low,
        high=None if high is None else 2.0**high,
        tried=sweep.rates[best],
        loss=float(means[best]),
        on_border=_on_border(best, sweep.rates),
        beside_diverged=not np.isfinite(means[max(0, best - 1) : best + 2]).all(),
        seeds=seeds,
    )


def _drawn_rates(sweep: Sweep, size: int) -> np.ndarray:
    """Return log2 of the best rate in each resample of the seeds; none where seeds are too few.

    A seed is drawn with its losses at all rates; sizes are drawn independently. What resamples
    find is moved away from the estimate by `widening`. Where no parabola can be drawn, the best
    rate that was tried stands for all that are nearer to it than to its neighbours.
    """
    means, seeds = sweep.means(size), len(sweep.losses[size])
    centre = best_rate(sweep.rates, means)
    if centre is None or seeds < MIN_SEEDS:
        return np.empty(0)
    losses = np.where(np.isfinite(means), sweep.losses[size], math.nan)
    middle, wider = math.log2(centre), widening(seeds)
    generator = np.random.default_rng((size, seeds))
    found = []
    for _ in range(RESAMPLES):
        drawn = losses[generator.integers(seeds, size=seeds)].mean(axis=0)
        between = _vertex(sweep.rates, drawn)
        if between is None:
            best = int(np.nanargmin(drawn))
            tried, blur = math.log2(sweep.rates[best]), _blur(sweep.rates, best, generator)
        else:
            tried, blur = between, 0.0
        found.append(middle + wider * (tried - middle) + blur)
    return np.array(found)


def _blur(rates: Sequence[float], place: int, generator: np.random.Generator) -> float:
    """Draw a distance from a rate, up to half a step of the list to either side, in bits."""
    steps = np.diff(np.log2(rates))
    if not steps.size:
        return 0.0
    side = generator.uniform(-0.5, 0.5)
    step = steps[max(0, place - 1)] if side < 0 else steps[min(place, len(steps) - 1)]
    return float(side * step)


def widening(seeds: int, sizes: int = 1) -> float:
    """Return how much wider than its percentiles the interval of a bootstrap of few seeds is.

    Resamples of n values spread by sqrt((n - 1) / n) too little, and a normal distribution's
    quantiles stand where Student's t has its own. The rate of one size has n - 1 degrees of
    freedom: 2.7 for three seeds, 1.6 for five; the drift over several sizes, whose seeds are
    independent, has those of all: 1.4 for three seeds at four sizes. Without it an interval of
    three seeds holds the truth 77 times in 100.
    """
    level = 0.5 + CONFIDENCE / 200.0
    quantile = stdtrit(sizes * (seeds - 1), level)
    return float(quantile / ndtri(level) * math.sqrt(seeds / (seeds - 1)))


def _slope(sizes: Sequence[int], log_rates: np.ndarray) -> np.ndarray:
    """Return least-squares slopes against log2(size), one for each row of (resamples x sizes)."""
    x = np.log2(np.array(sizes, np.float64))
    x = x - x.mean()
    return log_rates @ x / (x @ x)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of what resamples gave."""
    beside = (100.0 - CONFIDENCE) / 2.0
    low, high = np.percentile(drawn, [beside, 100.0 - beside])
    return float(low), float(high)


def _notes(optima: Sequence[Optimum], axis: Axis) -> tuple[str, ...]:
    notes = []
    border = [f"{best.size}" for best in optima if best.on_border]
    cliff = [f"{best.size}" for best in optima if best.beside_diverged and not best.on_border]
    hopeless = [f"{best.size}" for best in optima if best.rate is None]
    if border:
        notes.append(
            f"at {axis} {', '.join(border)} the best rate is the first or last of the list: left "
            "out of the drift; give a longer list"
        )
    if cliff:
        notes.append(
            f"at {axis} {', '.join(cliff)} training diverged beside the best rate: left out of the "
            "drift; give a finer list"
        )
    if hopeless:
        notes.append(f"at {axis} {', '.join(hopeless)} every rate diverged")
    usable = sum(best.tells for best in optima)
    if usable < MIN_SIZES:
        notes.append(f"a drift needs {MIN_SIZES} sizes that tell a best rate; here are {usable}")
    if optima and optima[0].seeds < MIN_SEEDS:
        notes.append(f"an interval needs {MIN_SEEDS} seeds; here are {optima[0].seeds}")
    return tuple(notes)
