"""Facts for people: names to the left, values to the right; foreign text that no terminal obeys."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from mulo_cli.errors import printable


def fact_columns(told: Iterable[tuple[str, str]]) -> Table:
    """Return two columns; empty values are left out, and a name is not repeated."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    former = ""
    for name, value in told:
        if value:
            table.add_row(Text("" if name == former else name), Text(harmless(value)))
        former = name
    return table


def harmless(text: str) -> str:
    """Return foreign text such that no terminal obeys it."""
    return printable(text, keep="\n")
