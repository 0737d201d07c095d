"""Tables for people: numbers to the right, units in the heading, the best in bold *and* starred."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from mulo_cli.results.records import EvaluationRow
from mulo_cli.results.tuned import Configuration

if TYPE_CHECKING:
    from mulo_cli.meta_training.budget import Budget

OPTIMIZER_WIDTH = 16
"""Characters of an optimizer's name before numbers are squeezed."""

HOPELESS = 1_000.0
"""Nats; from here on decimals say nothing."""

BEST_SHOWN = 10
"""Configurations of a grid that are shown."""

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


def evaluation_table(rows: Sequence[EvaluationRow], step: int) -> Table:
    """Return optimizers x widths: mean smoothed loss at a step +- standard error over seeds."""
    optimizers = list(dict.fromkeys(row.optimizer for row in rows))
    table = Table(
        title=f"training loss (nats), mean of steps {max(1, step - rows[0].window + 1)}..{step}, "
        "± standard error over seeds; * best",
        title_justify="left",
    )
    table.add_column("optimizer", overflow="fold", min_width=OPTIMIZER_WIDTH)
    cells = []
    for width in sorted({row.width for row in rows}):
        table.add_column(f"width {width}", justify="right")
        losses = [_losses(rows, optimizer, width, step) for optimizer in optimizers]
        best = min((found[0] for of in losses if (found := mean_and_error(of))), default=None)
        cells.append([loss_cell(of, best) for of in losses])
    for name, *of_optimizer in zip(optimizers, *cells, strict=True):
        table.add_row(name, *of_optimizer)
    return table


def mean_and_error(losses: Sequence[float | None]) -> tuple[float, float] | None:
    """Return mean and standard error (population deviation / sqrt n), None if any run diverged."""
    finite = [loss for loss in losses if loss is not None]
    if not finite or len(finite) < len(losses):
        return None
    mean = sum(finite) / len(finite)
    variance = sum((loss - mean) ** 2 for loss in finite) / len(finite)
    return mean, math.sqrt(variance / len(finite))


def _losses(
    rows: Sequence[EvaluationRow], optimizer: str, width: int, step: int
) -> list[float | None]:
    """Return the smoothed losses of one cell, one per seed."""
    return [
        row.smoothed_loss[step] for row in rows if (row.optimizer, row.width) == (optimizer, width)
    ]


def loss_cell(losses: Sequence[float | None], best: float | None) -> Text:
    """Return mean and standard error of some losses, starred if the mean is the best."""
    summary = mean_and_error(losses)
    if summary is None:
        return Text(f"diverged {losses.count(None)}/{len(losses)}" if losses else "-")
    error = f" ± {_short(summary[1])}" if len(losses) > 1 else ""
    text = f"{_short(summary[0])}{error}"
    return Text(f"{text} *", style="bold") if summary[0] == best else Text(f"{text}  ")


def _short(loss: float) -> str:
    """Return three decimals, or three digits of a loss beyond all hope."""
    return f"{loss:.3f}" if loss < HOPELESS else f"{loss:.3g}"


def tuning_table(ranked: Sequence[Configuration], varied: Sequence[str]) -> Table:
    """Return the best configurations of a grid, the best one starred.

    Args:
        ranked: from the best to the worst.
        varied: hyper-parameters that have a column.
    """
    first = ranked[0].rows[0]
    name = first.optimizer.partition(":")[0]
    table = Table(
        title=f"{name}, best {min(BEST_SHOWN, len(ranked))} of {len(ranked)} configurations: "
        f"training loss (nats), mean of the last {first.window} of {first.steps} steps; * best",
        title_justify="left",
    )
    for heading in ("", *varied, "loss"):
        table.add_column(heading, justify="right")
    for place, tried in enumerate(ranked[:BEST_SHOWN], start=1):
        cell = loss_cell([row.final_loss for row in tried.rows], ranked[0].loss)
        table.add_row(str(place), *(f"{tried.settings[key]:g}" for key in varied), cell)
    return table


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
