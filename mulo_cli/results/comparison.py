"""Which trainings may be compared, and what is to be said about those that may not.

A rank means something among trainings that differ in nothing but the optimizer. Here the rows of
`mulo evaluate` are brought together by what was trained; what is doubled, mixed or contradictory is
named, never averaged in silence.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mulo_cli.errors import SHOWN, DataError
from mulo_cli.results.records import EvaluationRow, SuitePlace, content_hash
from mulo_cli.results.settings import (
    VARYING,
    Setting,
    describe,
    listing,
    printable,
    setting_of,
    telling_apart,
    value_in_words,
)

OF_FAMILY = "preset=paper"
"""In an optimizer's name: published values, others in every family of a suite."""

OPTIMIZER_FIELDS = ("settings", "parametrization", "recipe_digest")
"""What a name stands for: two rows of one optimizer in one setting agree in these."""

Thing = TypeVar("Thing")
Key = TypeVar("Key")
Training = tuple["Setting", str, int]
"""Setting, optimizer, seed: one training, that should be told by one row."""


@dataclass(frozen=True)
class Comparison:
    """One task after so many steps: how every optimizer did there.

    Attributes:
        setting: what was trained.
        step: at which the losses are told.
        losses: optimizer -> seed -> smoothed training loss, infinite from divergence on.
    """

    setting: Setting
    step: int
    losses: Mapping[str, Mapping[int, float]]

    def common_seeds(self, optimizers: Iterable[str]) -> tuple[int, ...]:
        """Return the seeds that all of these optimizers have, ascending."""
        of_each = [set(self.losses[name]) for name in optimizers]
        return tuple(sorted(set.intersection(*of_each))) if of_each else ()

    def restricted(self, optimizers: Sequence[str], seeds: Sequence[int]) -> "Comparison":
        """Return the same comparison among these optimizers, on these seeds."""
        kept = {name: {seed: self.losses[name][seed] for seed in seeds} for name in optimizers}
        return Comparison(self.setting, self.step, kept)


@dataclass(frozen=True)
class Comparisons:
    """All comparisons that some rows allow, in an order that does not depend on the rows'.

    Attributes:
        comparisons: by setting and step, ascending.
        optimizers: in alphabetical order.
        told_apart_by: the fields by which a setting is named here.
        warnings: what was doubled or mixed, a sentence each.
    """

    comparisons: tuple[Comparison, ...]
    optimizers: tuple[str, ...]
    told_apart_by: tuple[str, ...]
    warnings: tuple[str, ...]


def compare(rows: Sequence[EvaluationRow]) -> Comparisons:
    """Bring together the rows that may be ranked against each other.

    Raises:
        DataError: there is no row, or rows contradict each other.
    """
    if not rows:
        raise DataError("there are no rows to rank", "`mulo evaluate ... > rows.jsonl` writes some")
    placed = _placed_settings(rows)
    settings = sorted(placed.values())
    fields = telling_apart(settings)
    trainings = _group(rows, lambda row: (placed[setting_of(row)], row.optimizer, row.seed))
    _refuse_ambiguous_names(trainings, fields)
    _refuse_contradictions(trainings, fields)
    return Comparisons(
        comparisons=_by_setting_and_step(trainings),
        optimizers=tuple(sorted({row.optimizer for row in rows})),
        told_apart_by=fields,
        warnings=(
            *_name_doubles(rows, trainings),
            *_name_several_settings(settings),
            *_name_invented_data(settings),
            *_name_changing_optimizers(rows),
            *_name_changing_places(rows),
            *_name_several_versions(rows),
        ),
    )


def _placed_settings(rows: Iterable[EvaluationRow]) -> dict[Setting, Setting]:
    """Return every setting with all places that its rows tell.

    Sizes of a task of a suite may have been changed since: the last row tells them.
    """
    places: dict[Setting, dict[tuple[str, str], SuitePlace]] = defaultdict(dict)
    for row in rows:
        places[setting_of(row)][row.suite, row.suite_task] = row.place
    return {
        setting: dataclasses.replace(setting, places=tuple(sorted(told.values())))
        for setting, told in places.items()
    }


def _by_setting_and_step(
    trainings: Mapping[Training, Sequence[EvaluationRow]],
) -> tuple[Comparison, ...]:
    losses: dict[tuple[Setting, int], dict[str, dict[int, float]]] = {}
    for setting, optimizer, seed in sorted(trainings):
        for step, loss in _losses(trainings[setting, optimizer, seed]).items():
            there = losses.setdefault((setting, step), {})
            there.setdefault(optimizer, {})[seed] = loss
    return tuple(Comparison(*where, there) for where, there in sorted(losses.items(), key=_first))


def _losses(doubles: Sequence[EvaluationRow]) -> dict[int, float]:
    """Return step -> loss of one training, told by rows that do not contradict each other."""
    return {
        step: loss if loss is not None and math.isfinite(loss) else math.inf
        for row in doubles
        for step, loss in row.smoothed_loss.items()
    }


def _refuse_ambiguous_names(
    trainings: Mapping[Training, Sequence[EvaluationRow]], fields: Sequence[str]
) -> None:
    """Stop where one name stands for several optimizers within one setting: no mean is theirs."""
    named: dict[tuple[Setting, str], list[EvaluationRow]] = defaultdict(list)
    for (setting, optimizer, _), of_one in trainings.items():
        named[setting, optimizer] += of_one
    complaints = [
        f"rows of {optimizer!r} ({describe(setting, fields)}) differ in {listing(differences)}"
        for (setting, optimizer), of_one in sorted(named.items(), key=_first)
        if (differences := _differences(of_one, OPTIMIZER_FIELDS))
    ]
    _refuse(complaints)


