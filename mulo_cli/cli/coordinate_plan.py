"""What a coordinate check will train: built, and its memory told, before anything is trained."""

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from mulo_cli.cli.coordinate_options import DEPTH, WIDTH, CheckOptions, Contestant
from mulo_cli.cli.tables import OPTIMIZER_WIDTH, with_unit
from mulo_cli.errors import MuloError

if TYPE_CHECKING:
    from mulo_cli.results.coordinate_fits import Axis
    from mulo_cli.results.coordinate_records import CoordinateRecord
    from mulo_cli.results.record_file import RecordFile
    from mulo_cli.studies.coord_check import CoordinateConfig
    from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer

TOO_LARGE = "!"
"""Sign of what does not fit into free memory."""


@dataclass(frozen=True)
class Cell:
    """One size of one check.

    Attributes:
        size: width, or depth.
        task: of that size.
        optimizer: for that width.
        seeds: all that are asked for.
        kept: records that are there already.
    """

    size: int
    task: "EvaluationTask"
    optimizer: "NamedOptimizer"
    seeds: tuple[int, ...]
    kept: tuple["CoordinateRecord", ...]

    @property
    def missing(self) -> tuple[int, ...]:
        """Seeds that have to be measured."""
        there = {record.seed for record in self.kept}
        return tuple(seed for seed in self.seeds if seed not in there)


@dataclass(frozen=True)
class Plan:
    """One check: an optimizer on networks of several sizes, the smallest first."""

    name: str
    axis: "Axis"
    contrast: bool
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()


def build_plans(
    options: CheckOptions, contestants: Sequence[Contestant], dataset: str
) -> list[Plan]:
    """Build everything first, so that a wrong word costs no time.

    Raises:
        MuloError: a word that does not fit, or the user's own code fails.
    """
    from mulo_cli.assembly.coordinates import (
        build_coordinate_optimizer,
        build_coordinate_task,
        with_equal_heads,
    )
    from mulo_cli.assembly.datasets import build_dataset
    from mulo_cli.recipes.references import is_user_function
    from mulo_cli.recipes.schema import TaskSection

    sizes, by_width = options.sizes(), options.axis == "width"
    width, own = options.width or WIDTH, is_user_function(options.optimizee)
    widths = list(sizes) if by_width else [width]
    section = TaskSection(
        dataset, options.optimizee, widths, options.depth or DEPTH, options.batch_size
    )
    optimizers = [  # words first: data may take long to load
        [build_coordinate_optimizer(one.optimizer, at, one.parametrization) for at in widths]
        for one in contestants
    ]
    loaded = build_dataset(dataset)
    plans = []
    for contestant, made in zip(contestants, optimizers, strict=True):
        cells = []
        network = options.optimizee
        if by_width:
            network = with_equal_heads(network, widths, made[0].network)
        sized = dataclasses.replace(section, optimizee=network)
        for place, size in enumerate(sizes):
            optimizer = made[place if by_width else 0]
            task = build_coordinate_task(
                sized,
                loaded,
                size if by_width else width,
                (options.depth if own else section.depth) if by_width else size,
                optimizer.parametrization,
                readout=options.readout,
                asked=optimizer.network,
            )
            cells.append(Cell(size, task, optimizer, tuple(range(options.seeds)), ()))
        name = f"{contestant.optimizer} ({cells[0].optimizer.parametrization})"
        assumed = [note for cell in cells for note in cell.task.notes]
        if network != options.optimizee:
            assumed.append(f"attention heads grow in size, not in number: {network} at every width")
        notes = tuple(dict.fromkeys(assumed))
        plans.append(Plan(name, options.axis, contestant.contrast, tuple(cells), notes))
    return plans


