"""`mulo tune-adam --transfer`: train every rate at every size, judge how the best one drifts."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mulo_cli.cli.grid_search import ROWS, SEARCH
from mulo_cli.cli.outcome import ExitCode, Outcome
from mulo_cli.cli.place_options import tell_place
from mulo_cli.cli.row_output import named_files, own_rows
from mulo_cli.cli.search_split import agreed_programs, lanes_to_use, own_trials, tell_rest
from mulo_cli.cli.terminal import ReaderLeft, Terminal
from mulo_cli.cli.tuning_options import TransferRequest

if TYPE_CHECKING:
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.progress import Display
    from mulo_cli.results.search_file import Facts, SearchFile
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


@dataclass(frozen=True)
class Share:
    """What one process trains of a size.

    Attributes:
        size: it.
        trials: of the process; alone it has all of them.
        programs: for them, where they had to be compiled to know which they are.
    """

    size: Sized
    trials: "Sequence[Trial]"
    programs: "SeatPrograms | None" = None


class TransferOutput:
    """Keeps rows in a file and passes them on; what other processes keep counts as well."""

    def __init__(self, terminal: Terminal, asked: TransferRequest, *, lines: bool) -> None:
        from mulo_cli.results.record_file import RecordFile
        from mulo_cli.results.split_files import other_files, own_file
        from mulo_cli.results.transfer_records import TRANSFER_ROWS, transfer_hash

        self._terminal, self.lines = terminal, lines
        path, place = asked.folder / ROWS, asked.place
        self._file = RecordFile(
            own_file(path, place), TRANSFER_ROWS, transfer_hash, lambda: other_files(path, place)
        )
        self.rows: list[TransferRow] = []
        if self._file.mended:
            terminal.warning(
                f"the last line of {self._file.path} was cut off; that row is computed again"
            )

    @property
    def where(self) -> str:
        """Name the files that keep rows, for people."""
        return named_files(self._file.path, self._file.beside)

    def found_by_now(self, identities: "Iterable[TransferIdentity]") -> "list[TransferRow]":
        """Return those rows that this process or another one has written by now."""
        self._file.look_again()
        return [row for identity in identities if (row := self._file.find(identity))]

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
    """Train what is not in the file yet, judge, show.

    Of several processes each trains its own share, and the one that finds the rows of all judges.
    """
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.results.plots import prepare_plot
    from mulo_cli.results.search_file import SearchFile

    lines = terminal.piped if asked.format is None else asked.format == "jsonl"
    if asked.plot is not None:
        prepare_plot(asked.plot)
    with stop_request() as request:
        sizes = _prepare(asked)
        with own_rows(terminal, asked.folder / ROWS, asked.place):
            sink = TransferOutput(terminal, asked, lines=lines)
            _run(terminal, asked, sizes, sink, SearchFile(asked.folder / SEARCH), request)
    wanted = [told for size in sizes for told in _identities(asked, size, size.trials)]
    rows = sink.rows if asked.place.count == 1 else sink.found_by_now(wanted)
    if len(rows) == len(wanted):
        return _finished(terminal, asked, rows, sink)
    if request():
        terminal.info(
            f"stopped after {len(sink.rows)} of {len(wanted)} trainings, kept in "
            f"{sink.where}; the same command continues where it was"
        )
    else:
        tell_rest(terminal, len(rows), len(wanted))
    return Outcome(exit_code=request.exit_code)


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
    """Train what is not in the files yet; what is, of every size, is passed on before that."""
    from mulo_cli.cli.progress import display

    steps, shares = asked.config.steps, [Share(size, size.trials) for size in sizes]
    if asked.place.count > 1:
        shares = _own_shares(terminal, asked, sizes, kept)
    waits = [_pass_on_known(asked, share, sink) for share in shares]
    progress = display(terminal, "step")
    progress.start(steps * len(sink.rows), steps * sum(len(share.trials) for share in shares))
    try:
        for share, waiting in zip(shares, waits, strict=True):
            if waiting:
                programs = share.programs
                if programs is None:
                    progress.show(steps * len(sink.rows), f"{share.size.called}: compiling")
                    programs = _compile(terminal, asked, share.size, kept)
                _train(asked, share.size, waiting, programs, sink, progress, request)
            if request():
                return
    finally:
        progress.stop()


def _own_shares(
    terminal: Terminal, asked: TransferRequest, sizes: Sequence[Sized], kept: "SearchFile"
) -> list[Share]:
    """Return the trainings of this process, one of several, and say how many they are.

    Each size begins to count its waves at another process, so that not all of them fall to the
    first ones. Where the lanes of a size are not known yet, its program is compiled.
    """
    from mulo_cli.cli.progress import display

    progress, shares = display(terminal, "size"), []
    progress.start(0, len(sizes))
    try:
        for number, size in enumerate(sizes):
            programs, lanes = None, asked.lanes or kept.find(_facts(asked, size))
            if lanes is None:
                progress.show(number, f"{size.called}: compiling")
                programs = _compile(terminal, asked, size, kept)
                lanes = programs.lanes
            own = own_trials(size.trials, lanes, asked.place, number)
            shares.append(Share(size, own, programs))
    finally:
        progress.stop()
    total = sum(len(size.trials) for size in sizes)
    tell_place(
        terminal, asked.place, sum(len(share.trials) for share in shares), total, "trainings"
    )
    return shares


def _pass_on_known(asked: TransferRequest, share: Share, sink: TransferOutput) -> "list[Trial]":
    """Hand on the rows of a share that are in the files already; return what is left."""
    told = _identities(asked, share.size, share.trials)
    return [
        trial
        for trial, identity in zip(share.trials, told, strict=True)
        if not sink.take_known(identity)
    ]


def _identities(
    asked: TransferRequest, size: Sized, trials: "Sequence[Trial]"
) -> "list[TransferIdentity]":
    """Return what the rows of trials will say of themselves."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.transfer import transfer_identity

    version = code_version()
    return [transfer_identity(size.task, trial, asked.config, version) for trial in trials]


def _facts(asked: TransferRequest, size: Sized) -> "Facts":
    from mulo_cli.assembly.searches import program_facts

    return program_facts(size.task, size.trials, asked.config.steps)


def _compile(
    terminal: Terminal, asked: TransferRequest, size: Sized, kept: "SearchFile"
) -> "SeatPrograms":
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.studies.lane_count import memory_budget
    from mulo_cli.studies.transfer import compile_transfer

    facts = _facts(asked, size)
    lanes = lanes_to_use(terminal, kept, facts, asked.lanes)
    budget = memory_budget(free_memory())

    def compile_lanes(lanes: int | None) -> "SeatPrograms":
        return compile_transfer(size.task, size.trials, asked.config, lanes, budget)

    return agreed_programs(kept, facts, lanes, compile_lanes, insisted=asked.lanes is not None)


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


def _finished(
    terminal: Terminal, asked: TransferRequest, rows: "Sequence[TransferRow]", sink: TransferOutput
) -> Outcome:
    from mulo_cli.cli.transfer_tables import loss_table, verdict_lines, verdict_table
    from mulo_cli.results.transfer import judge_transfer, sweeps
    from mulo_cli.results.transfer_plots import plot_transfer

    by_measure = {
        measure: sweeps(rows, asked.axis, measure) for measure in ("validation", "training")
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
