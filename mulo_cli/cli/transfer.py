"""`mulo tune-adam --transfer`: train every rate at every size, judge how the best one drifts."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mulo_cli.cli.grid_search import ROWS, SEARCH, lanes_to_use
from mulo_cli.cli.outcome import ExitCode, Outcome
from mulo_cli.cli.terminal import ReaderLeft, Terminal
from mulo_cli.cli.tuning_options import TransferRequest

if TYPE_CHECKING:
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.progress import Display
    from mulo_cli.results.search_file import SearchFile
    from mulo_cli.results.transfer import TransferVerdict
    from mulo_cli.results.transfer_records import TransferIdentity, TransferRow
    from mulo_cli.studies.evaluate import EvaluationTask
    from mulo_cli.studies.seats import SeatPrograms, Trial


@dataclass(frozen=True)
class Sized:
    """The trainings of one size under one parametrization.

    Attributes:
        task: of this size.
        trials: every rate with every seed.
        called: what progress says.
    """

    task: "EvaluationTask"
    trials: tuple["Trial", ...]
    called: str


class TransferOutput:
    """Keeps rows in a file and passes them on."""

    def __init__(self, terminal: Terminal, asked: TransferRequest, *, lines: bool) -> None:
        from mulo_cli.results.record_file import RecordFile
        from mulo_cli.results.transfer_records import TRANSFER_ROWS, transfer_hash

        self._terminal, self.lines = terminal, lines
        self._file = RecordFile(asked.folder / ROWS, TRANSFER_ROWS, transfer_hash)
        self.rows: list[TransferRow] = []
        if self._file.mended:
            terminal.warning(
                f"the last line of {self._file.path} was cut off; that row is computed again"
            )

    def take_known(self, identity: "TransferIdentity") -> bool:
        """Pass on a row that is in the file already; say whether there is one."""
        known = self._file.find(identity)
        if known is not None:
            self._pass_on(known)
        return known is not None

    def take(self, row: "TransferRow") -> None:
        """Keep a row that was just measured, and pass it on."""
        self._file.append(row)
        self._pass_on(row)

    def line(self, record: object) -> None:
        """Pass on what is not kept."""
        from mulo_cli.results.store import to_line

        if self.lines:
            try:
                self._terminal.line(to_line(record))
            except ReaderLeft:
                self.lines = False  # the file goes on

    def _pass_on(self, row: "TransferRow") -> None:
        self.rows.append(row)
        self.line(row)


def run_transfer(terminal: Terminal, asked: TransferRequest) -> Outcome:
    """Train what is not in the file yet, judge, show."""
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.results.plots import prepare_plot
    from mulo_cli.results.search_file import SearchFile

    lines = terminal.piped if asked.format is None else asked.format == "jsonl"
    if asked.plot is not None:
        prepare_plot(asked.plot)
    with stop_request() as request:
        sizes = _prepare(asked)
        sink = TransferOutput(terminal, asked, lines=lines)
        _run(terminal, asked, sizes, sink, SearchFile(asked.folder / SEARCH), request)
    total = sum(len(size.trials) for size in sizes)
    if len(sink.rows) < total:
        terminal.info(
            f"stopped after {len(sink.rows)} of {total} trainings, kept in "
            f"{asked.folder / ROWS}; the same command continues where it was"
        )
        return Outcome(exit_code=request.exit_code)
    return _finished(terminal, asked, sink)


def _prepare(asked: TransferRequest) -> list[Sized]:
    """Build everything first, so that a wrong word costs no time."""
    from mulo_cli.assembly.datasets import build_dataset
    from mulo_cli.assembly.searches import build_task_for, build_transfer_trials

    dataset = build_dataset(asked.sections[0].dataset)
    sizes = []
    for parametrization in asked.parametrizations:
        trials = build_transfer_trials(
            asked.optimizer, asked.schedule, asked.grid, asked.seeds, parametrization
        )
        optimizer = trials[0].optimizer
        for section in asked.sections:
            task = build_task_for(optimizer, section, dataset)
            called = f"{optimizer.parametrization}, {asked.axis} {getattr(task, asked.axis)}"
            sizes.append(Sized(task, trials, called))
    return sizes


def _run(
    terminal: Terminal,
    asked: TransferRequest,
    sizes: Sequence[Sized],
    sink: TransferOutput,
    kept: "SearchFile",
    request: "StopRequest",
) -> None:
    """Train what is not in the file yet; what is, of every size, is passed on before that."""
    from mulo_cli.cli.progress import display

    progress = display(terminal, "step")
    steps = asked.config.steps
    waits = [_pass_on_known(asked, size, sink) for size in sizes]
    progress.start(steps * len(sink.rows), steps * sum(len(size.trials) for size in sizes))
    try:
        for size, waiting in zip(sizes, waits, strict=True):
            if waiting:
                progress.show(steps * len(sink.rows), f"{size.called}: compiling")
                programs = _compile(terminal, asked, size, kept)
                _train(asked, size, waiting, programs, sink, progress, request)
            if request():
                return
    finally:
        progress.stop()


def _pass_on_known(asked: TransferRequest, size: Sized, sink: TransferOutput) -> "list[Trial]":
    """Hand on the rows of a size that are in the file already; return the trials that are left."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.transfer import transfer_identity

    return [
        trial
        for trial in size.trials
        if not sink.take_known(transfer_identity(size.task, trial, asked.config, code_version()))
    ]


