"""Suites: lists of tasks by name, as the papers evaluate on, read from files and cut to measure."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Literal

from mulo_cli.errors import UsageError, shortened
from mulo_cli.recipes.suite_file import SIZES, Axis, SuiteFile, TaskEntry, read_suite_file


@dataclasses.dataclass(frozen=True)
class SuiteTask:
    """One task, complete.

    Attributes:
        suite: name of the suite.
        name: in its suite.
        identifier: as the source prints it.
        family: name of its family.
        title: what people call its family.
        axis: along which the source varies its tasks here.
        dataset: as after --dataset.
        network: as after --task, the length of examples included.
        batch_size, steps, at: how it is trained.
        sizes: which sizes of its family it is.
        preset: the papers' values for baselines on its family.
        deviations: what is not as the source prints it, in words.
    """

    suite: str
    name: str
    identifier: str
    family: str
    title: str
    axis: Axis
    dataset: str
    network: str
    depth: int
    width: int
    batch_size: int
    steps: int
    at: tuple[int, ...]
    sizes: tuple[str, ...]
    preset: str | None
    deviations: tuple[str, ...]
    kind: Literal["task"] = "task"


@dataclasses.dataclass(frozen=True)
class Suite:
    """A suite, complete.

    Attributes:
        name: as rows call it.
        description: what it is for.
        source: where its tasks come from.
        seeds: networks per optimizer and task.
        window: steps whose mean is a smoothed loss.
        families: name -> title.
        tasks: in the file's order.
        deviations: all that is not as the source prints it, in words.
    """

    name: str
    description: str
    source: str
    seeds: int
    window: int
    families: Mapping[str, str]
    tasks: tuple[SuiteTask, ...]
    deviations: tuple[str, ...]

    @property
    def families_by_size(self) -> dict[str, tuple[str, ...]]:
        """Size -> families that have a task of that size."""
        return {
            size: tuple(task.family for task in self.tasks if size in task.sizes)
            for size in SIZES
            if any(size in task.sizes for task in self.tasks)
        }


def load_suite(reference: str) -> Suite:
    """Read a suite that ships, or a TOML file.

    Raises:
        RecipeError: no such suite, a malformed file, an unknown key, a value out of bounds.
    """
    return _completed(read_suite_file(reference))


def select(suite: Suite, patterns: Sequence[str]) -> tuple[SuiteTask, ...]:
    """Return the tasks that one of some patterns (`mlp-*`) names, all of them without any.

    Args:
        suite: whose tasks they are.
        patterns: each may hold several, with commas between them.

    Raises:
        UsageError: a pattern that names no task.
    """
    wanted = [part.strip() for text in patterns for part in text.split(",")]
    names = [task.name for task in suite.tasks]
    for pattern in wanted:
        if not fnmatch.filter(names, pattern):
            raise UsageError(
                f"--only {shortened(pattern)} names no task of suite {suite.name}",
                f"tasks are: {', '.join(names)}",
            )
    return tuple(
        task
        for task in suite.tasks
        if not wanted or any(fnmatch.fnmatchcase(task.name, pattern) for pattern in wanted)
    )


def with_length(task: SuiteTask, steps: int | None, at: Sequence[int] | None) -> SuiteTask:
    """Return a task trained for another number of steps, or told at others.

    Where only the number of steps is given, steps beyond it are not told, and the last one is.

    Raises:
        UsageError: a step to be told lies beyond the training's end.
    """
    length = steps or task.steps
    if at is None:
        kept = tuple(step for step in task.at if step <= length)
        told = kept if steps is None else tuple(sorted({*kept, length}))
    else:
        told = tuple(at)
    if told[-1] > length:
        raise UsageError(
            f"--at {told[-1]} is beyond the {length} steps of {task.name}",
            "raise --steps or lower --at",
        )
    return dataclasses.replace(task, steps=length, at=told)


def _completed(written: SuiteFile) -> Suite:
    tasks = tuple(_complete(name, task, written) for name, task in written.tasks.items())
    return Suite(
        name=written.name,
        description=written.description,
        source=written.source,
        seeds=written.seeds,
        window=written.window,
        families={name: family.title for name, family in written.families.items()},
        tasks=tasks,
        deviations=tuple(written.deviations.values()),
    )


def _complete(name: str, task: TaskEntry, suite: SuiteFile) -> SuiteTask:
    family = suite.families[task.family]
    network, length = task.network or family.network, task.length or family.length
    if length is not None:
        network += f"{',' if ':' in network else ':'}length={length}"
    return SuiteTask(
        suite=suite.name,
        name=name,
        identifier=task.identifier,
        family=task.family,
        title=family.title,
        axis=task.axis,
        dataset=family.dataset,
        network=network,
        depth=task.depth,
        width=task.width,
        batch_size=task.batch_size or family.batch_size,
        steps=task.steps or suite.steps,
        at=tuple(task.at or suite.at),
        sizes=tuple(sorted(task.sizes, key=SIZES.index)),
        preset=family.preset,
        deviations=tuple(suite.deviations[one] for one in task.deviations),
    )
