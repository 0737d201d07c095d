"""The search of a grid: what is missing is trained, the best is shown and written down."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal
from mulo_cli.cli.tuning_options import SearchRequest

if TYPE_CHECKING:
    from mulo_cli.cli.interrupts import StopRequest
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.results.search_file import Facts, SearchFile
    from mulo_cli.results.tuned import Configuration
    from mulo_cli.studies.evaluate import EvaluationTask
    from mulo_cli.studies.seats import Trial

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
    """Search the grid, or go on where an interrupted search was."""
    from mulo_cli.cli.interrupts import stop_request
    from mulo_cli.cli.row_output import RowOutput
    from mulo_cli.results.search_file import SearchFile

    lines = terminal.piped if asked.format is None else asked.format == "jsonl"
    with stop_request() as request:
        search = _prepare(asked)
        sink = RowOutput(terminal, asked.folder / ROWS, lines=lines)
        _run(terminal, search, sink, SearchFile(asked.folder / SEARCH), request)
    if len(sink.rows) < len(search.trials):
        terminal.info(
            f"stopped after {len(sink.rows)} of {len(search.trials)} trainings, kept in "
            f"{asked.folder / ROWS}; the same command continues where it was"
        )
        return Outcome(exit_code=request.exit_code)
    return _finished(terminal, search, sink, lines=lines)


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
    """Train what is not in the file yet, until somebody wants to stop."""
    from mulo_cli.assembly.searches import program_facts
    from mulo_cli.cli.memory import free_memory
    from mulo_cli.cli.progress import display
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import Progress
    from mulo_cli.studies.lane_count import memory_budget
    from mulo_cli.studies.tune import compile_tuning, tune

    config, waiting = search.asked.config, _pass_on_known(search, sink)
    if not waiting:
        return
    before = len(sink.rows) * config.steps
    progress = display(terminal, "step")
    progress.start(before, len(search.trials) * config.steps)
    progress.show(before, "compiling")
    try:
        facts = program_facts(search.task, search.trials, config.steps)
        programs = compile_tuning(
            search.task,
            search.trials,
            config,
            lanes_to_use(terminal, kept, facts, search.asked.lanes),
            memory_budget(free_memory()),
        )
        kept.keep(facts, programs.lanes)
        progress.show(before, f"{programs.lanes} networks in each program")
        with closing(tune(search.task, waiting, config, programs, code_version())) as records:
            for record in records:
                if isinstance(record, Progress):
                    progress.show(before + record.step, _standing(search, sink))
                    if request():  # not between the rows of lanes that ended together
                        return
                else:
                    sink.take(record)
    finally:
        progress.stop()


def _pass_on_known(search: Search, sink: "RowOutput") -> "list[Trial]":
    """Hand on the rows that are in the file already; return the trials that are left."""
    from mulo_cli.results.environment import code_version
    from mulo_cli.studies.evaluate import identity

    waiting = []
    for trial in search.trials:
        told = identity(
            search.task, trial.optimizer, search.asked.config, trial.seed, code_version()
        )
        known = sink.find(told)
        if known is None:
            waiting.append(trial)
        else:
            sink.take(known)
    return waiting


def lanes_to_use(
    terminal: Terminal, kept: "SearchFile", facts: "Facts", asked: int | None
) -> int | None:
    """Return the number of lanes that is asked for, else that of the rows so far, else None."""
    found = kept.find(facts)
    if None not in (found, asked) and found != asked:
        terminal.warning(
            f"rows in {kept.path.parent} come from programs of {found} networks each: with {asked} "
            "the last digits differ"
        )
    if asked is None and found is not None:
        terminal.info(f"{found} networks in a program, as {kept.path} says; --lanes changes it")
    return asked or found


def _standing(search: Search, sink: "RowOutput") -> str:
    """Tell how far a search is, and the best configuration of those that are complete."""
    from mulo_cli.results.tuned import rank_configurations

    told = f"{len(sink.rows)} of {len(search.trials)} trainings done"
    best = next(iter(complete(rank_configurations(sink.rows), search.asked.config.seeds)), None)
    if best is None or best.loss is None:
        return told
    return f"{told}, best so far {best.loss:.4f}: {best.optimizer}"


def complete(ranked: "Sequence[Configuration]", seeds: int) -> "list[Configuration]":
    """Return the configurations that all seeds have been trained with."""
    return [tried for tried in ranked if len(tried.rows) == seeds]


def _finished(terminal: Terminal, search: Search, sink: "RowOutput", *, lines: bool) -> Outcome:
    """Show the best ten, write the best of all, and say what to run next."""
    from mulo_cli.cli.tables import tuning_table
    from mulo_cli.errors import NumericalError
    from mulo_cli.results.records import to_plain
    from mulo_cli.results.store import replace_text
    from mulo_cli.results.tuned import rank_configurations, tuned_from

    grid, path = search.asked.grid, search.asked.folder / BEST
    ranked = rank_configurations(sink.rows)
    if not lines:
        terminal.result(tuning_table(ranked, tuple(grid.values)))
    best = ranked[0]
    if best.loss is None:
        raise NumericalError(
            "every configuration of the grid diverged", "give a grid with lower learning rates"
        )
    border = grid.on_border(best.settings)
    tuned = tuned_from(best, len(ranked), border)
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
