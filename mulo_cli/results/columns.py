"""The columns of a rank table: who can be ranked in each, on which seeds, and who cannot.

Within a column every optimizer is ranked in the same comparisons and on the same seeds; whoever
lacks one of them is named and left out of that column.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mulo_cli.results.comparison import Comparison, Comparisons
from mulo_cli.results.records import NOWHERE
from mulo_cli.results.settings import Setting, describe, listing, printable

Axis = Literal["size", "width", "depth", "horizon"]
"""What columns are: size is step x size of a suite's tasks, or step x width (Table 1), the others
are one axis (Fig 1b)."""

FIELDS: Mapping[Axis, str] = {"width": "width", "depth": "depth", "horizon": "step"}
"""What the comparisons of one column have in common, where columns are one axis."""

SIZES = ("base", "large", "xl", "xxl")
"""Sizes of a suite's tasks, in the order of columns."""

Families = Mapping[str, Mapping[str, Sequence[str]]]
"""Suite -> size -> the families that have a task of it."""

Place = tuple[Setting, int | None]
"""Setting and step of a comparison; without a step where all steps are meant."""


@dataclass(frozen=True)
class Shared:
    """What the comparisons of a column have in common; null is what they have not.

    Attributes:
        suite: only where there are several.
        size: of a suite's tasks.
    """

    step: int | None = None
    suite: str | None = None
    size: str | None = None
    width: int | None = None
    depth: int | None = None

    @property
    def name(self) -> str:
        """The heading of the column."""
        size = " ".join(word for word in (self.suite, self.size) if word)
        parts = (("width", self.width), ("depth", self.depth), ("step", self.step))
        named = [f"{word} {value}" for word, value in parts if value is not None]
        return ", ".join([*([printable(size)] if size else []), *named]) or "average"

    @property
    def order(self) -> tuple[int, str, int, int, int]:
        """Steps come first, then sizes as they grow."""
        size = SIZES.index(self.size) if self.size in SIZES else len(SIZES)
        return (self.step or 0, self.suite or "", size, self.width or 0, self.depth or 0)


@dataclass(frozen=True)
class Column:
    """One column of a rank table.

    Attributes:
        shared: what its comparisons have in common; nothing where it averages over columns.
        comparisons: restricted to the optimizers that are ranked, and to their common seeds.
        ranked: the optimizers that have all of the column's comparisons; none if there is a
            comparison without a seed that all of them have.
    """

    shared: Shared
    comparisons: tuple[Comparison, ...]
    ranked: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its heading."""
        return self.shared.name

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
        suite, size: of its tasks, where columns are that.
        comparisons: of all optimizers, on all their seeds.
        complete: the optimizers that have all of these comparisons.
    """

    name: str
    suite: str
    size: str | None
    comparisons: tuple[Comparison, ...]
    complete: tuple[str, ...]


