"""A coordinate check from beginning to end: plan, measure what is missing, judge, tell."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mulo_cli.cli.coordinate_options import BUILT_IN, CheckOptions, Contestant, Expected
from mulo_cli.cli.coordinate_plan import (
    Cell,
    Plan,
    build_plans,
    memory_table,
    needs_of,
    with_kept,
    without_large,
    without_sizes,
)
from mulo_cli.cli.outcome import ExitCode, Outcome
from mulo_cli.cli.shard_option import memory_of_all, mesh_for
from mulo_cli.cli.terminal import ReaderLeft, Terminal
from mulo_cli.errors import MuloError
from mulo_cli.processes import ALONE

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.progress import Display
    from mulo_cli.results.coordinate_records import CoordinateRecord
    from mulo_cli.results.coordinates import CoordinateCheck
    from mulo_cli.results.record_file import RecordFile
    from mulo_cli.studies.coord_check import CoordinateConfig

ROWS = "rows.jsonl"


def check(options: CheckOptions) -> Outcome:
    """Check all that is asked for.

    Raises:
        MuloError: a word that does not fit, not enough memory, nothing can be written ...
    """
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.cli.row_output import own_rows
    from mulo_cli.results.plots import plot_coordinates, prepare_plot

    terminal, began = Terminal(), time.monotonic()
    options.sizes()  # words that contradict each other, before anything is loaded
    if options.plot is not None:
        prepare_plot(options.plot)
    lines = terminal.piped if options.format is None else options.format == "jsonl"
    with stop_request() as request:
        dataset = options.usual_dataset()
        contestants = options.contestants(options.optimizers or _built_in(terminal, dataset))
        path = options.folder(contestants, dataset) / ROWS
        with own_rows(terminal, path, ALONE):
            plans, bench = _prepared(options, contestants, path, terminal, request, lines=lines)
            finished = _run(bench, plans)
        if options.plot is not None and len(finished) == len(plans):
            plot_coordinates([one.check for one in finished], options.plot, options.plot_measure)
            terminal.info(f"the picture is in {options.plot}")
    return _end(bench, finished, options, len(plans), time.monotonic() - began)


@dataclass(frozen=True)
class Finished:
    """A check and what it is for."""

    check: "CoordinateCheck"
    contrast: bool

    def as_expected(self, expect: Expected | None) -> bool:
        """Say whether it ended as it should; a contrast may end anyhow unless that is asked."""
        if expect is None and self.contrast:
            return True
        return self.check.verdict.verdict == (expect or "pass")


class Bench:
    """What all measurements of one command share.

    Args:
        terminal: where they are told.
        config: how networks are trained.
        file: that keeps records.
        request: whether somebody wants to stop.
        mesh: what each network is spread over; None: it is on one device.
        lines: whether stdout gets JSON lines (else tables at the end).
        skip: whether sizes that do not fit into memory are left out.
    """

    def __init__(
        self,
        terminal: Terminal,
        config: "CoordinateConfig",
        file: "RecordFile[CoordinateRecord]",
        request: "StopRequest",
        mesh: "Mesh | None",
        *,
        lines: bool,
        skip: bool,
    ) -> None:
        self.terminal, self.config, self.file, self.request = terminal, config, file, request
        self.mesh, self.lines, self.skip, self._read = mesh, lines, skip, True

    def tell(self, record: object) -> None:
        """Write a record, if stdout gets lines; work goes on without a reader: a file keeps it."""
        from mulo_cli.results.store import to_line

        if not (self.lines and self._read):
            return
        try:
            self.terminal.line(to_line(record))
        except ReaderLeft:
            self._read = False


def _prepared(
    options: CheckOptions,
    contestants: Sequence[Contestant],
    path: Path,
    terminal: Terminal,
    request: "StopRequest",
    *,
    lines: bool,
) -> tuple[list[Plan], Bench]:
    """Build what is to be trained, see what is there and what fits."""
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.studies.coord_check import CoordinateConfig

    mesh = mesh_for(shard=options.shard)
    free = memory_of_all(free_memory(), mesh)
    plans = build_plans(options, contestants, options.usual_dataset())
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        terminal.warning(note)
    config = CoordinateConfig(options.steps)
    kept = None if options.fresh else _opened(terminal, path)
    if kept is not None:
        plans = [with_kept(plan, kept, config) for plan in plans]
    needs = needs_of(plans, config, 1 if mesh is None else mesh.size)
    if any(need.memory is not None for need in needs):
        terminal.err.print(memory_table(needs, options.axis, free))
    plans = without_large(plans, needs, free, options.axis, skip=options.skip_large)
    file = kept if kept is not None else _opened(terminal, path, fresh=True)
    return plans, Bench(terminal, config, file, request, mesh, lines=lines, skip=options.skip_large)


def _opened(
    terminal: Terminal, path: Path, *, fresh: bool = False
) -> "RecordFile[CoordinateRecord]":
    """Open the file of records.

    Args:
        terminal: where it is told that a file was mended.
        path: of the file.
        fresh: let go of what is in it; it must be records all the same.
    """
    from mulo_cli.results.coordinate_records import COORDINATE_RECORDS, coordinate_hash
    from mulo_cli.results.record_file import RecordFile
    from mulo_cli.results.store import replace_text

    file = RecordFile(path, COORDINATE_RECORDS, coordinate_hash)
    if file.mended:
        terminal.warning(f"the last line of {path} was cut off; that network is measured again")
    if not fresh:
        return file
    replace_text(path, "")
    return RecordFile(path, COORDINATE_RECORDS, coordinate_hash)


def _built_in(terminal: Terminal, dataset: str) -> tuple[str, ...]:
    """Return what is checked when nothing was named, and say so."""
    from mulo_cli.results.run_directory import newest_finished_run

    run = newest_finished_run()
    chosen = (BUILT_IN, *([str(run)] if run else []))
    nothing = "" if run else " (there is no finished run in ./runs to check beside it)"
    terminal.info(f"no --optimizer given: checking {', '.join(chosen)}{nothing} on {dataset}")
    return chosen


def _run(bench: Bench, plans: Sequence[Plan]) -> list[Finished]:
    """Check optimizer after optimizer; return those that were finished."""
    from mulo_cli.cli.progress import PlainDisplay, display
    from mulo_cli.results.coordinates import check_coordinates

    finished: list[Finished] = []
    # lines may go to the screen on which a live bar would be drawn
    progress = (PlainDisplay if bench.lines else display)(bench.terminal, "step")
    each = bench.config.steps
    total = sum(each * len(cell.seeds) for plan in plans for cell in plan.cells)
    done = 0
    progress.start(0, total)
    try:
        for plan in plans:
            records: list[CoordinateRecord] = []
            left = plan
            for cell in plan.cells:
                try:
                    records += _measured(bench, plan, cell, progress, done)
                except _TooLarge as error:
                    left = without_sizes(left, {cell.size}, error.message)
                    bench.terminal.warning(f"{error.message}; it is left out")
                if bench.request():
                    return finished
                done += each * len(cell.seeds)
            finished.append(Finished(check_coordinates(records, left.notes), plan.contrast))
            for conclusion in (*finished[-1].check.fits, finished[-1].check.verdict):
                bench.tell(conclusion)
    finally:
        progress.stop()
    return finished


def _measured(
    bench: Bench, plan: Plan, cell: Cell, progress: "Display", before: int
) -> list["CoordinateRecord"]:
    """Return the records of one size: those that are kept, and the others measured now.

    Where somebody wants to stop, those that are finished.

    Raises:
        MuloError: it does not fit into memory; a `_TooLarge` where that is to be left out.
    """
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.coord_check import Moved, compile_check, measure
    from mulo_cli.studies.spread import spread

    records, config = list(cell.kept), bench.config
    where = f"{plan.name} at {plan.axis} {cell.size}"
    task, programs = cell.task, None
    if cell.missing:
        progress.show(before + config.steps * len(records), f"{where}: compiling")
        task = spread(task, bench.mesh)
        programs = compile_check(task, cell.optimizer, config)
        _refuse_large(bench, plan, cell, programs.memory)
    for record in records:
        bench.tell(record)
    if programs is None:
        return records
    before += config.steps * len(cell.kept)
    told = measure(task, cell.optimizer, programs, config, cell.missing, code_version())
    for one in told:
        if not isinstance(one, Moved):
            bench.file.append(one)
            records.append(one)
            bench.tell(one)
            continue
        if bench.request():
            return records
        number = cell.missing.index(one.seed)
        finished = (number + 1, one.step) == (len(cell.missing), config.steps)
        seed = f"{where}: seed {one.seed + 1} of {len(cell.seeds)}, step {one.step}"
        progress.show(before + number * config.steps + one.step, seed, important=finished)
    return records


class _TooLarge(MuloError):
    """A size that does not fit into memory, and is to be left out."""


def _refuse_large(bench: Bench, plan: Plan, cell: Cell, memory: int) -> None:
    """Refuse what does not fit: only the compiler knows exactly what a network needs.

    Raises:
        MuloError: it does not fit; a `_TooLarge` where that is to be left out.
    """
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.cli.tables import with_unit

    free = memory_of_all(free_memory(), bench.mesh)
    if free is None or memory <= free:
        return
    message = (
        f"{plan.name} at {plan.axis} {cell.size} needs {with_unit(memory)}B, now that it is "
        f"compiled; {with_unit(free)}B of memory are free"
    )
    if bench.skip:
        raise _TooLarge(message, f"give --{plan.axis}s that end below {cell.size}")
    raise MuloError(
        message,
        f"what is finished is kept in {bench.file.path}: the same command with --skip-large goes "
        f"on with what fits, or give --{plan.axis}s that end below {cell.size} and --out "
        f"{bench.file.path.parent}",
    )


def _end(
    bench: Bench, finished: Sequence[Finished], options: CheckOptions, wanted: int, seconds: float
) -> Outcome:
    """Show the tables, and say in words what came out."""
    from mulo_cli.cli.coordinate_tables import conclusions, coordinate_report
    from mulo_cli.cli.tables import duration

    terminal, path = bench.terminal, bench.file.path
    if not bench.lines:
        for one in finished:
            for part in coordinate_report(one.check, terminal.out, everything=options.everything):
                terminal.result(part)
    if bench.request():
        terminal.info(
            f"stopped: {len(finished)} of {wanted} optimizers are checked; finished networks are "
            f"kept in {path}, the same command continues"
        )
        return Outcome(exit_code=bench.request.exit_code)
    told = conclusions([one.check for one in finished], duration(seconds), str(path))
    expected = all(one.as_expected(options.expect) for one in finished)
    code = ExitCode.DONE if expected else ExitCode.FAILED
    if not bench.lines:
        return Outcome(told, code)
    for line in told:
        terminal.info(line)
    return Outcome(exit_code=code)
