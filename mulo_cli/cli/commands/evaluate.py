"""`mulo evaluate`: train networks with optimizers and see which does best."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.progress import Display
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.recipes.references import OptimizerReference
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask, NamedOptimizer

EXAMPLES = """
[bold]Examples[/bold]

mulo evaluate

mulo evaluate --optimizer runs/multi-width-mup-desk-seed0 --optimizer adamw:learning_rate=1e-2

mulo evaluate --optimizer muadam:tuned=runs/tune-muadam/best.json --widths 64..1024:x4 --seeds 5

mulo evaluate --optimizer adamw --optimizer sgd --output rows.jsonl --append

mulo evaluate --optimizer adamw --optimizer muadam | mulo rank -
"""

BUILT_IN = ("adamw:learning_rate=0.01", "muadam:learning_rate=0.1")
"""What is compared when nobody says what to compare, besides the newest run."""


def evaluate(
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]|PATH",
            help="adamw, muadam, sgd with hyper-parameters under optax's names, tuned=FILE, "
            "preset=paper/TASK, schedule=warmup-cosine, parametrization=mup|sp; a finished run or "
            "an artefact. Repeatable.",
            show_default="a small built-in suite and the newest run",
        ),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Data set.")] = "digits",
    task: Annotated[str, typer.Option(help="Network.")] = "mlp",
    widths: Annotated[
        str, typer.Option(help="128,512 or 16..64 (doubling) or 64..1024:x4.")
    ] = "16..64",
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per step.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 500,
    at: Annotated[
        str | None,
        typer.Option(help="Steps whose smoothed loss is told: 100,300.", show_default="the last"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Networks per optimizer and width.")] = 5,
    window: Annotated[int, typer.Option(min=1, help="Steps whose mean is the smoothed loss.")] = 50,
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
        typer.Option(help="Picture of loss against width and of the curves: FILE.png or .svg."),
    ] = None,
) -> Outcome:
    """Train networks with each optimizer and tell their smoothed training loss.

    On a terminal a table; in a pipe one JSON line per trained network, as soon as it is done. The
    same command with --output and --append continues after an interruption.
    """
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.recipes.references import parse_optimizer, parse_widths
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.studies.evaluate import EvaluationConfig

    terminal = Terminal()
    asked = EvaluationConfig(steps, seeds, window, told_steps(at, steps, window))
    section = TaskSection(dataset, task, list(parse_widths(widths)), depth, batch_size)
    named = dict.fromkeys(optimizer or _built_in(terminal))
    references = [parse_optimizer(text) for text in named]
    _check_output(output, plot, append=append)
    lines = terminal.piped if format_ is None else format_ == "jsonl"
    with stop_request() as request:
        groups = _groups(references, section)
        sink = RowOutput(terminal, output, lines=lines)
        _run(terminal, groups, asked, sink, request)
    if plot is not None and sink.rows:
        from mulo_cli.results.evaluation_plots import plot_evaluation

        plot_evaluation(sink.rows, plot)
    return _end(terminal, sink, output, request, lines=lines)


@dataclass(frozen=True)
class Group:
    """One optimizer at one width: networks of all seeds, trained in one program."""

    optimizer: "NamedOptimizer"
    task: "EvaluationTask"


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


def _built_in(terminal: Terminal) -> tuple[str, ...]:
    """Return the optimizers of the built-in suite, and say that they were chosen."""
    from mulo_cli.results.run_directory import newest_finished_run

    run = newest_finished_run()
    chosen = (*BUILT_IN, *([str(run)] if run else []))
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


def _groups(references: list["OptimizerReference"], section: "TaskSection") -> list[Group]:
    """Build everything first, so that a wrong word costs no time."""
    from mulo_cli.assembly.datasets import build_dataset
    from mulo_cli.assembly.optimizers import build_named_optimizer
    from mulo_cli.assembly.tasks import build_evaluation_task

    optimizers = [build_named_optimizer(reference) for reference in references]
    loaded = build_dataset(section.dataset)
    return [
        Group(one, build_evaluation_task(section, loaded, width, one.parametrization))
        for width in section.widths
        for one in optimizers
    ]


def _run(
    terminal: Terminal,
    groups: list[Group],
    asked: "EvaluationConfig",
    sink: "RowOutput",
    request: "StopRequest",
) -> None:
    from mulo_cli.cli.progress import display
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import identities

    progress = display(terminal, "step")
    progress.start(0, len(groups) * asked.steps)
    try:
        for number, group in enumerate(groups):
            if request():
                return
            wanted = identities(group.task, group.optimizer, asked, code_version())
            known = [sink.find(identity) for identity in wanted]
            if all(known):
                for row in filter(None, known):
                    sink.take(row)
            else:
                _train(group, asked, sink, request, progress, number * asked.steps)
    finally:
        progress.stop()


def _train(
    group: Group,
    asked: "EvaluationConfig",
    sink: "RowOutput",
    request: "StopRequest",
    progress: "Display",
    before: int,
) -> None:
    """Train one group to its end, or until somebody wants to stop."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import Progress, evaluate

    where = f"{group.optimizer.name} at width {group.task.width}"
    progress.show(before, f"{where}: compiling")
    for record in evaluate(group.task, group.optimizer, asked, code_version()):
        if not isinstance(record, Progress):
            sink.take(record)
        elif request():
            return
        else:
            told = f"{where}: step {record.step}, loss {record.loss:.3f}"
            progress.show(before + record.step, told, important=record.step == asked.steps)


def _end(
    terminal: Terminal,
    sink: "RowOutput",
    output: Path | None,
    request: "StopRequest",
    *,
    lines: bool,
) -> Outcome:
    from mulo_cli.cli.tables import evaluation_table

    if sink.rows and not lines:
        for step in sink.rows[0].at:
            terminal.result(evaluation_table(sink.rows, step))
    if output is not None:
        terminal.info(f"{len(sink.rows)} rows, {sink.fresh} of them new, are in {output}")
    if request():
        how = "the same command with --append" if output else "--output FILE --append"
        terminal.info(f"stopped after {len(sink.rows)} rows; {how} continues where it was")
    return Outcome(exit_code=request.exit_code)
