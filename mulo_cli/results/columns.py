"""The columns of a rank table: who can be ranked in each, on which seeds, and who cannot.

Within a column every optimizer is ranked in the same comparisons and on the same seeds; whoever
lacks one of them is named and left out of that column.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mulo_cli.results.comparison import Comparison, Comparisons, Setting, describe, listing

Axis = Literal["size", "width", "depth", "horizon"]
"""What columns are: size is width x step (Table 1), the others are one axis (Fig 1b)."""

AXES: Mapping[Axis, tuple[str, ...]] = {
    "size": ("step", "width"),
    "width": ("width",),
    "depth": ("depth",),
    "horizon": ("step",),
}
"""What the comparisons of one column have in common; columns are in this order."""

Place = tuple[Setting, int | None]
"""Setting and step of a comparison; without a step where all steps are meant."""


@dataclass(frozen=True)
class Column:
    """One column of a rank table.

    Attributes:
        width, depth, step: what its comparisons have in common; null where it averages.
        comparisons: restricted to the optimizers that are ranked, and to their common seeds.
        ranked: the optimizers that have all of the column's comparisons; none if there is a
            comparison without a seed that all of them have.
    """

    width: int | None
    depth: int | None
    step: int | None
    comparisons: tuple[Comparison, ...]
    ranked: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its heading."""
        parts = (("width", self.width), ("depth", self.depth), ("step", self.step))
        named = [f"{word} {value}" for word, value in parts if value is not None]
        return ", ".join(named) or "average"

    @property
    def tasks(self) -> int:
        """Number of settings it averages over."""
        return len({comparison.setting for comparison in self.comparisons})

    @property
    def seeds(self) -> int:
        """Number of seeds that losses are means over; the smallest, where comparisons differ."""
        return min(len(one.common_seeds(self.ranked)) for one in self.comparisons)


@dataclass(frozen=True)
class _Group:
    """The comparisons of a column before it is known who is ranked in it.

    Attributes:
        name: heading of the column.
        comparisons: of all optimizers, on all their seeds.
        complete: the optimizers that have all of these comparisons.
    """

    name: str
    comparisons: tuple[Comparison, ...]
    complete: tuple[str, ...]