def with_kept(plan: Plan, file: "RecordFile[CoordinateRecord]", config: "CoordinateConfig") -> Plan:
    """Return a plan that knows what has been measured already."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.coord_check import identity

    def known(cell: Cell) -> Cell:
        wanted = [
            identity(cell.task, cell.optimizer, config, seed, code_version()) for seed in cell.seeds
        ]
        kept = tuple(record for one in wanted if (record := file.find(one)))
        return dataclasses.replace(cell, kept=kept)

    return dataclasses.replace(plan, cells=tuple(map(known, plan.cells)))


@dataclass(frozen=True)
class Need:
    """What one size of one check needs; None: nothing, it has been measured."""

    plan: Plan
    cell: Cell
    memory: int | None


def needs_of(plans: Sequence[Plan], config: "CoordinateConfig", devices: int) -> list[Need]:
    """Tell the memory that every size needs on so many devices together, from shapes alone."""
    from mulo_cli.studies.coord_check import estimate_memory

    return [
        Need(
            plan,
            cell,
            estimate_memory(cell.task, cell.optimizer, config, devices) if cell.missing else None,
        )
        for plan in plans
        for cell in plan.cells
    ]


def memory_table(needs: Sequence[Need], axis: str, free: int | None) -> Table:
    """Return sizes x checks: bytes in use at once, from shapes alone."""
    plans = list(dict.fromkeys(need.plan.name for need in needs))
    table = Table(
        title="memory of one network in training, B"
        + ("" if free is None else f" ({with_unit(free)}B are free; {TOO_LARGE} more than that)"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column(axis, justify="right")
    for name in plans:
        table.add_column(name, justify="right", overflow="fold", min_width=OPTIMIZER_WIDTH)
    for size in dict.fromkeys(need.cell.size for need in needs):
        cells = [
            _memory_in_words(need, free)
            for name in plans
            for need in needs
            if (need.plan.name, need.cell.size) == (name, size)
        ]
        table.add_row(str(size), *cells)
    return table


def _memory_in_words(need: Need, free: int | None) -> str:
    if need.memory is None:
        return "measured"
    return with_unit(need.memory) + (TOO_LARGE if _beyond(need, free) else " ")


def _beyond(need: Need, free: int | None) -> bool:
    return free is not None and need.memory is not None and need.memory > free


def without_large(
    plans: Sequence[Plan], needs: Sequence[Need], free: int | None, axis: str, *, skip: bool
) -> list[Plan]:
    """Return plans of what fits into memory.

    Args:
        plans: all.
        needs: of their sizes.
        free: bytes; None where nobody tells.
        axis: what the sizes are.
        skip: leave out what does not fit (else that is an error).

    Raises:
        MuloError: something does not fit and is not to be skipped, or too little is left.
    """
    beyond = [need for need in needs if _beyond(need, free)]
    if not beyond or free is None:
        return list(plans)
    smallest = min(need.cell.size for need in beyond)
    told = "; ".join(
        f"{need.plan.name} at {axis} {need.cell.size} needs {with_unit(need.memory or 0)}B"
        for need in beyond
    )
    message = f"{told}; {with_unit(free)}B of memory are free"
    if not skip:
        raise MuloError(
            message, f"give --{axis}s that end below {smallest}, or --skip-large; nothing is lost"
        )
    return [
        without_sizes(plan, {need.cell.size for need in beyond if need.plan is plan}, message)
        for plan in plans
    ]


def without_sizes(plan: Plan, large: Set[int], message: str) -> Plan:
    """Return a plan without sizes that do not fit, with a note that tells them.

    Raises:
        MuloError: too little is left; begins with the message.
    """
    from mulo_cli.results.coordinate_fits import MIN_SIZES

    if not large:
        return plan
    cells = tuple(cell for cell in plan.cells if cell.size not in large)
    if len(cells) < MIN_SIZES:
        raise MuloError(
            f"{message}: fewer than {MIN_SIZES} {plan.axis}s are left of {plan.name}",
            f"add smaller --{plan.axis}s",
        )
    sizes = ", ".join(map(str, sorted(large)))
    note = f"left out because of memory: {plan.axis} {sizes}"
    return dataclasses.replace(plan, cells=cells, notes=(*plan.notes, note))
