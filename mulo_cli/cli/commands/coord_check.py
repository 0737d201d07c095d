"""`mulo coord-check`: whether training moves every layer equally far at every width."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mulo_cli.cli.outcome import ExitCode, Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.progress import Display
    from mulo_cli.recipes.references import OptimizerReference
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.results.coordinates import CoordinateCheck, CoordinateRecord
    from mulo_cli.studies.coord_check import CheckPrograms, CoordinateConfig
    from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer

EXAMPLES = """
[bold]Examples[/bold]

mulo coord-check --widths 128..8192

mulo coord-check --optimizer muadam:learning_rate=0.1 --optimizer adamw:learning_rate=0.01

mulo coord-check --optimizer runs/multi-width-mup-desk-seed0 --plot coordinates.png

mulo coord-check --optimizer muadam:learning_rate=0.1 --parametrization sp
"""

BUILT_IN = "muadam:learning_rate=0.1"
"""What is checked when nobody says what to check, besides the newest run. Not with optax's rate of
1e-3: there, Adam's epsilon of 1e-8 shows in the gradients of hidden layers from width 256 on."""

NETWORK = "mlp"

BUILT_IN_DATASET = "synthetic/imagenet32"
"""On which it is checked: the inputs and classes of the papers, on every machine."""


def coord_check(
    widths: Annotated[
        str, typer.Option(help="128,512,2048 or 128..8192 (doubling) or 64..1024:x4.")
    ] = "64..1024",
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]|PATH",
            help="adamw, muadam, sgd with hyper-parameters under optax's names, tuned=FILE, "
            "preset=paper/TASK; a finished run or an artefact. Repeatable.",
            show_default=f"{BUILT_IN} and the newest run",
        ),
    ] = None,
    parametrization: Annotated[
        Literal["mup", "sp"] | None,
        typer.Option(help="Of the networks.", show_default="each optimizer's own"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set: a name, or a file or folder.",
            show_default=f"digits, pydoc for text; without --optimizer and --task "
            f"{BUILT_IN_DATASET}",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Network.", show_default=NETWORK)] = None,
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 3,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Examples per step, and of the probe batch.")
    ] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training, all measured.")] = 10,
    seeds: Annotated[int, typer.Option(help="Networks per optimizer and width, at least 3.")] = 8,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to draw: FILE.png or FILE.svg.")
    ] = None,
    format_: Annotated[
        Literal["table", "jsonl"] | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
) -> Outcome:
    """Check a parametrization: training is to move every layer equally far at every width.

    Trains networks of several widths for a few steps, measures how far each layer's pre-activations
    move, and fits a power of the width. Exit code 0 if every layer is stable, else 1.
    """
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.recipes.references import parse_optimizer, parse_widths
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.results.plots import plot_coordinates, prepare_plot

    terminal, began = Terminal(), time.monotonic()
    asked = list(parse_widths(widths))
    _refuse_too_few(asked, seeds)
    if plot is not None:
        prepare_plot(plot)
    chosen = dataset or _usual_dataset(task, named=bool(optimizer))
    section = TaskSection(chosen, task or NETWORK, asked, depth, batch_size)
    texts = optimizer or _built_in(terminal, chosen)
    references = [_under(parse_optimizer(text), parametrization) for text in texts]
    lines = terminal.piped if format_ is None else format_ == "jsonl"
    with stop_request() as request:
        from mulo_cli.studies.coord_check import CoordinateConfig

        groups = _groups(references, section)
        bench = Bench(terminal, CoordinateConfig(steps, seeds), request, lines)
        checks = _run(bench, groups)
        if plot is not None and len(checks) == len(groups):
            plot_coordinates(checks, plot)
            terminal.info(f"the picture is in {plot}")
    return _end(bench, checks, len(groups), time.monotonic() - began)


@dataclass(frozen=True)
class Bench:
    """What all measurements of one command share.

    Attributes:
        terminal: where they are told.
        config: how networks are trained.
        request: whether somebody wants to stop.
        lines: whether stdout gets JSON lines (else tables at the end).
    """

    terminal: Terminal
    config: "CoordinateConfig"
    request: "StopRequest"
    lines: bool

    def tell(self, record: object) -> None:
        """Write a record, if stdout gets lines."""
        from mulo_cli.results.store import to_line

        if self.lines:
            self.terminal.line(to_line(record))


@dataclass(frozen=True)
class Group:
    """One optimizer, and its task at every width, the narrowest first."""

    optimizer: "NamedOptimizer"
    tasks: tuple["EvaluationTask", ...]


def _refuse_too_few(widths: Sequence[int], seeds: int) -> None:
    from mulo_cli.errors import UsageError
    from mulo_cli.recipes.references import EXAMPLES as SPELLINGS
    from mulo_cli.results.coordinates import MIN_SEEDS, MIN_WIDTHS

    if len(widths) < MIN_WIDTHS:
        raise UsageError(
            f"a slope needs at least {MIN_WIDTHS} widths, --widths names {len(widths)}",
            SPELLINGS["--widths"],
        )
    if seeds < MIN_SEEDS:
        raise UsageError(
            f"--seeds {seeds} is too few: the interval of a slope is taken over seeds",
            f"give at least {MIN_SEEDS}; 8 are the default",
        )


def _usual_dataset(task: str | None, *, named: bool) -> str:
    """Return what is trained on when nothing was said about it."""
    from mulo_cli.assembly.tasks import usual_dataset

    return usual_dataset(task or NETWORK) if named or task else BUILT_IN_DATASET


