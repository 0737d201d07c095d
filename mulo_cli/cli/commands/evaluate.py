"""`mulo evaluate`: train networks with optimizers and see which does best."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.assembly.suites import Job, PlannedTask, Workbench
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.progress import Display
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.cli.suite_evaluation import Asked
    from mulo_cli.results.records import EvaluationRow

EXAMPLES = """
[bold]Examples[/bold]

mulo evaluate

mulo evaluate --optimizer runs/multi-width-mup-desk-seed0 --optimizer adamw:learning_rate=1e-2

mulo evaluate --optimizer muadam:tuned=runs/tune-muadam/best.json --widths 64..1024:x4 --seeds 5

mulo evaluate --optimizer adamw --optimizer sgd --output rows.jsonl --append

mulo evaluate --suite desk --optimizer mulo-m-desk --optimizer muadam:learning_rate=0.03 | mulo rank

mulo evaluate --suite paper --only 'mlp-*' --dry-run
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
) -> Outcome:
    """Train networks with each optimizer and tell their smoothed training loss.

    On a terminal a table; in a pipe one JSON line per trained network, as soon as it is done. The
    same command with --output and --append continues after an interruption.
    """
    from mulo_cli.assembly.suites import Workbench
    from mulo_cli.cli.cost_tables import tell_costs
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.cli.suite_evaluation import Asked, draw_rows, estimate, open_output
    from mulo_cli.recipes.references import parse_optimizer

    terminal = Terminal()
    lines = terminal.piped if format_ is None else format_ == "jsonl"
    asked = Asked(
        suite, tuple(only or ()), limit_width, skip_missing,
        dataset, task, widths, depth, batch_size, steps, at, seeds, window,
    )  # fmt: skip
    plans = _plans(terminal, asked, dry_run=dry_run)
    named = dict.fromkeys(optimizer or _built_in(terminal, plans))
    references = [parse_optimizer(text) for text in named]
    bench, free = Workbench(), free_memory()
    if dry_run:
        costs = estimate(terminal, bench, bench.jobs(plans, references))
        return tell_costs(terminal, costs, free, lines=lines)
    _check_output(output, plot, append=append)
    with stop_request() as request:
        jobs = bench.jobs(plans, references)
        sink = open_output(
            terminal, bench, jobs, output, None if suite is None else free, lines=lines
        )
        _run(terminal, bench, jobs, sink, request)
    if plot is not None and sink.rows:
        draw_rows(terminal, sink.rows, plot)
    return _end(terminal, sink, output, request, lines=lines)


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


def _plans(terminal: Terminal, asked: "Asked", *, dry_run: bool) -> list["PlannedTask"]:
    """Return what is to be trained: a suite's tasks, or one network at several widths.

    Raises:
        UsageError: options that do not go together.
    """
    from mulo_cli.cli.suite_evaluation import plan_suite, with_data_here
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
    if asked.suite is None:
        return _plain_plans(asked)
    plans = plan_suite(terminal, asked)
    return plans if dry_run else with_data_here(terminal, plans, skip_missing=asked.skip_missing)


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


def _built_in(terminal: Terminal, plans: Sequence["PlannedTask"]) -> tuple[str, ...]:
    """Return the optimizers of the built-in selection, and say that they were chosen."""
    from mulo_cli.results.run_directory import newest_finished_run

    run = newest_finished_run()
    published = all(plan.preset is not None for plan in plans)
    chosen = (*(PUBLISHED if published else BUILT_IN), *([str(run)] if run else []))
    nothing = "" if run else " (there is no finished run in ./runs to set beside them)"
    terminal.info(f"no --optimizer given, comparing {', '.join(chosen)}{nothing}")
    return chosen


def _check_output(output: Path | None, plot: Path | None, *, append: bool) -> None:
    """Stop before anything is computed whose result could not be written."""
    from mulo_cli.errors import UsageError
    from mulo_cli.results.row_file import refuse_existing

    if output is None and append:
        raise UsageError("--append needs a file to append to", "give it with --output FILE")
    if output is not None and not append:
        refuse_existing(output)
    if plot is not None:
        from mulo_cli.results.plots import prepare_plot

        prepare_plot(plot)


def _run(
    terminal: Terminal,
    bench: "Workbench",
    jobs: Sequence["Job"],
    sink: "RowOutput",
    request: "StopRequest",
) -> None:
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


def _end(
    terminal: Terminal,
    sink: "RowOutput",
    output: Path | None,
    request: "StopRequest",
    *,
    lines: bool,
) -> Outcome:
    from mulo_cli.cli.suite_tables import suite_table
    from mulo_cli.cli.tables import evaluation_table

    if sink.rows and not lines:
        if sink.rows[0].suite:
            terminal.result(suite_table(sink.rows))
        for step in () if sink.rows[0].suite else sink.rows[0].at:
            terminal.result(evaluation_table(sink.rows, step))
    if output is not None:
        terminal.info(f"{len(sink.rows)} rows, {sink.fresh} of them new, are in {output}")
    if request():
        how = "the same command with --append" if output else "--output FILE --append"
        terminal.info(f"stopped after {len(sink.rows)} rows; {how} continues where it was")
    return Outcome(exit_code=request.exit_code)
