"""The keys of a suite's file, their types and their bounds.

A suite file names families (a kind of network on a data set) and tasks, each of one family at one
width and depth; what a task does not say it has from its family, else from the suite.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from mulo_cli.errors import RecipeError, shortened, shortened_path
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.schema import STRICT, PositiveInt
from mulo_cli.recipes.toml_files import names_in, read_toml

LIBRARY = resources.files("mulo_cli") / "tasks" / "suites"

SIZES = ("base", "large", "xl", "xxl")
"""Sizes of tasks, the smallest first: muLO (Therien et al., 2025), Table 1; base: v2 (2024)."""

Size: TypeAlias = Literal["base", "large", "xl", "xxl"]
Axis: TypeAlias = Literal["width", "depth", "horizon"]

_NAME = re.compile("[a-z0-9][a-z0-9._-]*")
"""Names that can be typed in a shell and told apart from a pattern."""


@dataclass(frozen=True, config=STRICT)
class FamilySection:
    """A kind of network on a data set.

    Attributes:
        title: what people call it.
        dataset: as after --dataset.
        network: as after --task.
        batch_size: examples per step.
        length: tokens of an example (text only).
        preset: values that the papers' baselines have on this family, without `paper/`.
    """

    title: str
    dataset: str
    network: str
    batch_size: PositiveInt
    length: PositiveInt | None = None
    preset: str | None = None


@dataclass(frozen=True, config=STRICT)
class TaskEntry:
    """One task as written; what is None comes from its family or from the suite.

    Attributes:
        identifier: as the source prints it.
        axis: along which the source varies its tasks here.
        sizes: which sizes of its family it is; the widest task may be xl and xxl.
        deviations: names of what is not as the source prints it.
    """

    family: str
    depth: PositiveInt
    width: PositiveInt
    identifier: str = ""
    axis: Axis = "width"
    sizes: list[Size] = dataclasses.field(default_factory=list)
    network: str | None = None
    batch_size: PositiveInt | None = None
    length: PositiveInt | None = None
    steps: PositiveInt | None = None
    at: list[PositiveInt] | None = None
    deviations: list[str] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, config=STRICT)
class SuiteFile:
    """A suite as written."""

    name: str
    description: str
    source: str
    steps: PositiveInt
    at: Annotated[list[PositiveInt], Field(min_length=1)]
    seeds: PositiveInt
    window: PositiveInt
    families: Annotated[dict[str, FamilySection], Field(min_length=1)]
    tasks: Annotated[dict[str, TaskEntry], Field(min_length=1)]
    deviations: dict[str, str] = dataclasses.field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "SuiteFile":
        _check_spelling("name", [self.name])
        _check_spelling("family", self.families)
        _check_spelling("task", self.tasks)
        _check_spelling("deviation", self.deviations)
        taken: dict[tuple[str, str], str] = {}
        for name, task in self.tasks.items():
            _check_names(name, task, self)
            _check_steps(name, task.at or self.at, task.steps or self.steps, self.window)
            for size in task.sizes:
                other = taken.setdefault((task.family, size), name)
                if other != name:
                    raise ValueError(f"{other} and {name} are both {size} in {task.family}")
        return self


def suite_names() -> list[str]:
    """Return the names of the suites that ship with the package."""
    return names_in(LIBRARY)


def read_suite_file(reference: str) -> SuiteFile:
    """Read a suite that ships, or a TOML file.

    Raises:
        RecipeError: no such suite, a malformed file, an unknown key, a value out of bounds.
    """
    shipped = reference in suite_names()
    values = read_toml(reference, "suite", LIBRARY)
    _refuse_unknown_keys(values, reference)
    try:
        # strict types, but tables as sections: pydantic's strict mode allows this for JSON only
        written = TypeAdapter(SuiteFile).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(_shown(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise RecipeError(
            f"suite {shortened_path(reference)}: {where}{': ' if where else ''}{what}",
            "docs/reference/suites.md tells every key",
        ) from None
    if not shipped and written.name in suite_names():
        raise RecipeError(
            f"suite {shortened_path(reference)} is named {written.name!r}, as one that ships",
            "ranks would mix them: give it another name",
        )
    return written


def _shown(part: str | int) -> str:
    """Return a key as an error shows it: whatever is no proper name as its repr."""
    text = str(part)
    return text if re.fullmatch(r"[\w.-]{1,40}", text, re.ASCII) else shortened(text)


def _check_spelling(what: str, names: Iterable[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{what} {shortened(name)}: names are of a-z, 0-9, '.', '_' and '-', and begin "
                "with a letter or a digit"
            )


def _check_names(name: str, task: TaskEntry, suite: SuiteFile) -> None:
    if task.family not in suite.families:
        hint = nearest_hint(task.family, suite.families)
        raise ValueError(f"task {name}: unknown family {shortened(task.family)} ({hint})")
    for one in task.deviations:
        if one not in suite.deviations:
            hint = nearest_hint(one, suite.deviations)
            raise ValueError(f"task {name}: unknown deviation {shortened(one)} ({hint})")


def _check_steps(name: str, at: Sequence[int], steps: int, window: int) -> None:
    if not at or list(at) != sorted(set(at)) or at[-1] > steps:
        raise ValueError(f"task {name}: at = {list(at)} does not ascend up to steps = {steps}")
    if window > at[0]:
        raise ValueError(f"task {name}: window = {window} is longer than at = {at[0]}")


def _refuse_unknown_keys(values: Mapping[str, Any], origin: str) -> None:
    tables = [(SuiteFile, "", values)]
    for section, kind in (("families", FamilySection), ("tasks", TaskEntry)):
        inner = values.get(section)
        for name, table in inner.items() if isinstance(inner, dict) else ():
            tables += [(kind, f"{section}.{name}.", table)] if isinstance(table, dict) else []
    for kind, prefix, table in tables:
        known = [field.name for field in dataclasses.fields(kind)]
        for key in table:
            if key not in known:
                raise RecipeError(
                    f"unknown key {shortened(prefix + key)} in suite {shortened_path(origin)}",
                    nearest_hint(key, known),
                )
