"""`mulo evaluate`: train networks with optimizers and see which does best."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.recipes.references import OptimizerReference
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.results.records import EvaluationRow

EXAMPLES = """
[bold]Examples[/bold]

mulo evaluate --optimizer runs/multi-width-mup-desk-seed0 --optimizer adamw:learning_rate=1e-2

mulo evaluate --optimizer muadam:learning_rate=0.03 --widths 64..1024:x4 --seeds 5

mulo evaluate --optimizer adamw > rows.jsonl
"""


def evaluate(
    optimizer: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:KEY=NUMBER,...]|PATH",
            help="adamw, muadam (hyper-parameters under optax's names), a finished run or an "
            "artefact. Repeatable.",
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Data set.")] = "digits",
    task: Annotated[str, typer.Option(help="Network.")] = "mlp",
    widths: Annotated[
        str, typer.Option(help="128,512 or 16..64 (doubling) or 64..1024:x4.")
    ] = "16..64",
    depth: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per step.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 500,
    seeds: Annotated[int, typer.Option(min=1, help="Networks per optimizer and width.")] = 5,
    window: Annotated[
        int, typer.Option(min=1, help="Last steps whose mean is the smoothed loss.")
    ] = 50,
) -> Outcome:
    """Train networks with each optimizer and print their smoothed training loss.

    On a terminal a table; in a pipe one JSON line per trained network, as soon as it is done.
    """
    from mulo_cli.cli.tables import evaluation_table
    from mulo_cli.recipes.references import parse_optimizer, parse_widths
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.results.store import to_line

    references = [parse_optimizer(text) for text in optimizer]
    section = TaskSection(dataset, task, list(parse_widths(widths)), depth, batch_size)
    _refuse_long_window(window, steps)
    terminal, rows = Terminal(), []
    for row in _rows(terminal, references, section, (steps, seeds, window)):
        rows.append(row)
        if terminal.piped:
            terminal.line(to_line(row))
    if not terminal.piped:
        terminal.result(evaluation_table(rows))
    return Outcome()


def _rows(
    terminal: Terminal,
    references: list["OptimizerReference"],
    section: "TaskSection",
    lengths: tuple[int, int, int],
) -> Iterator["EvaluationRow"]:
    """Build every optimizer first, so that a wrong one costs no time; then train."""
    from mulo_cli.assembly import build_dataset, build_evaluation_task, build_named_optimizer
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import EvaluationConfig, evaluate

    config = EvaluationConfig(*lengths)
    named = [build_named_optimizer(reference) for reference in references]
    loaded = build_dataset(section.dataset)
    for width in section.widths:
        for one in named:
            built = build_evaluation_task(section, loaded, width, one.parametrization)
            terminal.info(f"{one.name} at width {width}: {config.seeds} x {config.steps} steps")
            yield from evaluate(built, one, config, code_version())


def _refuse_long_window(window: int, steps: int) -> None:
    from mulo_cli.errors import UsageError

    if window > steps:
        raise UsageError(
            f"--window {window} is longer than --steps {steps}", "lower --window or raise --steps"
        )