def _built_in(terminal: Terminal, dataset: str) -> tuple[str, ...]:
    """Return what is checked when nothing was named, and say so."""
    from mulo_cli.results.run_directory import newest_finished_run

    run = newest_finished_run()
    chosen = (BUILT_IN, *([str(run)] if run else []))
    nothing = "" if run else " (there is no finished run in ./runs to check beside it)"
    terminal.info(f"no --optimizer given: checking {', '.join(chosen)}{nothing} on {dataset}")
    return chosen


def _under(reference: "OptimizerReference", parametrization: str | None) -> "OptimizerReference":
    """Return an optimizer under the parametrization that was asked for."""
    from mulo_cli.errors import UsageError

    if parametrization is None:
        return reference
    if reference.parametrization not in (None, parametrization):
        raise UsageError(
            f"optimizer {reference.text!r} contradicts --parametrization {parametrization}",
            "leave one of them away",
        )
    return dataclasses.replace(reference, parametrization=parametrization)


def _groups(references: Sequence["OptimizerReference"], section: "TaskSection") -> list[Group]:
    """Build everything first, so that a wrong word costs no time."""
    from mulo_cli.assembly.datasets import build_dataset
    from mulo_cli.assembly.optimizers import build_named_optimizer
    from mulo_cli.assembly.tasks import build_evaluation_task

    optimizers = [build_named_optimizer(reference) for reference in references]
    loaded = build_dataset(section.dataset)
    return [
        Group(
            one,
            tuple(
                build_evaluation_task(section, loaded, width, one.parametrization)
                for width in section.widths
            ),
        )
        for one in optimizers
    ]


def _run(bench: Bench, groups: Sequence[Group]) -> list["CoordinateCheck"]:
    """Check optimizer after optimizer; return those that were finished."""
    from mulo_cli.cli.progress import PlainDisplay, display
    from mulo_cli.results.coordinates import check_coordinates

    checks: list[CoordinateCheck] = []
    # lines may go to the screen on which a live bar would be drawn
    progress = (PlainDisplay if bench.lines else display)(bench.terminal, "step")
    steps_of_group = len(groups[0].tasks) * bench.config.seeds * bench.config.steps
    progress.start(0, len(groups) * steps_of_group)
    try:
        widest = [_compile_widest(bench, group, progress) for group in groups]
        for number, (group, programs) in enumerate(zip(groups, widest, strict=True)):
            records = _measure(bench, group, programs, progress, number * steps_of_group)
            if bench.request():
                break
            checks.append(check_coordinates(records))
            for conclusion in (*checks[-1].fits, checks[-1].verdict):
                bench.tell(conclusion)
    finally:
        progress.stop()
    return checks


def _compile_widest(bench: Bench, group: Group, progress: "Display") -> "CheckPrograms":
    """Compile the program that needs most memory before anything else, and see whether it fits.

    Raises:
        UsageError: it does not.
    """
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.cli.tables import with_unit
    from mulo_cli.errors import UsageError
    from mulo_cli.studies.coord_check import compile_check

    widest = group.tasks[-1]
    progress.show(0, f"{group.optimizer.name} at width {widest.width}: compiling")
    programs = compile_check(widest, group.optimizer, bench.config)
    free = free_memory()
    if free is not None and programs.memory > free:
        raise UsageError(
            f"{group.optimizer.name} at width {widest.width} needs {with_unit(programs.memory)}B "
            f"of memory, {with_unit(free)}B are free",
            f"give --widths that end below {widest.width}; the need grows with width squared",
        )
    return programs


def _measure(
    bench: Bench, group: Group, widest: "CheckPrograms", progress: "Display", before: int
) -> list["CoordinateRecord"]:
    """Measure one optimizer at every width, or until somebody wants to stop."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.coord_check import Moved, compile_check, measure

    records, config = [], bench.config
    for task in group.tasks:
        where = f"{group.optimizer.name} at width {task.width}"
        progress.show(before, f"{where}: compiling")
        last = task is group.tasks[-1]
        programs = widest if last else compile_check(task, group.optimizer, config)
        for told in measure(task, group.optimizer, programs, config, code_version()):
            if not isinstance(told, Moved):
                records.append(told)
                bench.tell(told)
                continue
            if bench.request():
                return records
            done = told.seed * config.steps + told.step
            finished = done == config.seeds * config.steps
            seed = f"{where}: seed {told.seed + 1} of {config.seeds}, step {told.step}"
            progress.show(before + done, seed, important=finished)
        before += config.seeds * config.steps
    return records


def _end(bench: Bench, checks: Sequence["CoordinateCheck"], wanted: int, seconds: float) -> Outcome:
    """Show the tables, and say in words what failed."""
    from mulo_cli.cli.coordinate_tables import conclusions, coordinate_table
    from mulo_cli.cli.tables import duration

    if not bench.lines:
        for check in checks:
            bench.terminal.result(coordinate_table(check, bench.terminal.out.width))
    if bench.request():
        bench.terminal.info(f"stopped: {len(checks)} of {wanted} optimizers are checked")
        return Outcome(exit_code=bench.request.exit_code)
    told = conclusions(checks, duration(seconds))
    code = ExitCode.DONE if all(check.passed for check in checks) else ExitCode.FAILED
    if not bench.lines:
        return Outcome(told, code)
    for line in told:
        bench.terminal.info(line)
    return Outcome(exit_code=code)
