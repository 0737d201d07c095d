"""Which tasks of a suite are evaluated: chosen, overridden, held against what this machine has."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mulo_cli.cli.terminal import Terminal
from mulo_cli.processes import Place
from mulo_cli.results.records import EvaluationRow
from mulo_cli.results.settings import listing
from mulo_cli.results.split_files import files_of

if TYPE_CHECKING:
    from mulo_cli.assembly.suites import Job, PlannedTask, Workbench
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.recipes.suites import SuiteTask
    from mulo_cli.studies.costs import TrainingCosts


@dataclass(frozen=True)
class Asked:
    """What is to be trained, as far as somebody said it; None is left to the suite, or to defaults.

    Attributes:
        suite: name or file; without one, a network at several widths is trained.
        only: patterns of names of its tasks.
        limit_width: of the widest of them.
        skip_missing: leave out tasks whose data is not here, instead of ending.
        dataset: in a suite, in place of every data set of its kind.
        task, widths, depth: of networks outside of suites.
        batch_size, steps, at, seeds, window: how all of them are trained.
    """

    suite: str | None
    only: tuple[str, ...]
    limit_width: int | None
    skip_missing: bool
    dataset: str | None
    task: str | None
    widths: str | None
    depth: int | None
    batch_size: int | None
    steps: int | None
    at: str | None
    seeds: int | None
    window: int | None


def plan_suite(terminal: Terminal, asked: Asked) -> list["PlannedTask"]:
    """Return the trainings that are asked for; say what is left out.

    Raises:
        UsageError: nothing is left, or an override does not suit a task.
    """
    from mulo_cli.assembly.suites import at_home, by_dataset, distinct, fitting, plan_task
    from mulo_cli.recipes.suites import load_suite, select

    assert asked.suite is not None
    suite = load_suite(asked.suite)
    tasks, preferred = list(select(suite, asked.only)), set[str]()
    if asked.limit_width is not None:
        narrow = [task for task in tasks if task.width <= asked.limit_width]
        _leave_out(terminal, tasks, narrow, f"wider than {asked.limit_width}")
        tasks = narrow
    if asked.dataset is not None:
        readers = fitting(tasks, asked.dataset)
        _leave_out(terminal, tasks, readers, f"{asked.dataset} is not what they read")
        preferred, tasks = at_home(tasks, asked.dataset), readers
    seeds, window = asked.seeds or suite.seeds, asked.window or suite.window
    changed = [_overridden(task, asked, window) for task in tasks]
    plans, doubles = distinct((plan_task(task, seeds, window) for task in changed), preferred)
    if doubles:
        same = [f"{gone.place.suite_task} (as {kept.place.suite_task})" for gone, kept in doubles]
        terminal.info(f"left out, the same trainings as others now: {listing(same)}")
        values = {f"paper/{kept.preset}" for gone, kept in doubles if gone.preset != kept.preset}
        if values:
            terminal.info(f"preset=paper means {listing(sorted(values))} there")
    return by_dataset(plans)


def with_data_here(
    terminal: Terminal, plans: list["PlannedTask"], own: list["PlannedTask"], asked: Asked
) -> list["PlannedTask"]:
    """Return the trainings without those that are left out for want of data.

    Of other hosts it is not known which data they have: as much as this one.

    Args:
        terminal: is told what is left out.
        plans: of all processes.
        own: of this one, which needs no data but theirs.
        asked: whether there is a suite (else there is nothing to leave out), and what of it may be
            left out.

    Raises:
        DataError: data of its own is not here (and not to be skipped), or none of all is.
    """
    from mulo_cli.assembly.suites import absent_data
    from mulo_cli.errors import DataError

    if asked.suite is None:
        return plans
    absent, lacking = absent_data(plans), absent_data(own)
    here = [plan for plan in plans if plan.section.dataset not in absent]
    needed = "; ".join(f"{name}: {listing(tasks)}" for name, tasks in lacking.items())
    if lacking and not (asked.skip_missing and here):
        commands = ", ".join(f"`mulo data prepare {name}`" for name in lacking)
        raise DataError(
            f"data sets that tasks need are not here: {needed}",
            f"{commands}; or put another set in their place (--dataset), choose other tasks "
            "(--only)" + ("" if not here else ", or leave these out (--skip-missing)"),
        )
    if lacking:
        terminal.warning(f"left out, their data is not here: {needed}")
    return here if asked.skip_missing else plans


def refuse_too_large(costs: Sequence[tuple["Job", "TrainingCosts"]], free: int | None) -> None:
    """End if some trainings do not fit into free memory.

    Args:
        costs: of the trainings.
        free: bytes, before any data was loaded; None where nobody tells.

    Raises:
        MuloError: names them, and what is missing.
    """
    from mulo_cli.cli.tables import with_unit
    from mulo_cli.errors import MuloError

    if free is None:
        return
    beyond = [(job, cost) for job, cost in costs if cost.memory > free]
    if beyond:
        named = listing(
            [
                f"{called(job)} needs {with_unit(cost.memory)}B "
                f"({with_unit(cost.memory - free)}B too much)"
                for job, cost in beyond
            ]
        )
        raise MuloError(
            f"{len(beyond)} of {len(costs)} trainings do not fit into the "
            f"{with_unit(free)}B of memory that are free: {named}",
            _smaller(costs, free),
        )


def estimate(
    terminal: Terminal, bench: "Workbench", jobs: Sequence["Job"]
) -> list[tuple["Job", "TrainingCosts"]]:
    """Tell the costs of all trainings, from shapes alone."""
    from mulo_cli.cli.progress import display

    progress, told = display(terminal, "estimate"), []
    progress.start(0, len(jobs))
    try:
        for number, job in enumerate(jobs):
            if number or terminal.interactive:
                progress.show(number, f"{called(job)}: memory and operations")
            told.append((job, bench.costs(job)))
    finally:
        progress.stop()
    return told


def rows_so_far(
    terminal: Terminal, output: Path | None, place: Place, *, lines: bool
) -> "RowOutput | None":
    """Open an output of which a file is there; None: nothing is, and no file was made."""
    from mulo_cli.cli.row_output import RowOutput

    begun = output is not None and files_of(output)
    return RowOutput(terminal, output, lines=lines, place=place) if begun else None


def untrained(jobs: Sequence["Job"], sink: "RowOutput | None") -> list["Job"]:
    """Return the jobs of which rows are missing in an output, if there is one."""
    if sink is None:
        return list(jobs)
    return [job for job in jobs if len(known_rows(job, sink)) < job.plan.config.seeds]


def known_rows(job: "Job", sink: "RowOutput") -> dict[int, EvaluationRow]:
    """Return seed -> row of those rows of a job that are in the file already."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import identities

    wanted = identities(job.task, job.optimizer, job.plan.config, code_version())
    return {identity.seed: row for identity in wanted if (row := sink.find(identity))}


