"""`mulo tune-adam`: AdamW and muAdam baselines, tuned over a grid in one compiled program."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.recipes.grids import Grid
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask
    from mulo_cli.studies.tune import Trial

EXAMPLES = """
[bold]Examples[/bold]

mulo tune-adam --optimizer muadam --width 32

mulo tune-adam --optimizer adamw --width 32 --grid paper --out runs/adamw-paper

mulo evaluate --optimizer adamw:tuned=runs/adamw-paper/best.json
"""

ROWS = "rows.jsonl"
BEST = "best.json"


def tune_adam(
    optimizer: Annotated[Literal["adamw", "muadam"], typer.Option(help="What is tuned.")] = "adamw",
    width: Annotated[int, typer.Option(min=1, help="Of the network it is tuned on.")] = 32,
    grid: Annotated[
        str,
        typer.Option(
            help="small (32 configurations), paper (AdamW 504, muAdam 512), or a TOML file of "
            "lists: learning_rate = \\[1e-3, 1e-2]."
        ),
    ] = "small",
    schedule: Annotated[
        str, typer.Option(help="Of the learning rate: constant or warmup-cosine.")
    ] = "constant",
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set: a name, or a file or folder.", show_default="digits, pydoc for text"
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="Network.")] = "mlp",
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per step.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 500,
    seeds: Annotated[int, typer.Option(min=1, help="Networks per configuration.")] = 1,
    window: Annotated[
        int, typer.Option(min=1, help="Last steps whose mean is the smoothed loss.")
    ] = 50,
    lanes: Annotated[
        int | None,
        typer.Option(min=1, help="Networks side by side.", show_default="up to 64, by memory"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of rows.jsonl and best.json.",
            show_default="runs/tune-OPTIMIZER-TASK-DATASET-wWIDTH",
        ),
    ] = None,
    format_: Annotated[
        Literal["table", "jsonl"] | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
) -> Outcome:
    """Train a network with every configuration of a grid; keep the best.

    The best has the lowest smoothed final training loss. The same command again continues after an
    interruption. On a terminal a table of the best ten; in a pipe one JSON line per training.
    """
    from mulo_cli.assembly.tasks import usual_dataset
    from mulo_cli.cli.commands.evaluate import told_steps
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.recipes.grids import load_grid
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.results.run_directory import RUNS
    from mulo_cli.studies.evaluate import EvaluationConfig

    terminal = Terminal()
    asked = EvaluationConfig(steps, seeds, window, told_steps(None, steps, window))
    values = load_grid(grid, optimizer)
    dataset = dataset or usual_dataset(task)
    section = TaskSection(dataset, task, [width], depth, batch_size)
    folder = out or RUNS / f"tune-{optimizer}-{_file_name(task)}-{_file_name(dataset)}-w{width}"
    lines = terminal.piped if format_ is None else format_ == "jsonl"
    with stop_request() as request:
        search = _search(optimizer, schedule, values, section, asked, lanes)
        sink = RowOutput(terminal, folder / ROWS, lines=lines)
        _run(terminal, search, asked, sink, request)
    if len(sink.rows) < len(search.trials):
        terminal.info(
            f"stopped after {len(sink.rows)} of {len(search.trials)} trainings, kept in "
            f"{folder / ROWS}; the same command continues where it was"
        )
        return Outcome(exit_code=request.exit_code)
    return _finished(terminal, search, sink, folder, lines=lines)


def _file_name(text: str) -> str:
    """Return what a user wrote after --task or --dataset as a part of a folder's name."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-")


@dataclass(frozen=True)
class Search:
    """A grid, ready to be tried.

    Attributes:
        grid: hyper-parameters and their values.
        schedule: of the learning rate.
        trials: every configuration with every seed.
        task: what is trained.
        lanes: networks side by side.
    """

    grid: "Grid"
    schedule: str
    trials: tuple["Trial", ...]
    task: "EvaluationTask"
    lanes: int


def _search(
    optimizer: str,
    schedule: str,
    grid: "Grid",
    section: "TaskSection",
    asked: "EvaluationConfig",
    lanes: int | None,
) -> Search:
    """Build everything first, so that a wrong word costs no time."""
    from mulo_cli.assembly.datasets import build_dataset
    from mulo_cli.assembly.optimizers import build_trials
    from mulo_cli.assembly.tasks import build_evaluation_task
    from mulo_cli.studies.tune import choose_lanes
    from mulo_cli.tasks.base import count_parameters

    trials = build_trials(optimizer, schedule, grid, asked.seeds)
    (width,) = section.widths
    parametrization = trials[0].optimizer.parametrization
    task = build_evaluation_task(section, build_dataset(section.dataset), width, parametrization)
    lanes = lanes or choose_lanes(len(trials), count_parameters(task.task))
    return Search(grid, schedule, trials, task, lanes)


def _run(
    terminal: Terminal,
    search: Search,
    asked: "EvaluationConfig",
    sink: "RowOutput",
    request: "StopRequest",
) -> None:
    """Train what is not in the file yet, until somebody wants to stop."""
    from mulo_cli.cli.progress import display
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import Progress, identity
    from mulo_cli.studies.tune import tune

    waiting = []
    for trial in search.trials:
        told = identity(search.task, trial.optimizer, asked, trial.seed, code_version())
        known = sink.find(told)
        if known is None:
            waiting.append(trial)
        else:
            sink.take(known)
    if not waiting:
        return
    before = len(sink.rows) * asked.steps
    progress = display(terminal, "step")
    progress.start(before, len(search.trials) * asked.steps)
    progress.show(before, f"{search.lanes} networks side by side: compiling")
    try:
        for record in tune(search.task, waiting, asked, search.lanes, code_version()):
            if isinstance(record, Progress):
                told = f"{len(sink.rows)} of {len(search.trials)} trainings done"
                progress.show(before + record.step, told)
            else:
                sink.take(record)
            if request():
                return
    finally:
        progress.stop()


def _finished(
    terminal: Terminal, search: Search, sink: "RowOutput", folder: Path, *, lines: bool
) -> Outcome:
    """Show the best ten, write the best of all, and say what to run next."""
    from mulo_cli.cli.tables import tuning_table
    from mulo_cli.errors import NumericalError
    from mulo_cli.results.records import to_plain
    from mulo_cli.results.store import replace_text
    from mulo_cli.results.tuned import rank_configurations, tuned_from

    ranked = rank_configurations(sink.rows)
    if not lines:
        terminal.result(tuning_table(ranked, tuple(search.grid.values)))
    best = ranked[0]
    if best.loss is None:
        raise NumericalError(
            "every configuration of the grid diverged", "give a grid with lower learning rates"
        )
    border = search.grid.on_border(best.settings)
    tuned = tuned_from(best, len(ranked), border)
    replace_text(folder / BEST, json.dumps(to_plain(tuned), indent=2) + "\n")
    for name in border:
        terminal.warning(
            f"the best {name}, {best.settings[name]:g}, is the first or last of the grid: the true "
            "best may lie beyond"
        )
    summary = (
        f"best of {len(ranked)} configurations: {best.optimizer}, loss {best.loss:.4f}; saved in "
        f"{folder / BEST}; next: mulo evaluate --optimizer {tuned.optimizer}:tuned={folder / BEST}"
    )
    if lines:
        terminal.info(summary)
        return Outcome()
    return Outcome((summary,))
