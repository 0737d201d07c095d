"""Tables of suites: their tasks, and how optimizers did on them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mulo_cli.cli.tables import OPTIMIZER_WIDTH, loss_cell, mean_and_error
from mulo_cli.results.records import EvaluationRow
from mulo_cli.results.settings import printable

if TYPE_CHECKING:
    from mulo_cli.recipes.suites import Suite

PRINTED_WIDTH = 18
"""Characters of an identifier as the papers print it, before it is folded."""


def tasks_table(suite: "Suite") -> RenderableType:
    """Return the tasks of a suite, and in what they are not as their source prints them."""
    table = Table(
        title=printable(f"{suite.name}: {suite.description}"),
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("task", no_wrap=True)
    table.add_column("printed as", overflow="fold", min_width=PRINTED_WIDTH)
    for heading in ("not as\nprinted", "network", "data set"):
        table.add_column(heading, overflow="fold")
    for heading in ("depth", "width", "batch", "steps"):
        table.add_column(heading, justify="right")
    table.add_column("size")
    for task in suite.tasks:
        notes = " ".join(f"[{suite.deviations.index(one) + 1}]" for one in task.deviations)
        words = (task.name, task.identifier, notes, task.network, task.dataset)
        numbers = (task.depth, task.width, task.batch_size, task.steps)
        cells = (*map(printable, words), *map(str, numbers), ", ".join(task.sizes))
        table.add_row(*map(Text, cells))
    notes = [f"[{number}] {text}" for number, text in enumerate(suite.deviations, start=1)]
    seeds = f"{suite.seeds} seed{'s' if suite.seeds != 1 else ''}"
    told = f"{seeds}; smoothed losses are means of {suite.window} steps; {suite.source}"
    return Group(table, *(Text(printable(line)) for line in (told, *notes)))


def suite_table(rows: Sequence[EvaluationRow]) -> Table:
    """Return tasks x optimizers: mean smoothed loss at the end +- standard error over seeds."""
    table = Table(
        title=f"training loss (nats), mean of the last {rows[0].window} steps, "
        "± standard error over seeds; * best",
        title_justify="left",
    )
    table.add_column("task", overflow="fold")
    table.add_column("size")
    table.add_column("step", justify="right")
    optimizers = list(dict.fromkeys(row.optimizer for row in rows))
    for name in optimizers:
        table.add_column(Text(printable(name)), justify="right", min_width=OPTIMIZER_WIDTH)
    for task in dict.fromkeys(row.suite_task for row in rows):
        of_task = [row for row in rows if row.suite_task == task]
        losses = [[r.final_loss for r in of_task if r.optimizer == name] for name in optimizers]
        best = min((found[0] for of in losses if (found := mean_and_error(of))), default=None)
        first = of_task[0]
        cells = (loss_cell(of, best) for of in losses)
        table.add_row(Text(task), ", ".join(first.sizes), str(first.at[-1]), *cells)
    return table
