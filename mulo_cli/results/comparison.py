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
from mulo_cli.results.records import NOWHERE, EvaluationRow, SuitePlace, content_hash

LISTED = 12
"""At most this many things are spelled out in a warning; the others are counted."""

OPTIMIZER_FIELDS = ("settings", "parametrization", "recipe_digest")
"""What a name stands for: two rows of one optimizer in one setting agree in these."""

VARYING = ("real", "batch_size", "steps", "window")
"""Fields of a setting that are spelled out only where settings differ in them."""

TOLD_BY_NAME = ("width", "depth", "real", "batch_size")
"""Fields that need not be spelled out where a task has a name in a suite."""

Thing = TypeVar("Thing")
Key = TypeVar("Key")
Training = tuple["Setting", str, int]
"""Setting, optimizer, seed: one training, that should be told by one row."""


@dataclass(frozen=True, order=True)
class Setting:
    """What was trained and how: everything in a row's identity but the optimizer and the seed.

    The number of steps belongs to it because a schedule, and a learned optimizer, depend on it. The
    place in a suite is no part of its text, which seeds the bootstrap: it changes no training.
    """

    network: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int
    steps: int
    window: int
    place: SuitePlace = dataclasses.field(default=NOWHERE, repr=False)


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
    settings = sorted({setting_of(row) for row in rows})
    fields = telling_apart(settings)
    trainings = _group(rows, lambda row: (setting_of(row), row.optimizer, row.seed))
    _refuse_ambiguous_names(rows, fields)
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
            *_name_several_versions(rows),
        ),
    )


def setting_of(row: EvaluationRow) -> Setting:
    """Return what a row's training shares with those it may be compared with."""
    return Setting(
        network=row.task,
        dataset=row.dataset,
        real=row.real,
        width=row.width,
        depth=row.depth,
        batch_size=row.batch_size,
        steps=row.steps,
        window=row.window,
        place=row.place,
    )


def telling_apart(settings: Sequence[Setting]) -> tuple[str, ...]:
    """Return the fields by which to name settings: width, depth and whatever else differs."""
    varying = [name for name in VARYING if len({getattr(one, name) for one in settings}) > 1]
    return ("width", "depth", *varying)


def describe(setting: Setting, fields: Iterable[str]) -> str:
    """Name a setting by network, data set and some more of its fields."""
    wordings = {
        "width": f"width {setting.width}",
        "depth": f"depth {setting.depth}",
        "real": "real data" if setting.real else "synthetic data",
        "batch_size": f"batch size {setting.batch_size}",
        "steps": f"{setting.steps} steps in all",
        "window": f"window {setting.window}",
    }
    task = f"{printable(setting.network)} on {printable(setting.dataset)}"
    name = printable(setting.place.suite_task)
    if not name:
        return ", ".join([task, *(wordings[one] for one in fields)])
    beyond = (wordings[one] for one in fields if one not in TOLD_BY_NAME)
    return f"{name} ({', '.join([task, *beyond])})"


def printable(text: str) -> str:
    """Return a name as it may be shown: what is no character to print becomes an escape."""
    return "".join(letter if letter.isprintable() else ascii(letter).strip("'") for letter in text)


def listing(things: Iterable[object], separator: str = ", ") -> str:
    """Return things in a row; what is beyond the first few is counted."""
    words = [str(thing) for thing in things]
    more = f" and {len(words) - LISTED} more" if len(words) > LISTED else ""
    return separator.join(words[:LISTED]) + more


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


def _refuse_ambiguous_names(rows: Sequence[EvaluationRow], fields: Sequence[str]) -> None:
    """Stop where one name stands for several optimizers within one setting: no mean is theirs."""
    named = _group(rows, lambda row: (setting_of(row), row.optimizer))
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
    if again := len(rows) - sum(tellings):
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
            field: {getattr(one, field) for variants in several.values() for one in variants}
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
        if differences := _differences(of_one, OPTIMIZER_FIELDS):
            yield f"{optimizer!r} is not the same in all tasks: {listing(differences)}"


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