def _compile(
    terminal: Terminal, asked: TransferRequest, size: Sized, kept: "SearchFile"
) -> "SeatPrograms":
    from mulo_cli.assembly.searches import program_facts
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.studies.lane_count import memory_budget
    from mulo_cli.studies.transfer import compile_transfer

    facts = program_facts(size.task, size.trials, asked.config.steps)
    lanes = lanes_to_use(terminal, kept, facts, asked.lanes)
    budget = memory_budget(free_memory())
    programs = compile_transfer(size.task, size.trials, asked.config, lanes, budget)
    kept.keep(facts, programs.lanes)
    return programs


def _train(
    asked: TransferRequest,
    size: Sized,
    waiting: "Sequence[Trial]",
    programs: "SeatPrograms",
    sink: TransferOutput,
    progress: "Display",
    request: "StopRequest",
) -> None:
    from mulo_cli.results.environment import code_version
    from mulo_cli.results.transfer_records import TransferRow
    from mulo_cli.studies.transfer import measure_transfer

    before = asked.config.steps * len(sink.rows)
    best: tuple[float, float] | None = None
    training = measure_transfer(size.task, waiting, asked.config, programs, code_version())
    with closing(training) as records:
        for record in records:
            if isinstance(record, TransferRow):
                sink.take(record)
                if record.validation_loss is not None:
                    found = (record.validation_loss, record.learning_rate)
                    best = min(found, best or found)
            else:
                told = "" if best is None else f", best so far {best[0]:.4f} at rate {best[1]:g}"
                progress.show(before + record.step, f"{size.called}{told}")
                if request():  # not between the rows of lanes that ended together
                    return


def _finished(terminal: Terminal, asked: TransferRequest, sink: TransferOutput) -> Outcome:
    from mulo_cli.cli.transfer_tables import loss_table, verdict_lines, verdict_table
    from mulo_cli.results.transfer import judge_transfer, sweeps
    from mulo_cli.results.transfer_plots import plot_transfer

    by_measure = {
        measure: sweeps(sink.rows, asked.axis, measure) for measure in ("validation", "training")
    }
    verdicts = {
        measure: [judge_transfer(sweep) for sweep in of] for measure, of in by_measure.items()
    }
    for measure, of in by_measure.items():
        for sweep, verdict in zip(of, verdicts[measure], strict=True):
            sink.line(verdict)
            if not sink.lines:
                terminal.result(loss_table(sweep, terminal.out.width))
    if not sink.lines:
        for verdict in verdicts["validation"]:
            terminal.result(verdict_table(verdict))
    if asked.plot is not None:
        plot_transfer(by_measure["validation"], verdicts["validation"], asked.plot)
        terminal.info(f"picture: {asked.plot}")
    told = tuple(line for verdict in verdicts["validation"] for line in verdict_lines(verdict))
    code = _exit_code(asked, verdicts["validation"])
    if sink.lines:
        for line in told:
            terminal.info(line)
        return Outcome(exit_code=code)
    return Outcome(told, code)


def _exit_code(asked: TransferRequest, verdicts: "Sequence[TransferVerdict]") -> ExitCode:
    """Return failure if some verdict is not the one that was hoped for."""
    if asked.expect is None or all(one.verdict == asked.expect for one in verdicts):
        return ExitCode.DONE
    return ExitCode.FAILED
