"""What was trained and how: when two trainings may be compared, and how that is said in words."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mulo_cli.results.records import NOWHERE, EvaluationRow, SuitePlace

LISTED = 12
"""At most this many things are spelled out in a warning; the others are counted."""

VARYING = ("real", "batch_size", "steps", "window", "data")
"""Fields of a setting that are spelled out only where settings differ in them."""

DIGITS = 8
"""Of a digest, where it is shown to tell data apart."""

TOLD_BY_NAME = ("width", "depth", "real", "batch_size")
"""Fields that need not be spelled out where a task has a name in a suite."""


@dataclass(frozen=True, order=True)
class Setting:
    """What was trained and how: everything in a row's identity but the optimizer and the seed.

    The number of steps belongs to it because a schedule, and a learned optimizer, depend on it.
    Its text seeds the bootstrap. Places in suites change no training: it is the same without them.

    Attributes:
        data: digest of the data, where its name does not tell it.
        places: in which suites rows ask for it, ascending.
    """

    network: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int
    steps: int
    window: int
    data: str = dataclasses.field(default="", repr=False)
    places: tuple[SuitePlace, ...] = dataclasses.field(
        default=(NOWHERE,), repr=False, compare=False
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
        data=row.data,
        places=(row.place,),
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
        "data": _data_in_words(setting.data),
    }
    task = f"{printable(setting.network)} on {printable(setting.dataset)}"
    names = dict.fromkeys(place.suite_task for place in setting.places if place.suite_task)
    name = " or ".join(map(printable, names))
    if not name:
        return ", ".join([task, *(wordings[one] for one in fields)])
    beyond = (wordings[one] for one in fields if one not in TOLD_BY_NAME)
    return f"{name} ({', '.join([task, *beyond])})"


def value_in_words(setting: Setting, field: str) -> bool | int | str:
    """Return one field of a setting as it is told beside those of others."""
    if field == "data":
        return _data_in_words(setting.data).removeprefix("data ")
    return getattr(setting, field)


def printable(text: str) -> str:
    """Return a name as it may be shown: what is no character to print becomes an escape."""
    return "".join(letter if letter.isprintable() else ascii(letter).strip("'") for letter in text)


def listing(things: Iterable[object], separator: str = ", ") -> str:
    """Return things in a row; what is beyond the first few is counted."""
    words = [str(thing) for thing in things]
    more = f" and {len(words) - LISTED} more" if len(words) > LISTED else ""
    return separator.join(words[:LISTED]) + more


def _data_in_words(digest: str) -> str:
    return f"data {printable(digest[:DIGITS])}" if digest else "data known by name"
