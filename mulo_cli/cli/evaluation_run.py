"""The trainings of an evaluation, one after another: what is known is passed on, the rest trained.

With several processes a work item is a job (an optimizer on a task, networks of all seeds): seeds
train side by side in one program, and stay together so that rows are those of a single process.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.place_options import tell_place
from mulo_cli.cli.terminal import Terminal
from mulo_cli.processes import Place

if TYPE_CHECKING:
    from mulo_cli.assembly.suites import Job, PlannedTask, Workbench
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.progress import Display
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.cli.suite_evaluation import Asked
    from mulo_cli.recipes.references import OptimizerReference
    from mulo_cli.results.records import EvaluationIdentity, EvaluationRow


@dataclass(frozen=True)
class Shown:
    """How the results of an evaluation are shown.

    Attributes:
        output: that keeps the rows.
        plot: file of the picture.
        lines: whether stdout gets lines instead of tables.
    """

    output: Path | None
    plot: Path | None
    lines: bool


def shares(
    terminal: Terminal,
    bench: "Workbench",
    plans: "list[PlannedTask]",
    references: "Sequence[OptimizerReference]",
    place: Place,
    asked: "Asked",
) -> "tuple[list[Job], list[Job]]":
    """Return the jobs that all processes will do, as far as this one knows, and its own.

    Hosts may differ in the data they have. They deal alike all the same, because work is dealt from
    shapes alone; what each leaves out for want of data is then of its own share.

    Args:
        terminal: where it is said what is left out, and which process does how much.
        bench: builds jobs, and knows their costs.
        plans: of all processes.
        references: of optimizers.
        place: of this process.
        asked: what may be left out.

    Raises:
        MuloError: something cannot be built, or data of this process is not here.
    """
    from mulo_cli.cli.suite_evaluation import estimate, with_data_here

    if place.count == 1:  # nobody to deal alike with: data is looked for before anything is built
        jobs = bench.jobs(with_data_here(terminal, plans, plans, asked), references)
        return jobs, jobs
    jobs = bench.jobs(plans, references)
    work = [costs.training_flops for _, costs in estimate(terminal, bench, jobs)]
    own = [jobs[number] for number in dealt(work, place)]
    tell_place(terminal, place, len(own), len(jobs), "trainings of an optimizer on a task")
    needed = [plan for plan in plans if any(job.plan is plan for job in own)]
    here = with_data_here(terminal, plans, needed, asked)
    done = [job for job in jobs if job.plan in here]
    return done, [job for job in own if job in done]


def dealt(work: Sequence[int], place: Place) -> list[int]:
    """Return the numbers of the items of one process, ascending.

    The heaviest is dealt first: no process has more than one item's work above another. What is
    done already does not matter, because processes that start one by one would not agree on that.

    Args:
        work: of every item, in any unit.
        place: of the process.
    """
    heaviest_first = sorted(range(len(work)), key=lambda number: -work[number])
    return sorted(heaviest_first[place.index :: place.count])


def run_jobs(
    terminal: Terminal,
    bench: "Workbench",
    jobs: "Sequence[Job]",
    sink: "RowOutput",
    request: "StopRequest",
) -> None:
    """Hand on every row of some jobs, trained where it is not known; until somebody wants to stop.

    Args:
        terminal: shows progress.
        bench: builds tasks.
        jobs: in this order.
        sink: takes rows, and knows some.
        request: of somebody who wants to stop.
    """
    from mulo_cli.cli.progress import display
    from mulo_cli.cli.suite_evaluation import known_rows

    progress, done = display(terminal, "step"), 0
    progress.start(0, sum(job.plan.config.steps for job in jobs))
    try:
        for job in jobs:
            if request():
                return
            known = known_rows(job, sink)
            if len(known) < job.plan.config.seeds:
                sink.look_again()
                known = known_rows(job, sink)
            if len(known) < job.plan.config.seeds:
                _train(bench, job, known, sink, request, progress, done)
            else:
                for row in known.values():
                    sink.take(row)
            done += job.plan.config.steps
    finally:
        progress.stop()


def _train(
    bench: "Workbench",
    job: "Job",
    known: "Mapping[int, EvaluationRow]",
    sink: "RowOutput",
    request: "StopRequest",
    progress: "Display",
    before: int,
) -> None:
    """Train one optimizer on one task to its end, or until somebody wants to stop."""
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.cli.suite_evaluation import called
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import Progress, evaluate
    from mulo_cli.studies.lane_count import memory_budget

    where, config = called(job), job.plan.config
    progress.show(before, f"{where}: compiling")
    task, budget = bench.with_data(job), memory_budget(free_memory())
    training = evaluate(task, job.optimizer, config, code_version(), budget, known)
    with closing(training) as records:
        for record in records:
            if not isinstance(record, Progress):
                sink.take(record)
            elif request():  # not between the rows of networks that ended together
                return
            else:
                told = f"{where}: step {record.step}, loss {record.loss:.3f}"
                progress.show(before + record.step, told, important=record.step == config.steps)


def end(
    terminal: Terminal, sink: "RowOutput", shown: Shown, request: "StopRequest", place: Place,
    jobs: "Sequence[Job]",
) -> Outcome:  # fmt: skip
    """Show what came out, and say where it is and what to run next.

    Args:
        terminal: to show it on.
        sink: has taken the rows of this process.
        shown: how it is shown.
        request: of somebody who wants to stop.
        place: of this process. Of several, the one that finds the rows of all shows these.
        jobs: of all processes, as far as it is known that they will be done.
    """
    rows, complete = sink.rows, place.count == 1
    if shown.output is not None:
        terminal.info(f"{len(rows)} rows, {sink.fresh} of them new, are in {sink.where}")
    if place.count > 1 and shown.output is not None:
        wanted = _identities(jobs)
        found = sink.found_by_now(wanted)
        complete = len(found) == len(wanted)
        rows = found if complete else rows
        _tell_whole(terminal, shown.output, len(found), len(wanted))
    _show(terminal, rows, shown, drawn=complete)
    if request():
        how = "the same command with --append" if shown.output else "--output FILE --append"
        terminal.info(f"stopped after {len(sink.rows)} rows; {how} continues where it was")
    return Outcome(exit_code=request.exit_code)


def _identities(jobs: "Sequence[Job]") -> "list[EvaluationIdentity]":
    """Return what all rows of some jobs will say of themselves."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import identities

    version = code_version()
    return [
        identity
        for job in jobs
        for identity in identities(job.task, job.optimizer, job.plan.config, version)
    ]


def _tell_whole(terminal: Terminal, output: Path, found: int, wanted: int) -> None:
    """Say how far all processes together are."""
    if found == wanted:
        terminal.info(f"all {wanted} rows are in: `mulo rank {output}` reads them")
        return
    terminal.info(
        f"{found} of {wanted} rows are in by now; the others are other processes': of one that "
        "has died, the same command with --append trains them"
    )


def _show(
    terminal: Terminal, rows: "Sequence[EvaluationRow]", shown: Shown, *, drawn: bool
) -> None:
    """Show tables of rows, and draw them if they are to be `drawn`."""
    from mulo_cli.cli.suite_evaluation import draw_rows
    from mulo_cli.cli.suite_tables import suite_table
    from mulo_cli.cli.tables import evaluation_table

    if rows and shown.plot is not None and drawn:
        draw_rows(terminal, rows, shown.plot)
    if rows and not shown.lines:
        if rows[0].suite:
            terminal.result(suite_table(rows))
        for step in () if rows[0].suite else rows[0].at:
            terminal.result(evaluation_table(rows, step))
