"""What `mulo doctor` found, for people: a line for each check, and what to do below."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mulo_cli.cli.facts import harmless

if TYPE_CHECKING:
    from mulo_cli.assembly.doctor import Check

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor_table(checks: Sequence["Check"]) -> RenderableType:
    """Return checks x (state, what was found, and what to do where it is not ok)."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold")
    for check in checks:
        found = Text(harmless(check.value))
        if check.hint:
            found = Text.assemble(found, "\n", ("hint", "cyan"), f": {harmless(check.hint)}")
        table.add_row(check.name, Text(check.state, style=STYLES[check.state]), found)
    return Group(table, Text())


def in_words(checks: Sequence["Check"]) -> str:
    """Return how many problems and warnings there are."""
    counts = {state: sum(check.state == state for check in checks) for state in STYLES}
    return ", ".join(
        f"{counts[state] or 'no'} {state}{'' if counts[state] == 1 else 's'}"
        for state in ("problem", "warning")
    )
