"""`mulo doctor`: whether this machine can do what mulo wants of it."""

from typing import Annotated, Literal

import typer

from mulo_cli.cli.outcome import ExitCode, Outcome
from mulo_cli.cli.terminal import Terminal

EXAMPLES = """
[bold]Examples[/bold]

mulo doctor

mulo doctor --format jsonl

srun -n 4 mulo doctor
"""


def doctor(
    format_: Annotated[
        Literal["table", "jsonl"] | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
) -> Outcome:
    """Look whether all is well: versions, devices, memory, data, folders, processes, computing.

    Exit code 1 if there is a problem; warnings tell what works and could be better.
    """
    from mulo_cli.assembly.doctor import examine
    from mulo_cli.cli.doctor_table import doctor_table, in_words
    from mulo_cli.results.store import to_line

    terminal = Terminal()
    found = []
    lines = terminal.piped if format_ is None else format_ == "jsonl"
    for check in examine():
        found.append(check)
        if lines:
            terminal.line(to_line(check))
    failed = any(check.state == "problem" for check in found)
    code = ExitCode.FAILED if failed else ExitCode.DONE
    if lines:
        terminal.info(in_words(found))
        return Outcome(exit_code=code)
    terminal.result(doctor_table(found))
    return Outcome((in_words(found),), code)
