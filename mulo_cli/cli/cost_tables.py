"""What trainings would cost, before they are: a table for people, a line each for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.table import Table
from rich.text import Text

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.tables import OPTIMIZER_WIDTH, with_unit
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.assembly.suites import Job
    from mulo_cli.studies.costs import TrainingCosts

TOO_LARGE = "!"
"""Sign of a training that does not fit into free memory."""


@dataclass(frozen=True)
class CostRow:
    """One optimizer on one task, untrained.

    Attributes:
        suite, suite_task: empty outside of a suite.
        parameters: of one network.
        data_bytes: of the data that rests on the device.
        parameter_bytes, optimizer_bytes, gradient_bytes, activation_bytes, update_bytes: of one
            network; activations with what the backward pass makes, the update with what it makes
            beside new parameters and state.
        network_bytes: these together.
        memory: bytes of the data and of the networks that train in one program.
        free_memory: bytes; null where nobody tells.
        fits: whether the former is not more than the latter.
        flops: floating-point operations of one step of one network.
        training_flops: of all steps of all seeds.
    """

    suite: str
    suite_task: str
    optimizer: str
    task: str
    dataset: str
    width: int
    depth: int
    batch_size: int
    steps: int
    seeds: int
    parameters: int
    data_bytes: int
    parameter_bytes: int
    optimizer_bytes: int
    gradient_bytes: int
    activation_bytes: int
    update_bytes: int
    network_bytes: int
    memory: int
    free_memory: int | None
    fits: bool
    flops: float
    training_flops: float
    kind: Literal["cost"] = "cost"


def tell_costs(
    terminal: Terminal,
    costs: Sequence[tuple["Job", "TrainingCosts"]],
    free: int | None,
    *,
    lines: bool,
) -> Outcome:
    """Show what trainings cost, all of them; end with an error if some do not fit.

    Args:
        terminal: that shows them.
        costs: of the trainings.
        free: bytes of memory, before any data was loaded; None where nobody tells.
        lines: one of JSON for each, instead of a table.

    Raises:
        MuloError: some need more memory than is free.
    """
    from mulo_cli.cli.suite_evaluation import refuse_too_large
    from mulo_cli.results.store import to_line

    rows = [_row(job, cost, free) for job, cost in costs]
    if lines:
        for row in rows:
            terminal.line(to_line(row))
    else:
        terminal.result(cost_table(rows))
        terminal.summary(_in_words(rows))
    refuse_too_large(costs, free)
    return Outcome()


def cost_table(rows: Sequence[CostRow]) -> Table:
    """Return trainings: what their networks and they themselves take."""
    several = len({row.optimizer for row in rows}) > 1
    table = Table(
        title="told from shapes alone; memory: the data and the networks of one program",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("task", no_wrap=True)
    if several:
        table.add_column("optimizer", overflow="fold", min_width=OPTIMIZER_WIDTH)
    headings = (
        "parameters",
        "B per network",
        "data, B",
        "memory, B",
        "FLOP per step",
        "FLOP in all",
    )
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        memory = with_unit(row.memory) + (" " if row.fits else TOO_LARGE)
        numbers = (row.parameters, row.network_bytes, row.data_bytes)
        flops = (row.flops, row.training_flops)
        cells = (*map(with_unit, numbers), memory, *map(with_unit, flops))
        names = (row.suite_task or f"width {row.width}", *([row.optimizer] if several else []))
        table.add_row(*map(Text, (*names, *cells)))
    return table


def _in_words(rows: Sequence[CostRow]) -> list[str]:
    total = sum(row.training_flops for row in rows)
    most = max(rows, key=lambda row: row.memory)
    free = most.free_memory
    lines = [
        f"{len(rows)} trainings of {with_unit(total)}FLOP in all; the one that needs most takes "
        f"{with_unit(most.memory)}B" + ("" if free is None else f", {with_unit(free)}B are free"),
    ]
    if not all(row.fits for row in rows):
        lines.append(f"{TOO_LARGE} more than is free")
    return lines


def _row(job: "Job", cost: "TrainingCosts", free: int | None) -> CostRow:
    return CostRow(
        suite=job.plan.place.suite,
        suite_task=job.plan.place.suite_task,
        optimizer=job.optimizer.name,
        task=job.task.optimizee,
        dataset=job.task.dataset,
        width=job.plan.width,
        depth=job.task.depth,
        batch_size=job.task.batch_size,
        steps=cost.steps,
        seeds=cost.seeds,
        parameters=cost.parameters,
        data_bytes=cost.data_bytes,
        parameter_bytes=cost.parameter_bytes,
        optimizer_bytes=cost.optimizer_bytes,
        gradient_bytes=cost.gradient_bytes,
        activation_bytes=cost.activation_bytes,
        update_bytes=cost.update_bytes,
        network_bytes=cost.network_bytes,
        memory=cost.memory,
        free_memory=free,
        fits=free is None or cost.memory <= free,
        flops=float(cost.flops),
        training_flops=float(cost.training_flops),
    )
