"""Average ranks of optimizers, with bootstrap intervals over seeds.

B. Therien et al., "μLO: Compute-Efficient Meta-Generalization of Learned Optimizers", 2025: Table 1
(average ranks by size and step) and Fig 1b (average ranks along width, depth or horizon). Within a
task, at a step, optimizers are ranked by the mean over seeds of the smoothed training loss; a
column averages ranks over tasks. The paper gives no intervals: ours are percentile bootstraps.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mulo_cli.errors import DataError
from mulo_cli.results.columns import Axis, Column, Families, Shared, columns_by
from mulo_cli.results.comparison import Comparison, compare
from mulo_cli.results.records import EvaluationRow
from mulo_cli.results.settings import Setting

SATURATED = 0.02
"""Nats; below it the training set is learned, and which loss is smaller means little."""

RESAMPLES = 1_000
"""Bootstrap resamples, unless told otherwise."""

QUANTILES = (0.025, 0.975)
"""Ends of a 95 % interval."""

BOOTSTRAP_SEED = "mulo rank"
"""With a setting and its seeds it seeds the resampling, so that a table is always the same."""


@dataclass(frozen=True)
class Standing:
    """One optimizer in one column.

    Attributes:
        column: its heading; "average" is the mean over all columns.
        size, width, depth, step: what the column is about; null where it averages.
        rank: average rank, 1 is best; null if the optimizer is not ranked here.
        low, high: 95 % bootstrap interval of the rank over seeds; null with a single seed.
        place: 1 for the best rank of the column; equal ranks share a place.
        mean_loss: mean over the column's comparisons of the mean over seeds (nats); null if any
            run had diverged.
        diverged: trainings (task and seed) that had diverged by one of the column's steps.
        saturated: trainings with a smoothed loss below `SATURATED` at one of the column's steps.
        tasks: settings that the column averages over.
        comparisons: tasks x steps that the column averages over.
        seeds: seeds that losses are means over; the smallest number, where tasks differ.
        ranked: optimizers that are ranked in the column.
    """

    by: Axis
    optimizer: str
    column: str
    size: str | None
    width: int | None
    depth: int | None
    step: int | None
    rank: float | None
    low: float | None
    high: float | None
    place: int | None
    mean_loss: float | None
    diverged: int | None
    saturated: int | None
    tasks: int
    comparisons: int
    seeds: int
    ranked: int
    kind: Literal["rank"] = "rank"


@dataclass(frozen=True)
class Ranking:
    """A rank table.

    Attributes:
        by: what its columns are.
        rows: one per optimizer, the best average first; the last column is the average.
        resamples: of the bootstrap.
        warnings: what is missing, mixed or doubled, a sentence each.
    """

    by: Axis
    rows: tuple[tuple[Standing, ...], ...]
    resamples: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Ranks:
    """The ranks of one column.

    Attributes:
        point: optimizer -> average rank.
        resampled: optimizer -> average rank in each bootstrap resample, shape [R]; empty where
            there is nothing to resample.
    """

    point: Mapping[str, float]
    resampled: Mapping[str, np.ndarray]


def rank_optimizers(
    rows: Sequence[EvaluationRow],
    by: Axis = "size",
    resamples: int = RESAMPLES,
    families: Families | None = None,
) -> Ranking:
    """Rank optimizers in every column, and on average over columns.

    Args:
        rows: of `mulo evaluate`, in any order.
        by: what the columns are.
        resamples: `R` of the bootstrap over seeds; 0 for no intervals.
        families: suite -> size -> families that there should be; a column without one says so.

    Raises:
        DataError: there is no row, rows contradict each other, or none of them has a size.
    """
    found = compare(rows)
    columns, warnings = columns_by(by, found, families)
    if not columns:
        raise DataError(
            "none of these tasks has a size", "rank them --by width, --by depth or --by horizon"
        )
    ranks = [_rank_column(column, resamples) for column in columns]
    average = _average_column(columns)
    ranks.append(_average_ranks(ranks, average.ranked))
    table = [
        tuple(
            _standing(by, optimizer, column, of_column)
            for column, of_column in zip((*columns, average), ranks, strict=True)
        )
        for optimizer in found.optimizers
    ]
    return Ranking(
        by=by,
        rows=tuple(sorted(table, key=_best_first)),
        resamples=resamples,
        warnings=(*found.warnings, *warnings, *_name_single_seeds(columns, resamples)),
    )


def average_ranks(losses: np.ndarray) -> np.ndarray:
    """Rank along the first axis, 1 for the smallest; equals share the mean of their ranks.

    Args:
        losses: [optimizers, ...]; infinite values are equal and last.

    Returns:
        ranks, of the same shape; along the first axis they sum to n(n+1)/2.
    """
    below = [np.sum(losses < own, axis=0) for own in losses]
    not_above = [np.sum(losses <= own, axis=0) for own in losses]
    return (np.stack(below) + np.stack(not_above) + 1) / 2


def resampled_seeds(setting: Setting, seeds: Sequence[int], resamples: int) -> np.ndarray:
    """Draw positions of seeds with replacement, alike for all steps and optimizers of a setting.

    Returns:
        [resamples, seeds], the same for the same arguments on every machine.
    """
    generator = random.Random(f"{BOOTSTRAP_SEED} {setting} {seeds}")
    draws = generator.choices(range(len(seeds)), k=resamples * len(seeds))
    return np.array(draws, dtype=int).reshape(resamples, len(seeds))


def _rank_column(column: Column, resamples: int) -> _Ranks:
    if not column.ranked:
        return _Ranks({}, {})
    means = [_mean_losses(one, column.ranked) for one in column.comparisons]
    point = np.mean([average_ranks(of_one) for of_one in means], axis=0)
    named = dict(zip(column.ranked, point.tolist(), strict=True))
    if column.seeds < 2 or not resamples:
        return _Ranks(named, {})
    total = np.zeros((len(column.ranked), resamples))
    for comparison in column.comparisons:
        total += average_ranks(_resampled_means(comparison, column.ranked, resamples))
    resampled = total / len(column.comparisons)
    return _Ranks(named, dict(zip(column.ranked, resampled, strict=True)))


def _mean_losses(comparison: Comparison, optimizers: Sequence[str]) -> np.ndarray:
    """Return mean losses over seeds, [optimizers]; the same losses in any order are a tie."""
    return np.array([_mean(comparison.losses[name].values()) for name in optimizers])


def _mean(numbers: Iterable[float]) -> float:
    """Return a mean that does not depend on the order; divided first, so as not to overflow."""
    numbers = list(numbers)
    return math.fsum(number / len(numbers) for number in numbers)


def _resampled_means(
    comparison: Comparison, optimizers: Sequence[str], resamples: int
) -> np.ndarray:
    """Return mean losses over resampled seeds, [optimizers, resamples]."""
    seeds = comparison.common_seeds(optimizers)
    draws = resampled_seeds(comparison.setting, seeds, resamples)
    losses = np.array([[comparison.losses[name][seed] for seed in seeds] for name in optimizers])
    return np.stack([(own / len(seeds))[draws].sum(axis=1) for own in losses])


def _average_column(columns: Sequence[Column]) -> Column:
    """Return all comparisons as one column, in which only those are ranked who are in each."""
    in_all = set.intersection(*(set(column.ranked) for column in columns))
    comparisons = tuple(one for column in columns for one in column.comparisons)
    return Column(Shared(), comparisons, tuple(sorted(in_all)))


def _average_ranks(columns: Sequence[_Ranks], optimizers: Sequence[str]) -> _Ranks:
    """Return the mean over columns, each with the same weight."""
    point = {name: _mean(column.point[name] for column in columns) for name in optimizers}
    if not all(column.resampled for column in columns):
        return _Ranks(point, {})
    return _Ranks(
        point,
        {name: np.mean([one.resampled[name] for one in columns], axis=0) for name in optimizers},
    )


def _standing(by: Axis, optimizer: str, column: Column, ranks: _Ranks) -> Standing:
    ranked = optimizer in ranks.point
    mean_loss, diverged, saturated = _losses_of(optimizer, column) if ranked else (None,) * 3
    low, high = _interval(ranks, optimizer)
    return Standing(
        by=by,
        optimizer=optimizer,
        column=column.name,
        size=column.shared.size,
        width=column.shared.width,
        depth=column.shared.depth,
        step=column.shared.step,
        rank=ranks.point.get(optimizer),
        low=low,
        high=high,
        place=_place(ranks.point, optimizer),
        mean_loss=mean_loss,
        diverged=diverged,
        saturated=saturated,
        tasks=column.tasks,
        comparisons=len(column.comparisons),
        seeds=column.seeds,
        ranked=len(column.ranked),
    )


def _losses_of(optimizer: str, column: Column) -> tuple[float, int, int]:
    """Return mean loss, and how many trainings had diverged or were saturated."""
    mean = _mean(_mean(one.losses[optimizer].values()) for one in column.comparisons)
    told = [
        ((one.setting, seed), loss)
        for one in column.comparisons
        for seed, loss in one.losses[optimizer].items()
    ]
    diverged = {training for training, loss in told if math.isinf(loss)}
    saturated = {training for training, loss in told if loss < SATURATED}
    return mean, len(diverged), len(saturated)


def _interval(ranks: _Ranks, optimizer: str) -> tuple[float | None, float | None]:
    if optimizer not in ranks.resampled:
        return None, None
    low, high = np.quantile(ranks.resampled[optimizer], QUANTILES).tolist()
    return low, high


def _place(ranks: Mapping[str, float], optimizer: str) -> int | None:
    """Return the place of an optimizer; averages that differ by rounding only are equal."""
    if optimizer not in ranks:
        return None
    own = ranks[optimizer]
    return 1 + sum(other < own and not math.isclose(other, own) for other in ranks.values())


def _best_first(row: Sequence[Standing]) -> tuple[float, str]:
    """Order rows by average rank, then by name; who has no average comes last."""
    average = row[-1].rank
    return (math.inf if average is None else average, row[-1].optimizer)


def _name_single_seeds(columns: Sequence[Column], resamples: int) -> Sequence[str]:
    single = [column.name for column in columns if column.seeds == 1]
    if not single or not resamples:
        return ()
    if len(single) == len(columns):
        return ("there is one seed only: no intervals",)
    return (f"no interval where there is one seed only: {', '.join(single)}",)
