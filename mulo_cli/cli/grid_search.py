"""The search of a grid: what is missing is trained, the best is shown and written down."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.place_options import tell_place
from mulo_cli.cli.search_split import (
    agreed_programs,
    lanes_to_use,
    own_trials,
    tell_rest,
)
from mulo_cli.cli.terminal import Terminal
from mulo_cli.cli.tuning_options import SearchRequest

if TYPE_CHECKING:
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.progress import Display
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.results.records import EvaluationIdentity, EvaluationRow
    from mulo_cli.results.search_file import Facts, SearchFile
    from mulo_cli.results.tuned import Configuration
    from mulo_cli.studies.evaluate import EvaluationTask
    from mulo_cli.studies.seats import SeatPrograms, Trial

ROWS = "rows.jsonl"
BEST = "best.json"
SEARCH = "search.json"


@dataclass(frozen=True)
class Search:
    """A grid, ready to be tried.

    Attributes:
        asked: what was asked for.
        trials: every configuration with every seed.
        task: what is trained.
    """

    asked: SearchRequest
    trials: tuple["Trial", ...]
    task: "EvaluationTask"


def run_grid_search(terminal: Terminal, asked: SearchRequest) -> Outcome:
    """Search the grid, or go on where an interrupted search was.

    Of several processes each trains its own share, and the one that finds the rows of all shows
    and writes down the best.
    """
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.cli.row_output import RowOutput, own_rows
    from mulo_cli.results.search_file import SearchFile

    lines = terminal.piped if asked.format is None else asked.format == "jsonl"
    path, place = asked.folder / ROWS, asked.place
    with stop_request() as request:
        search = _prepare(asked)
        with own_rows(terminal, path, place):
            sink = RowOutput(terminal, path, lines=lines, place=place)
            _run(terminal, search, sink, SearchFile(asked.folder / SEARCH), request)
    rows = sink.rows if place.count == 1 else sink.found_by_now(_identities(search, search.trials))
    if len(rows) == len(search.trials):
        return _finished(terminal, search, rows, lines=lines)
    if request():
        terminal.info(
            f"stopped after {len(sink.rows)} of {len(search.trials)} trainings, kept in "
            f"{sink.where}; the same command continues where it was"
        )
    else:
        tell_rest(terminal, len(rows), len(search.trials))
    return Outcome(exit_code=request.exit_code)


def _prepare(asked: SearchRequest) -> Search:
    """Build everything first, so that a wrong word costs no time."""
    from mulo_cli.assembly.searches import build_task_for, build_trials

    trials = build_trials(
        asked.optimizer, asked.schedule, asked.grid, asked.config.seeds, asked.parametrization
    )
    return Search(asked, trials, build_task_for(trials[0].optimizer, asked.section))


def _run(
    terminal: Terminal,
    search: Search,
    sink: "RowOutput",
    kept: "SearchFile",
    request: "StopRequest",
) -> None:
    """Train what is this process' and not in the files yet, until somebody wants to stop."""
    from mulo_cli.cli.progress import display

    programs, own = None, search.trials
    if search.asked.place.count > 1:
        programs, own = _own_share(terminal, search, kept)
    waiting = _pass_on_known(search, own, sink)
    if not waiting:
        return
    before, steps = len(sink.rows), search.asked.config.steps
    progress = display(terminal, "step")
    progress.start(before * steps, len(own) * steps)
    try:
        if programs is None:
            progress.show(before * steps, "compiling")
            programs = _compile(terminal, search, kept)
        progress.show(before * steps, f"{programs.lanes} networks in each program")
        _train(search, len(own), waiting, programs, sink, progress, request)
    finally:
        progress.stop()


def _own_share(
    terminal: Terminal, search: Search, kept: "SearchFile"
) -> "tuple[SeatPrograms | None, Sequence[Trial]]":
    """Return the trainings of this process, one of several, and say how many they are.

    Which they are depends on the lanes of a program; where these are not known yet, it is compiled.
    """
    from mulo_cli.cli.progress import display

    place, trials, programs = search.asked.place, search.trials, None
    lanes = search.asked.lanes or kept.find(_facts(search))
    if lanes is None:
        progress = display(terminal, "step")
        progress.start(0, len(trials) * search.asked.config.steps)
        progress.show(0, "compiling")
        try:
            programs = _compile(terminal, search, kept)
        finally:
            progress.stop()
        lanes = programs.lanes
    own = own_trials(trials, lanes, place)
    tell_place(terminal, place, len(own), len(trials), "trainings")
    return programs, own


