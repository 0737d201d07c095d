"""From a suite's tasks to trainings: what is trained how, on which data, by which optimizer."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from mulo_cli.assembly.datasets import build_dataset, dataset_options, find_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.shelves import look_up
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.datasets.base import Dataset
from mulo_cli.datasets.catalogue import DatasetEntry
from mulo_cli.datasets.mapped import RESIDENT_LIMIT
from mulo_cli.errors import MuloError
from mulo_cli.inner_training.traced import size_in_bytes
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.recipes.references import OptimizerReference, parse_named
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.recipes.suites import SuiteTask
from mulo_cli.results.records import NOWHERE, SuitePlace
from mulo_cli.studies.costs import TrainingCosts, training_costs
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask, NamedOptimizer
from mulo_cli.studies.spread import spread

OF_FAMILY = "paper"
"""The preset that stands for the papers' values on a task's own family."""


TWIN = "synthetic/"
"""Before the name of a data set: noise in its shape."""


@dataclass(frozen=True)
class PlannedTask:
    """A task that is to be trained.

    Attributes:
        section: what is trained, at one width.
        config: how.
        place: in a suite.
        preset: the papers' values for baselines on its family.
    """

    section: TaskSection
    config: EvaluationConfig
    place: SuitePlace = NOWHERE
    preset: str | None = None

    @property
    def width(self) -> int:
        """Of the network."""
        return self.section.widths[0]


@dataclass(frozen=True, eq=False)
class Job:
    """One optimizer on one task: networks of all seeds. It is known by being itself.

    Attributes:
        plan: the task.
        optimizer: trains it.
        task: the task with the shapes of its data.
    """

    plan: PlannedTask
    optimizer: NamedOptimizer
    task: EvaluationTask


class Workbench:
    """Builds tasks; every data set is described once, and the arrays of one at a time are kept.

    A set that cannot be described unread (a path that is not a prepared set) is read for it.

    Args:
        mesh: what each network is spread over; None: it is on one device.
    """

    def __init__(self, mesh: Mesh | None = None) -> None:
        self._mesh = mesh
        self._entries: dict[str, DatasetEntry] = {}
        self._described: dict[str, Dataset] = {}
        self._loaded: Dataset | None = None
        self._costs: dict[Job, TrainingCosts] = {}

    def jobs(
        self, plans: Iterable[PlannedTask], references: Sequence[OptimizerReference]
    ) -> list[Job]:
        """Build every optimizer on every task, from shapes, so that a wrong word costs no time.

        Raises:
            MuloError: something that cannot be built; says on which task of a suite.
        """
        built: dict[tuple[str, str | None], NamedOptimizer] = {}
        jobs = []
        for plan in plans:
            dataset = self.described(plan.section.dataset)
            for reference in _on_family(references, plan.preset):
                key = (reference.text, reference.preset)
                optimizer = built[key] = built.get(key) or build_named_optimizer(reference)
                jobs.append(Job(plan, optimizer, _task(plan, dataset, optimizer)))
        return jobs

    def with_data(self, job: Job) -> EvaluationTask:
        """Return the task of a job with its data on the device; other data makes room for it."""
        task = _task(job.plan, self._load(job.plan.section.dataset), job.optimizer)
        return spread(task, self._mesh)

    def costs(self, job: Job) -> TrainingCosts:
        """Tell what a job costs, from shapes alone; it is traced once."""
        if job not in self._costs:
            resting = self.resting_bytes(job.plan.section.dataset)
            self._costs[job] = training_costs(job.task, job.optimizer, job.plan.config, resting)
        return self._costs[job]

    def resting_bytes(self, name: str) -> int:
        """Return the bytes of a data set that rest on the device.

        Pixels of a prepared set may stay in their file; everything else rests.
        """
        reference = parse_named(name)
        entry = self._entry(reference.name)
        feed = (
            dataset_options(reference, entry.options).feed if "feed" in entry.options else "never"
        )
        limit = {"auto": RESIDENT_LIMIT, "always": 0, "never": None}[feed]
        total = 0
        for arrays in self.described(name).splits.values():
            size = size_in_bytes(arrays)
            pixels = size_in_bytes(arrays["inputs"]) if "inputs" in arrays else 0
            total += size - pixels if limit is not None and pixels > limit else size
        return total

    def described(self, name: str) -> Dataset:
        """Return a data set with shapes in place of arrays."""
        if name not in self._described:
            self._described[name] = _shapes(
                self._load(name)
                if self._entry(parse_named(name).name).describe is None
                else build_dataset(name, with_data=False)
            )
        return self._described[name]

    def _load(self, name: str) -> Dataset:
        if self._loaded is None or self._loaded.name != name:
            self._loaded = None  # before the next one comes
            self._loaded = build_dataset(name)
        return self._loaded

    def _entry(self, name: str) -> DatasetEntry:
        """Look once at what a name means: for a path, files are opened."""
        if name not in self._entries:
            self._entries[name] = find_dataset(name)
        return self._entries[name]


def fitting(tasks: Iterable[SuiteTask], dataset: str) -> list[SuiteTask]:
    """Put another data set under every task whose network can read it; return these.

    Raises:
        UsageError: there is no such data set.
    """
    kind = find_dataset(parse_named(dataset).name).kind
    return [
        dataclasses.replace(task, dataset=dataset)
        for task in tasks
        if look_up("optimizee", parse_named(task.network).name, OPTIMIZEES).reads == kind
    ]


def at_home(tasks: Iterable[SuiteTask], dataset: str) -> set[str]:
    """Return the names of the tasks whose own data set is the one given, or stands in for it."""
    names = {task.name: parse_named(task.dataset).name for task in tasks}
    given = parse_named(dataset).name.removeprefix(TWIN)
    return {name for name, own in names.items() if own.removeprefix(TWIN) == given}


def plan_task(task: SuiteTask, seeds: int, window: int) -> PlannedTask:
    """Return a task of a suite as a training.

    Args:
        task: complete.
        seeds: networks per optimizer.
        window: steps of the smoothed loss.
    """
    return PlannedTask(
        TaskSection(task.dataset, task.network, [task.width], task.depth, task.batch_size),
        EvaluationConfig(task.steps, seeds, window, task.at),
        SuitePlace(task.suite, task.name, task.family, task.sizes),
        task.preset,
    )


def by_dataset(plans: Iterable[PlannedTask]) -> list[PlannedTask]:
    """Order trainings so that each data set is needed for one stretch of them only."""
    plans = list(plans)
    datasets = list(dict.fromkeys(plan.section.dataset for plan in plans))
    return sorted(plans, key=lambda plan: datasets.index(plan.section.dataset))


def distinct(
    plans: Iterable[PlannedTask], preferred: Collection[str] = ()
) -> tuple[list[PlannedTask], list[tuple[PlannedTask, PlannedTask]]]:
    """Keep one of trainings that are the same but for their names and published values.

    Ranks could not hold two of them: it is one setting, and one optimizer has one value there.

    Args:
        plans: in the order in which they are to be trained.
        preferred: names of tasks that are kept rather than others.

    Returns:
        One of each; each other, with the one that is kept.
    """
    plans = list(plans)
    kept: dict[str, PlannedTask] = {}
    for plan in sorted(plans, key=lambda plan: plan.place.suite_task not in preferred):
        kept.setdefault(_training(plan), plan)
    pairs = [(plan, kept[_training(plan)]) for plan in plans]
    return (
        [plan for plan, first in pairs if first is plan],
        [(plan, first) for plan, first in pairs if first is not plan],
    )


def absent_data(plans: Iterable[PlannedTask]) -> dict[str, list[str]]:
    """Return data set -> tasks that need it, for those sets that are not on this machine."""
    needed: dict[str, list[str]] = {}
    for plan in plans:
        needed.setdefault(plan.section.dataset, []).append(plan.place.suite_task)
    return {
        name: tasks
        for name, tasks in needed.items()
        if not find_dataset(parse_named(name).name).present
    }


def _training(plan: PlannedTask) -> str:
    return repr((plan.section, plan.config))


def _shapes(dataset: Dataset) -> Dataset:
    splits = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dict(dataset.splits)
    )
    return dataclasses.replace(dataset, splits=splits)


def _on_family(
    references: Iterable[OptimizerReference], preset: str | None
) -> Iterable[OptimizerReference]:
    """Return optimizers with the published values for a family where they ask for such."""
    for reference in references:
        if preset is not None and reference.preset == OF_FAMILY:
            yield dataclasses.replace(reference, preset=f"{OF_FAMILY}/{preset}")
        else:
            yield reference


def _task(plan: PlannedTask, dataset: Dataset, optimizer: NamedOptimizer) -> EvaluationTask:
    try:
        task = build_evaluation_task(
            plan.section, dataset, plan.width, optimizer.parametrization, optimizer.network
        )
    except MuloError as error:
        if plan.place is NOWHERE:
            raise
        raise type(error)(f"{plan.place.suite_task}: {error.message}", error.hint) from error
    return dataclasses.replace(task, place=plan.place)