def _refuse_contradictions(
    trainings: Mapping[Training, Sequence[EvaluationRow]], fields: Sequence[str]
) -> None:
    """Stop where one training is told in two ways and nothing says which is right."""
    complaints = [
        f"rows of {optimizer!r} ({describe(setting, fields)}, seed {seed}) differ in {difference}"
        for (setting, optimizer, seed), doubles in sorted(trainings.items(), key=_first)
        if (difference := _contradiction(doubles))
    ]
    _refuse(complaints)


def _contradiction(doubles: Sequence[EvaluationRow]) -> str | None:
    """Return in what rows of one training contradict each other, if they do.

    Rows of several code versions are the same training only if they tell the same loss at a step.
    """
    for step in sorted({step for row in doubles for step in row.smoothed_loss}):
        told = {row.smoothed_loss[step] for row in doubles if step in row.smoothed_loss}
        if len(told) > 1:
            values = ", ".join(sorted("diverged" if one is None else str(one) for one in told))
            return f"the smoothed loss at step {step} ({values})"
    versions = _differences(doubles, ("code_version",))
    shared = set.intersection(*(set(row.at) for row in doubles))
    return listing(versions) if versions and not shared else None


def _refuse(complaints: Sequence[str]) -> None:
    if complaints:
        more = f"; so do {len(complaints) - 1} more groups of rows" if len(complaints) > 1 else ""
        raise DataError(
            f"{complaints[0]}{more}",
            "give the rows of only one of them, or evaluate them under names that differ",
        )


def _name_doubles(
    rows: Sequence[EvaluationRow], trainings: Mapping[Training, Sequence[EvaluationRow]]
) -> Iterable[str]:
    tellings = [len({content_hash(row) for row in doubles}) for doubles in trainings.values()]
    if again := len(rows) - len({(content_hash(row), row.place) for row in rows}):
        yield f"{_count(again, 'row is', 'rows are')} given more than once and counted once"
    if joined := sum(number > 1 for number in tellings):
        yield (
            f"{_count(joined, 'training is', 'trainings are')} told by several rows that differ "
            "only in their steps or code version and agree in their losses; counted once"
        )


def _name_several_settings(settings: Sequence[Setting]) -> Iterable[str]:
    """Name what was trained in ways that differ in more than network, data, width and depth."""
    families = _group(settings, lambda one: describe(one, ("width", "depth")))
    several = {name: variants for name, variants in families.items() if len(variants) > 1}
    if several:
        values = {
            field: {value_in_words(one, field) for variants in several.values() for one in variants}
            for field in VARYING
        }
        ways = [
            f"{field.replace('_', ' ')} {listing(sorted(found))}"
            for field, found in values.items()
            if len(found) > 1
        ]
        yield (
            f"{listing(several, '; ')}: trained in several ways ({'; '.join(ways)}); each way is "
            "a task of its own"
        )


def _name_invented_data(settings: Sequence[Setting]) -> Iterable[str]:
    names = {
        real: ", ".join(sorted({one.dataset for one in settings if one.real is real}))
        for real in (True, False)
    }
    if all(names.values()):
        yield f"real data ({names[True]}) and synthetic data ({names[False]}) are ranked together"


def _name_changing_optimizers(rows: Sequence[EvaluationRow]) -> Iterable[str]:
    for optimizer, of_one in sorted(_group(rows, lambda row: row.optimizer).items()):
        alike = [of_one]
        if OF_FAMILY in optimizer.replace(":", ",").split(","):
            alike = list(_group(of_one, lambda row: (row.suite, row.family)).values())
        found = dict.fromkeys(one for of in alike for one in _differences(of, OPTIMIZER_FIELDS))
        if found:
            yield f"{optimizer!r} is not the same in all tasks: {listing(found)}"


def _name_changing_places(rows: Sequence[EvaluationRow]) -> Iterable[str]:
    """Name tasks of a suite that some rows tell of with other sizes or in another family."""
    places = _group(
        dict.fromkeys((setting_of(row), row.place) for row in rows if row.suite),
        lambda told: (told[0], told[1].suite, told[1].suite_task),
    )
    changed = dict.fromkeys(task for (_, _, task), told in places.items() if len(told) > 1)
    if changed:
        yield (
            f"sizes or families of {listing(map(printable, changed))} differ between rows: "
            "the last row's count"
        )


def _name_several_versions(rows: Sequence[EvaluationRow]) -> Iterable[str]:
    if versions := _differences(rows, ("code_version",)):
        yield f"rows of several versions of mulo are ranked together: {listing(versions)}"


def _differences(rows: Sequence[EvaluationRow], fields: Sequence[str]) -> list[str]:
    """Return in which of the fields rows differ, with the values; settings one by one."""
    flat = [_flatten(row, fields) for row in rows]
    names = sorted({name for one in flat for name in one})
    values = {name: sorted({one.get(name, "nothing") for one in flat}) for name in names}
    return [
        f"{name} ({listing(text[:SHOWN] for text in values[name])})"
        for name in names
        if len(values[name]) > 1
    ]


def _flatten(row: EvaluationRow, fields: Sequence[str]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for field in fields:
        value = getattr(row, field)
        if isinstance(value, Mapping):
            flat |= {f"{field}.{name}": repr(item) for name, item in value.items()}
        else:
            flat[field] = repr(value)
    return flat


def _group(things: Iterable[Thing], key: Callable[[Thing], Key]) -> dict[Key, list[Thing]]:
    groups: dict[Key, list[Thing]] = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return dict(groups)


def _first(item: tuple[Key, object]) -> Key:
    return item[0]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
