"""`mulo evaluate`: train networks with optimizers and see which does best."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.place_options import Alone, NumProcesses, ProcessId
from mulo_cli.cli.shard_option import Shard, memory_of_all, mesh_for
from mulo_cli.cli.terminal import Terminal
from mulo_cli.processes import Place, place_of

if TYPE_CHECKING:
    from mulo_cli.assembly.suites import PlannedTask
    from mulo_cli.cli.suite_evaluation import Asked

EXAMPLES = """
[bold]Examples[/bold]

mulo evaluate

mulo evaluate --optimizer runs/multi-width-mup-desk-seed0 --optimizer adamw:learning_rate=1e-2

mulo evaluate --optimizer muadam:tuned=runs/tune-muadam/best.json --widths 64..1024:x4 --seeds 5

mulo evaluate --optimizer adamw --optimizer sgd --output rows.jsonl --append

mulo evaluate --suite desk --optimizer mulo-m-desk --optimizer muadam:learning_rate=0.03 | mulo rank

mulo evaluate --suite paper --only 'mlp-*' --dry-run

srun -n 8 mulo evaluate --suite paper --optimizer muadam:preset=paper --output paper.jsonl --append
"""

BUILT_IN = ("adamw:learning_rate=0.01", "muadam:learning_rate=0.1")
"""What is compared when nobody says what to compare, besides the newest run."""

PUBLISHED = ("adamw:preset=paper", "muadam:preset=paper")
"""The same on a suite whose families have published values."""

NETWORK, WIDTHS, DEPTH, BATCH_SIZE = "mlp", "16..64", 3, 64
"""What is trained outside of a suite."""

STEPS, SEEDS, WINDOW = 500, 5, 50
"""How it is trained."""

THEIRS = "with --suite its tasks' own"


def evaluate(
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]|PATH",
            help="adam, adamw, muadam, adopt, lamb, sophia, sgd, muon with hyper-parameters under "
            "optax's names, tuned=FILE, preset=paper/TASK (preset=paper in a suite), "
            "schedule=warmup-cosine, parametrization=mup|sp|spectral; a finished run or an "
            "artefact. Repeatable.",
            show_default="a small built-in selection and the newest run",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Evaluate a suite's tasks: paper, desk, a file."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN,...", help="Tasks of the suite: 'mlp-*'. Repeatable."),
    ] = None,
    limit_width: Annotated[
        int | None, typer.Option(min=1, help="Leave out wider tasks of the suite.")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out tasks whose data is not here.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set: a name, or a file or folder. With --suite, in place of every task's "
            "that reads such data.",
            show_default=f"digits, pydoc for text; {THEIRS}",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Network.", show_default=NETWORK)] = None,
    widths: Annotated[
        str | None,
        typer.Option(help="128,512 or 16..64 (doubling) or 64..1024:x4.", show_default=WIDTHS),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Hidden layers.", show_default=str(DEPTH))
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Examples per step.", show_default=f"{BATCH_SIZE}; {THEIRS}"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each training.", show_default=f"{STEPS}; {THEIRS}"),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="Steps whose smoothed loss is told: 100,300.", show_default="the last"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Networks per optimizer and task.", show_default=f"{SEEDS}; {THEIRS}"
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Steps whose mean is the smoothed loss.",
            show_default=f"{WINDOW}; {THEIRS}",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Tell parameters, memory and operations; train nothing."),
    ] = False,
    output: Annotated[Path | None, typer.Option(help="File that keeps the rows.")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Skip rows that are in --output already.")
    ] = False,
    format_: Annotated[
        Literal["table", "jsonl"] | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Picture of loss against width and of the curves: FILE.png or .svg; of a suite, "
            "one for each family."
        ),
    ] = None,
    process_id: ProcessId = None,
    num_processes: NumProcesses = None,
    alone: Alone = False,
    shard: Shard = False,
) -> Outcome:
    """Train networks with each optimizer and tell their smoothed training loss.

    On a terminal a table; in a pipe one JSON line per trained network, as soon as it is done. The
    same command with --output and --append continues after an interruption. Several processes share
    the trainings and do not talk; each adds to a file of its own, rows.0-of-4.jsonl for example.
    """
    from mulo_cli.assembly.suites import Workbench
    from mulo_cli.cli.cost_tables import tell_costs
    from mulo_cli.cli.evaluation_run import Shown, end, run_jobs, shares
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.cli.row_output import RowOutput, own_rows
    from mulo_cli.cli.suite_evaluation import (
        Asked,
        estimate,
        refuse_too_large,
        rows_so_far,
        untrained,
    )
    from mulo_cli.recipes.references import parse_optimizer

    terminal = Terminal()
    lines = terminal.piped if format_ is None else format_ == "jsonl"
    place = place_of(process_id, num_processes, os.environ, alone=alone)
    asked = Asked(
        suite, tuple(only or ()), limit_width, skip_missing,
        dataset, task, widths, depth, batch_size, steps, at, seeds, window,
    )  # fmt: skip
    plans = _plans(terminal, asked)
    named = dict.fromkeys(optimizer or _built_in(terminal, plans, place))
    references = [parse_optimizer(text) for text in named]
    mesh = mesh_for(shard=shard)
    bench, free = Workbench(mesh), memory_of_all(free_memory(), mesh)
    if dry_run:
        costs = estimate(terminal, bench, bench.jobs(plans, references))
        return tell_costs(terminal, costs, free, lines=lines)
    _check_output(output, plot, place, append=append)
    with stop_request() as request:
        jobs, own = shares(terminal, bench, plans, references, place, asked)
        with own_rows(terminal, output, place):
            begun = rows_so_far(terminal, output, place, lines=lines)
            if suite is not None and free is not None:
                refuse_too_large(estimate(terminal, bench, untrained(own, begun)), free)
            sink = begun or RowOutput(terminal, output, lines=lines, place=place)
            run_jobs(terminal, bench, own, sink, request)
    return end(terminal, sink, Shown(output, plot, lines), request, place, jobs)


def told_steps(at: str | None, steps: int, window: int) -> tuple[int, ...]:
    """Return the steps at which the smoothed loss is told, each with a whole window before it."""
    from mulo_cli.errors import UsageError
    from mulo_cli.recipes.references import parse_steps

    told = (steps,) if at is None else parse_steps(at, "--at")
    if told[-1] > steps:
        raise UsageError(f"--at {at} is beyond --steps {steps}", "raise --steps or lower --at")
    if window > told[0]:
        first = f"--at {told[0]}" if at else f"--steps {steps}"
        raise UsageError(
            f"--window {window} is longer than {first}", "lower --window or train longer"
        )
    return told


def _plans(terminal: Terminal, asked: "Asked") -> list["PlannedTask"]:
    """Return what is to be trained: a suite's tasks, or one network at several widths.

    Whether their data is here is not looked at: hosts that differ in that have the same plans.

    Raises:
        UsageError: options that do not go together.
    """
    from mulo_cli.cli.suite_evaluation import plan_suite
    from mulo_cli.errors import UsageError

    of_suites = {"--only": asked.only, "--limit-width": asked.limit_width}
    of_networks = {"--task": asked.task, "--widths": asked.widths, "--depth": asked.depth}
    foreign = (
        {"--skip-missing": asked.skip_missing, **of_suites} if asked.suite is None else of_networks
    )
    given = [name for name, value in foreign.items() if value]
    if given and asked.suite is None:
        raise UsageError(f"{given[0]} is about tasks of a suite", "add --suite paper, for example")
    if given:
        raise UsageError(
            f"{given[0]} does not go with --suite: its tasks say what is trained",
            "choose tasks with --only and --limit-width, or leave --suite away",
        )
    return _plain_plans(asked) if asked.suite is None else plan_suite(terminal, asked)


def _plain_plans(asked: "Asked") -> list["PlannedTask"]:
    from mulo_cli.assembly.suites import PlannedTask
    from mulo_cli.assembly.tasks import usual_dataset
    from mulo_cli.recipes.references import parse_widths
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.studies.evaluate import EvaluationConfig

    steps, window = asked.steps or STEPS, asked.window or WINDOW
    told = told_steps(asked.at, steps, window)
    config = EvaluationConfig(steps, asked.seeds or SEEDS, window, told)
    network = asked.task or NETWORK
    what = (asked.dataset or usual_dataset(network), network)
    how = (asked.depth or DEPTH, asked.batch_size or BATCH_SIZE)
    return [
        PlannedTask(TaskSection(*what, [width], *how), config)
        for width in parse_widths(asked.widths or WIDTHS)
    ]


def _built_in(terminal: Terminal, plans: Sequence["PlannedTask"], place: Place) -> tuple[str, ...]:
    """Return the optimizers of the built-in selection, and say that they were chosen.

    Raises:
        UsageError: there are several processes, which may choose different ones.
    """
    from mulo_cli.errors import UsageError
    from mulo_cli.results.run_directory import newest_finished_run

    if place.count > 1:
        raise UsageError(
            f"{place.count} processes share the work, and no --optimizer says what it is",
            "name them: --optimizer adamw --optimizer runs/mine, for example; the newest run in "
            "./runs need not be the same for all of them (--alone does everything here)",
        )
    run = newest_finished_run()
    published = all(plan.preset is not None for plan in plans)
    chosen = (*(PUBLISHED if published else BUILT_IN), *([str(run)] if run else []))
    nothing = "" if run else " (there is no finished run in ./runs to set beside them)"
    terminal.info(f"no --optimizer given, comparing {', '.join(chosen)}{nothing}")
    return chosen


def _check_output(output: Path | None, plot: Path | None, place: Place, *, append: bool) -> None:
    """Stop before anything is computed whose result could not be written."""
    from mulo_cli.errors import UsageError
    from mulo_cli.results.row_file import refuse_existing
    from mulo_cli.results.split_files import earlier_files

    if output is None and append:
        raise UsageError("--append needs a file to append to", "give it with --output FILE")
    if output is not None and not append:
        for file in (output, *earlier_files(output, place)):
            refuse_existing(file)
    if plot is not None:
        from mulo_cli.results.plots import prepare_plot

        if output is None and place.count > 1:
            raise UsageError(
                f"--plot has nothing to draw: each of {place.count} processes knows its own rows",
                "give --output FILE, or draw later: the same command with --append --alone",
            )
        prepare_plot(plot)