def columns_by(axis: Axis, found: Comparisons) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Sort comparisons into columns; return these, and a sentence about all that is left out."""
    together: dict[tuple[int, ...], list[Comparison]] = defaultdict(list)
    for comparison in found.comparisons:
        together[tuple(_value(comparison, name) for name in AXES[axis])].append(comparison)
    columns, groups = [], []
    for values, comparisons in sorted(together.items()):
        complete = tuple(
            name for name in found.optimizers if all(name in one.losses for one in comparisons)
        )
        column = _column(dict(zip(AXES[axis], values, strict=True)), comparisons, complete)
        columns.append(column)
        groups.append(_Group(column.name, tuple(comparisons), complete))
    return tuple(columns), (
        *_name_lacking(groups, found),
        *_name_differing_seeds(groups, found),
        *_name_lonely(columns, found),
        *_name_unbalanced(axis, groups, found),
    )


def _value(comparison: Comparison, name: str) -> int:
    return comparison.step if name == "step" else getattr(comparison.setting, name)


def _column(
    shared: Mapping[str, int], comparisons: Sequence[Comparison], complete: tuple[str, ...]
) -> Column:
    seeds = [comparison.common_seeds(complete) for comparison in comparisons]
    ranked = complete if all(seeds) else ()
    restricted = [one.restricted(ranked, own) for one, own in zip(comparisons, seeds, strict=True)]
    return Column(
        width=shared.get("width"),
        depth=shared.get("depth"),
        step=shared.get("step"),
        comparisons=tuple(restricted),
        ranked=ranked,
    )


def _name_lacking(groups: Sequence[_Group], found: Comparisons) -> Iterable[str]:
    for optimizer in found.optimizers:
        columns = [group for group in groups if optimizer not in group.complete]
        lacking = [
            comparison
            for group in columns
            for comparison in group.comparisons
            if optimizer not in comparison.losses
        ]
        if lacking:
            what = _places(_of(lacking), found.told_apart_by)
            where = _columns(group.name for group in columns)
            yield f"{optimizer!r} lacks {what}; it is not ranked in {where}"


def _name_differing_seeds(groups: Sequence[_Group], found: Comparisons) -> Iterable[str]:
    """Name comparisons in which ranked optimizers have different seeds, pattern by pattern."""
    alike: dict[tuple[tuple[str, tuple[int, ...]], ...], list[tuple[str, Comparison]]] = {}
    for group in groups:
        for comparison in group.comparisons:
            pattern = tuple((name, tuple(comparison.losses[name])) for name in group.complete)
            if len({seeds for _, seeds in pattern}) > 1:
                alike.setdefault(pattern, []).append((group.name, comparison))
    for pattern, places in alike.items():
        common = places[0][1].common_seeds([name for name, _ in pattern])
        have = _seeds_of_each(pattern)
        where = _places(_of(comparison for _, comparison in places), found.told_apart_by)
        if common:
            yield f"only seeds {_numbers(common)}, common to all, are compared on {where}: {have}"
        else:
            columns = _columns(dict.fromkeys(name for name, _ in places))
            yield f"nobody is ranked in {columns}: no seed is common to all on {where}: {have}"


def _name_lonely(columns: Sequence[Column], found: Comparisons) -> Iterable[str]:
    """Name columns in which a rank says nothing for want of a second optimizer."""
    if len(found.optimizers) == 1:
        yield f"{found.optimizers[0]!r} is the only optimizer: it ranks first without a contest"
        return
    lonely = [column for column in columns if len(column.ranked) == 1]
    if lonely:
        yield f"only one optimizer is ranked in {_columns(column.name for column in lonely)}"


def _name_unbalanced(axis: Axis, groups: Sequence[_Group], found: Comparisons) -> Iterable[str]:
    """Name what the columns of one axis do not share: they differ in more than that axis."""
    if axis == "size":
        return
    inside = [{_off_axis(axis, one) for one in group.comparisons} for group in groups]
    everything = set.union(*inside)
    fields = [name for name in found.told_apart_by if name not in AXES[axis]]
    lacks = [
        f"'{group.name}' has nothing on {_places(sorted(everything - there), fields)}"
        for group, there in zip(groups, inside, strict=True)
        if everything - there
    ]
    if lacks:
        yield f"the columns differ in more than {axis}: {listing(lacks, '. ')}"


def _off_axis(axis: Axis, comparison: Comparison) -> Place:
    """Return where a comparison is, its place on the axis taken away."""
    if axis == "horizon":
        return comparison.setting, None
    return dataclasses.replace(comparison.setting, **{axis: 0}), comparison.step


def _of(comparisons: Iterable[Comparison]) -> list[Place]:
    return [(comparison.setting, comparison.step) for comparison in comparisons]


def _places(places: Iterable[Place], fields: Iterable[str]) -> str:
    """Name where comparisons are, the steps of one setting together."""
    steps: dict[Setting, list[int]] = defaultdict(list)
    for setting, step in places:
        steps[setting] += [] if step is None else [step]
    named = [
        describe(setting, fields) + (f" (step {listing(sorted(at))})" if at else "")
        for setting, at in sorted(steps.items())
    ]
    return listing(named, "; ")


def _columns(names: Iterable[str]) -> str:
    return listing(f"'{name}'" for name in names)


def _seeds_of_each(pattern: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """Name who has which seeds, those with the same seeds together."""
    owners: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, seeds in pattern:
        owners[seeds].append(repr(name))
    return "; ".join(f"{_numbers(seeds)} of {listing(names)}" for seeds, names in owners.items())


def _numbers(seeds: Sequence[int]) -> str:
    """Return ascending numbers, a run of them as `0..4`."""
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]}..{seeds[-1]}"
    return listing(seeds)