def columns_by(
    axis: Axis, found: Comparisons, families: Families | None = None
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Sort comparisons into columns; return these, and a sentence about all that is left out.

    Args:
        axis: what columns are.
        found: what the rows allow.
        families: of suites that are known; of others, those that rows tell of.
    """
    suites = {place.suite for one in found.comparisons for place in one.setting.places} - {""}
    together: dict[Shared, list[Comparison]] = defaultdict(list)
    for comparison in found.comparisons:
        for shared in _shared(axis, comparison, several=len(suites) > 1):
            together[shared].append(comparison)
    columns, groups = [], []
    for shared in sorted(together, key=lambda shared: shared.order):
        comparisons = together[shared]
        complete = tuple(
            name for name in found.optimizers if all(name in one.losses for one in comparisons)
        )
        columns.append(_column(shared, comparisons, complete))
        suite = shared.suite or next(iter(suites), "")
        groups.append(_Group(shared.name, suite, shared.size, tuple(comparisons), complete))
    return tuple(columns), (
        *_name_lacking(groups, found),
        *_name_differing_seeds(groups, found),
        *_name_lonely(columns, found),
        *_name_unbalanced(axis, groups, found),
        *(_name_sizeless(found) if axis == "size" else ()),
        *_name_families(groups, {**_families(found), **(families or {})}),
    )


def _shared(axis: Axis, comparison: Comparison, *, several: bool) -> Iterable[Shared]:
    """Return the columns that a comparison belongs to: a task may be the xl one and the widest."""
    setting, step = comparison.setting, comparison.step
    if axis != "size":
        value = step if axis == "horizon" else getattr(setting, FIELDS[axis])
        return [dataclasses.replace(Shared(), **{FIELDS[axis]: value})]
    return dict.fromkeys(
        shared
        for place in setting.places
        for shared in (
            [Shared(step=step, width=setting.width)]
            if not place.suite
            else [Shared(step, place.suite if several else None, size) for size in place.sizes]
        )
    )


def _column(shared: Shared, comparisons: Sequence[Comparison], complete: tuple[str, ...]) -> Column:
    seeds = [comparison.common_seeds(complete) for comparison in comparisons]
    ranked = complete if all(seeds) else ()
    restricted = [one.restricted(ranked, own) for one, own in zip(comparisons, seeds, strict=True)]
    return Column(shared, tuple(restricted), ranked)


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
    inside = [
        {alias for one in group.comparisons for alias in _off_axis(axis, one)} for group in groups
    ]
    fields = [name for name in found.told_apart_by if name != FIELDS[axis]]
    lacks = []
    for group, there in zip(groups, inside, strict=True):
        absent = {
            aliases[-1][1:]
            for one in found.comparisons
            if there.isdisjoint(aliases := _off_axis(axis, one))
        }
        if absent:
            lacks.append(f"'{group.name}' has nothing on {_places(sorted(absent), fields)}")
    if lacks:
        yield f"the columns differ in more than {axis}: {listing(lacks, '. ')}"


def _off_axis(axis: Axis, comparison: Comparison) -> list[tuple[str, Setting, int | None]]:
    """Return where a comparison is, its place on the axis taken away; in each suite, too.

    One family's networks have as many heads as their widths allow: they are still one family.
    """
    setting = dataclasses.replace(comparison.setting, places=(NOWHERE,))
    if axis == "horizon":
        return [("", setting, None)]
    setting = dataclasses.replace(setting, **{axis: 0})
    families = [(place.suite, place.family) for place in comparison.setting.places if place.suite]
    return [
        ("", setting, comparison.step),
        *(
            (suite, dataclasses.replace(setting, network=family), comparison.step)
            for suite, family in families
        ),
    ]


def _name_sizeless(found: Comparisons) -> Iterable[str]:
    """Name the tasks of suites that are of no size, and where they count."""
    names = dict.fromkeys(
        place.suite_task
        for one in found.comparisons
        for place in one.setting.places
        if not any(other.sizes or not other.suite for other in one.setting.places)
    )
    if names:
        yield (
            f"of no size, and ranked only along width, depth and horizon (--by): "
            f"{listing(map(printable, names))}"
        )


def _families(found: Comparisons) -> Families:
    """Return the families by suite and size that rows tell of."""
    told: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    places = (place for one in found.comparisons for place in one.setting.places)
    for place in dict.fromkeys(places):
        for size in place.sizes:
            told[place.suite][size] += [place.family]
    return told


def _name_families(groups: Sequence[_Group], families: Families) -> Iterable[str]:
    """Name families that a column of some size lacks, and those that it has several tasks of."""
    lacking, several = defaultdict(list), defaultdict(list)
    for group in groups:
        if group.size is None:
            continue
        there = [
            place.family
            for setting in {one.setting for one in group.comparisons}
            for place in setting.places
            if place.suite == group.suite and group.size in place.sizes
        ]
        expected = families.get(group.suite, {}).get(group.size, ())
        if lacks := [name for name in dict.fromkeys(expected) if name not in there]:
            lacking[listing(map(printable, lacks))].append(group.name)
        if doubled := sorted({name for name in there if there.count(name) > 1}):
            several[listing(map(printable, doubled))].append(group.name)
    for names, columns in lacking.items():
        yield f"{_columns(columns)} lack{'s' * (len(columns) == 1)} the families: {names}"
    for names, columns in several.items():
        yield f"{_columns(columns)}: several tasks of {names}, each with the same weight"


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
