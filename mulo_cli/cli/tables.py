"""Tables for people: numbers to the right, units in the heading, the best in bold *and* starred."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from mulo_cli.results.records import EvaluationRow

if TYPE_CHECKING:
    from mulo_cli.meta_training.budget import Budget

UNITS = ("", " k", " M", " G", " T", " P", " E")


def with_unit(number: int | float) -> str:
    """Return a large number in three digits: 1234567 is `1.23 M`."""
    power = min(int(math.log10(number) // 3), len(UNITS) - 1) if number >= 1 else 0
    return f"{number / 1000**power:.3g}{UNITS[power]}"


def facts_table(facts: Mapping[str, str]) -> Table:
    """Return two columns: what, how much."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def evaluation_table(rows: Sequence[EvaluationRow]) -> Table:
    """Return optimizers x widths: mean smoothed loss +- standard error over seeds."""
    widths = sorted({row.width for row in rows})
    optimizers = list(dict.fromkeys(row.optimizer for row in rows))
    cells = {
        (optimizer, width): [
            row for row in rows if row.optimizer == optimizer and row.width == width
        ]
        for optimizer in optimizers
        for width in widths
    }
    best = {width: _best([cells[name, width] for name in optimizers]) for width in widths}
    first = rows[0]
    table = Table(
        title=f"training loss (nats), mean of steps {first.steps - first.window + 1}"
        f"..{first.steps}, ± standard error over seeds; * best",
        title_justify="left",
    )
    table.add_column("optimizer", overflow="fold")
    for width in widths:
        table.add_column(f"width {width}", justify="right")
    for name in optimizers:
        table.add_row(name, *(_loss_cell(cells[name, width], best[width]) for width in widths))
    return table


def mean_and_error(rows: Sequence[EvaluationRow]) -> tuple[float, float] | None:
    """Return mean and standard error (population deviation / sqrt n), None if any run diverged."""
    losses = [row.smoothed_loss for row in rows if row.smoothed_loss is not None]
    if not losses or len(losses) < len(rows):
        return None
    mean = sum(losses) / len(losses)
    variance = sum((loss - mean) ** 2 for loss in losses) / len(losses)
    return mean, math.sqrt(variance / len(losses))


def _best(groups: Sequence[Sequence[EvaluationRow]]) -> float | None:
    means = [summary[0] for rows in groups if (summary := mean_and_error(rows))]
    return min(means, default=None)


def _loss_cell(rows: Sequence[EvaluationRow], best: float | None) -> Text:
    summary = mean_and_error(rows)
    if summary is None:
        diverged = sum(row.status == "diverged" for row in rows)
        return Text(f"diverged {diverged}/{len(rows)}" if rows else "-")
    text = f"{summary[0]:.4f} ± {summary[1]:.4f}"
    return Text(f"{text} *", style="bold") if summary[0] == best else Text(f"{text}  ")


def budget_facts(budget: "Budget", seconds: float) -> dict[str, str]:
    """Return the budget of a meta-training in words and units."""
    per_task = {
        f"{task.name}": f"{with_unit(task.parameters)} parameters, "
        f"{with_unit(task.flops)}FLOP per inner step"
        for task in budget.tasks
    }
    total = budget.meta_training_flops + budget.validation_flops
    return {
        "meta-parameters": f"{budget.meta_parameters}",
        **per_task,
        "inner steps, all runs": with_unit(budget.inner_steps),
        "meta-training": f"{with_unit(budget.meta_training_flops)}FLOP",
        "meta-validation": f"{with_unit(budget.validation_flops)}FLOP",
        "together": f"{with_unit(total)}FLOP",
        "state of all runs": f"{with_unit(budget.state_bytes)}B",
        "data as stored": f"{with_unit(budget.data_bytes)}B",
        "estimated time (rough, without compilation)": duration(seconds),
    }


def duration(seconds: int | float) -> str:
    """Return a length of time in the unit people would use."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
