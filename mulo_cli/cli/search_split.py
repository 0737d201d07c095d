"""How the trainings of a search are shared among processes that do not talk to each other.

A work item is a wave: trainings of one seed that fill the lanes of a program. Every process must
count the same waves, and the last digits depend on the number of lanes as well; so the number is
that of `search.json`, where the first process to compile a program writes it down.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mulo_cli.cli.terminal import Terminal
from mulo_cli.processes import Place

if TYPE_CHECKING:
    from mulo_cli.results.search_file import Facts, SearchFile
    from mulo_cli.studies.seats import SeatPrograms, Trial


def own_trials(
    trials: "Sequence[Trial]", lanes: int, place: Place, first: int = 0
) -> "list[Trial]":
    """Return the trials of those waves that belong to a process.

    Args:
        trials: of one program, done or not: what is done already does not matter, because
            processes that start one by one would not agree on that.
        lanes: of the program.
        place: of the process.
        first: number of the first wave.
    """
    from mulo_cli.studies.seats import waves_of

    own = waves_of(trials, lanes)[(place.index - first) % place.count :: place.count]
    return [trial for wave in own for trial in wave]


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


def agreed_programs(
    kept: "SearchFile",
    facts: "Facts",
    lanes: int | None,
    compile_lanes: "Callable[[int | None], SeatPrograms]",
    *,
    insisted: bool,
) -> "SeatPrograms":
    """Compile a program, and write down how many lanes it has.

    Args:
        kept: where it is written down.
        facts: what the program is compiled for.
        lanes: how many; None: as many as fit.
        compile_lanes: compiles that many.
        insisted: whether a user asked for this number. Else, if another process has written down
            another one meanwhile, that one is compiled.
    """
    programs = compile_lanes(lanes)
    agreed = kept.keep(facts, programs.lanes, insisted=insisted)
    return programs if agreed == programs.lanes else compile_lanes(agreed)


def tell_rest(terminal: Terminal, found: int, total: int) -> None:
    """Say how far all processes of a search are, if some training is not in yet."""
    terminal.info(
        f"{found} of {total} trainings are in by now; the others are other processes': of one "
        "that has died, the same command trains them"
    )
