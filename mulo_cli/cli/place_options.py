"""The options by which a process is told that it is one of several, written once for all commands.

They are handed to `mulo_cli.processes.place_of`, which knows what launchers tell as well.
"""

from typing import Annotated, TypeAlias

import typer

from mulo_cli.cli.terminal import Terminal
from mulo_cli.processes import Place

ProcessId: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--process-id",
        min=0,
        metavar="I",
        help="Which of several processes this one is, from 0.",
        show_default="as Slurm, Open MPI, a TPU pod or Kubernetes says",
    ),
]

NumProcesses: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        metavar="N",
        help="How many processes share the work.",
        show_default="likewise",
    ),
]

Alone: TypeAlias = Annotated[
    bool,
    typer.Option("--alone", help="Do everything here, whatever Slurm and the others say."),
]


def tell_place(terminal: Terminal, place: Place, own: int, total: int, what: str) -> None:
    """Say which process this is, who says so, and what it does."""
    said = "" if place.told_by == "options" else f", says {place.told_by} (--alone does everything)"
    terminal.info(
        f"process {place.index} of {place.count}{said}: {own} of {total} {what} "
        f"{'is' if own == 1 else 'are'} its own"
    )