def called(job: "Job") -> str:
    """Name a training: its optimizer, and its task or width."""
    place = job.plan.place
    where = f"on {place.suite_task}" if place.suite else f"at width {job.plan.width}"
    return f"{job.optimizer.name} {where}"


def draw_rows(terminal: Terminal, rows: Sequence[EvaluationRow], plot: Path) -> None:
    """Draw the rows; those of a suite family by family, where widths can be compared."""
    from mulo_cli.results.evaluation_plots import plot_evaluation

    families: dict[tuple[str, int, int], list[EvaluationRow]] = {}
    for row in rows:
        key = (row.family, row.depth, row.steps) if row.suite else ("", 0, 0)
        families.setdefault(key, []).append(row)
    for (family, depth, steps), of_one in families.items():
        named = plot.with_stem(f"{plot.stem}-{family}-{depth}-{steps}") if family else plot
        plot_evaluation(of_one, named)
        if family:
            terminal.info(f"the picture of {family}, depth {depth}, {steps} steps is in {named}")


def _leave_out(
    terminal: Terminal, before: Sequence["SuiteTask"], after: Sequence["SuiteTask"], why: str
) -> None:
    """Say which tasks are left out.

    Raises:
        UsageError: all of them.
    """
    from mulo_cli.errors import UsageError

    kept = {task.name for task in after}
    gone = [task.name for task in before if task.name not in kept]
    if not kept:
        raise UsageError(
            f"no task is left: {why} ({listing(gone)})", "`mulo tasks list` shows the tasks"
        )
    if gone:
        terminal.info(f"left out, {why}: {listing(gone)}")


def _overridden(task: "SuiteTask", asked: Asked, window: int) -> "SuiteTask":
    from mulo_cli.errors import UsageError
    from mulo_cli.recipes.references import parse_steps
    from mulo_cli.recipes.suites import with_length

    told = None if asked.at is None else parse_steps(asked.at, "--at")
    task = with_length(task, asked.steps, told)
    if window > task.at[0]:
        raise UsageError(
            f"--window {window} is longer than the {task.at[0]} steps after which the loss of "
            f"{task.name} is told",
            "lower --window, or raise --steps or --at",
        )
    return dataclasses.replace(task, batch_size=asked.batch_size or task.batch_size)


def _smaller(costs: Sequence[tuple["Job", "TrainingCosts"]], free: int) -> str:
    """Say how trainings can be made to fit."""
    beyond = [(job, cost) for job, cost in costs if cost.memory > free]
    least = min(job.plan.width for job, _ in beyond)
    narrower = max((job.plan.width for job, _ in costs if job.plan.width < least), default=None)
    if any(cost.together > 1 for _, cost in beyond):
        less = "fewer --seeds or a smaller --batch-size take less"
    else:
        less = "a smaller --batch-size takes less"
    if narrower is None:
        return less
    option = "--limit-width" if costs[0][0].plan.place.suite else "--widths up to"
    return f"{option} {narrower} leaves out what is too wide; {less}"
