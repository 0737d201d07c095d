"""`mulo tasks`: which tasks a suite has."""

from typing import Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

EXAMPLES = """
[bold]Examples[/bold]

mulo tasks list

mulo tasks list --suite desk

mulo tasks list --suite my-suite.toml --format jsonl
"""

SUITE = "paper"

tasks = typer.Typer(
    help="List the tasks of a suite.", no_args_is_help=True, rich_markup_mode="rich"
)


@tasks.callback()
def _tasks() -> None:
    """Keep `list` a command of its own: Typer would make an only command the group itself."""


@tasks.command("list", epilog=EXAMPLES)
def list_(
    suite: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="paper, desk, or a TOML file.")
    ] = SUITE,
    format_: Annotated[
        Literal["table", "jsonl"] | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
) -> Outcome:
    """Show the tasks of a suite, and in what they are not as their source prints them."""
    from mulo_cli.cli.suite_tables import tasks_table
    from mulo_cli.recipes.suites import load_suite
    from mulo_cli.results.store import to_line

    terminal = Terminal()
    found = load_suite(suite)
    if format_ == "table" or (format_ is None and not terminal.piped):
        terminal.result(tasks_table(found))
        return Outcome()
    for task in found.tasks:
        terminal.line(to_line(task))
    return Outcome()