def _compile(terminal: Terminal, search: Search, kept: "SearchFile") -> "SeatPrograms":
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.studies.lane_count import memory_budget
    from mulo_cli.studies.tune import compile_tuning

    asked, facts = search.asked.lanes, _facts(search)
    lanes = lanes_to_use(terminal, kept, facts, asked)
    budget = memory_budget(free_memory())

    def compile_lanes(lanes: int | None) -> "SeatPrograms":
        return compile_tuning(search.task, search.trials, search.asked.config, lanes, budget)

    return agreed_programs(kept, facts, lanes, compile_lanes, insisted=asked is not None)


def _facts(search: Search) -> "Facts":
    from mulo_cli.assembly.searches import program_facts

    return program_facts(search.task, search.trials, search.asked.config.steps)


def _train(
    search: Search,
    own: int,
    waiting: "Sequence[Trial]",
    programs: "SeatPrograms",
    sink: "RowOutput",
    progress: "Display",
    request: "StopRequest",
) -> None:
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import Progress
    from mulo_cli.studies.tune import tune

    config = search.asked.config
    before = len(sink.rows) * config.steps
    with closing(tune(search.task, waiting, config, programs, code_version())) as records:
        for record in records:
            if isinstance(record, Progress):
                progress.show(before + record.step, _standing(search, own, sink))
                if request():  # not between the rows of lanes that ended together
                    return
            else:
                sink.take(record)


def _pass_on_known(search: Search, trials: "Sequence[Trial]", sink: "RowOutput") -> "list[Trial]":
    """Hand on the rows that are in the files already; return the trials that are left."""
    waiting = []
    for trial, told in zip(trials, _identities(search, trials), strict=True):
        known = sink.find(told)
        if known is None:
            waiting.append(trial)
        else:
            sink.take(known)
    return waiting


def _identities(search: Search, trials: "Sequence[Trial]") -> "list[EvaluationIdentity]":
    """Return what the rows of trials will say of themselves."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import identity

    config, version = search.asked.config, code_version()
    return [identity(search.task, trial.optimizer, config, trial.seed, version) for trial in trials]


def _standing(search: Search, own: int, sink: "RowOutput") -> str:
    """Tell how far a search is, and the best configuration of those that are complete."""
    from mulo_cli.results.tuned import rank_configurations

    told = f"{len(sink.rows)} of {own} trainings done"
    best = next(iter(complete(rank_configurations(sink.rows), search.asked.config.seeds)), None)
    if best is None or best.loss is None:
        return told
    return f"{told}, best so far {best.loss:.4f}: {best.optimizer}"


def complete(ranked: "Sequence[Configuration]", seeds: int) -> "list[Configuration]":
    """Return the configurations that all seeds have been trained with."""
    return [tried for tried in ranked if len(tried.rows) == seeds]


def _finished(
    terminal: Terminal, search: Search, rows: "Sequence[EvaluationRow]", *, lines: bool
) -> Outcome:
    """Show the best ten, write the best of all, and say what to run next."""
    from mulo_cli.cli.tables import tuning_table
    from mulo_cli.errors import NumericalError
    from mulo_cli.results.records import to_plain
    from mulo_cli.results.store import replace_text
    from mulo_cli.results.tuned import rank_configurations, tuned_from
    from mulo_cli.results.turns import in_turn

    grid, path = search.asked.grid, search.asked.folder / BEST
    ranked = rank_configurations(rows)
    if not lines:
        terminal.result(tuning_table(ranked, tuple(grid.values)))
    best = ranked[0]
    if best.loss is None:
        raise NumericalError(
            "every configuration of the grid diverged", "give a grid with lower learning rates"
        )
    border = grid.on_border(best.settings)
    tuned = tuned_from(best, len(ranked), border)
    with in_turn(path):  # two processes may have found everything complete
        replace_text(path, json.dumps(to_plain(tuned), indent=2) + "\n")
    for name in border:
        terminal.warning(
            f"the best {name}, {best.settings[name]:g}, is the first or last of the grid: the true "
            "best may lie beyond"
        )
    summary = (
        f"best of {len(ranked)} configurations: {best.optimizer}, loss {best.loss:.4f}; saved in "
        f"{path}; next: mulo evaluate --optimizer {tuned.optimizer}:tuned={path}"
    )
    if lines:
        terminal.info(summary)
        return Outcome()
    return Outcome((summary,))
