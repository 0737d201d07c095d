"""Rank tables for people, for a README and for a spreadsheet.

The first three of a column have a sign, the best is bold besides.
"""

import csv
import dataclasses
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mulo_cli.results.columns import Axis
from mulo_cli.results.ranking import SATURATED, Ranking, Standing
from mulo_cli.results.records import to_plain
from mulo_cli.results.settings import printable

PLACES = {1: "¹", 2: "²", 3: "³"}
SATURATED_SIGN = "~"
DIVERGED_SIGN = "!"
NOT_RANKED = "-"

COLUMNS: dict[Axis, str] = {
    "size": "column: rank at that width, or size of a suite's tasks, after so many steps, averaged "
    "over tasks (network, data set, depth; in a suite: families)",
    "width": "column: rank at that width, averaged over tasks (network, data set, depth) and steps",
    "depth": "column: rank at that depth, averaged over tasks (network, data set, width) and steps",
    "horizon": "column: rank by the loss after so many steps, averaged over tasks (network, data "
    "set, width, depth)",
}
"""What a column averages over, for the legend."""

NAMES = "optimizer"
"""Heading of the first column."""

BORDERS = 3
"""Characters that a table's column takes beside its text."""

NAME_SHARE = 3
"""Names of optimizers are folded beyond this fraction (one third) of the screen ..."""

NAME_LEAST = 24
"""... or beyond so many characters, whichever is more."""

_MARKUP = re.compile(r"[\\`*|<>\[\]~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown would take for markup; an underscore inside a word is none."""


def rank_table(ranking: Ranking, width: int) -> RenderableType:
    """Return the table; columns that do not fit beside each other go below each other.

    Args:
        ranking: what is shown.
        width: of the screen, in characters.
    """
    names = [printable(row[0].optimizer) for row in ranking.rows]
    cells = [_plain_cells(column) for column in zip(*ranking.rows, strict=True)]
    headings = [standing.column.replace(", ", "\n") for standing in ranking.rows[0]]
    name_width = min(max(map(cell_len, (NAMES, *names))), max(NAME_LEAST, width // NAME_SHARE))
    tables = []
    widths = [
        max(map(len, (*heading.split("\n"), *column)))
        for heading, column in zip(headings, cells, strict=True)
    ]
    room = width - name_width - BORDERS - 1
    for block in _blocks(widths, room):
        table = Table(title=None if tables else title(ranking), title_justify="left")
        table.add_column(NAMES, overflow="fold", max_width=name_width)
        for index in block:
            table.add_column(headings[index], justify="right")
        for name, row, texts in zip(names, ranking.rows, zip(*cells, strict=True), strict=True):
            table.add_row(Text(name), *(_styled(texts[index], row[index]) for index in block))
        tables.append(table)
    lines = (line for text in legend(ranking) for line in textwrap.wrap(text, max(width, 1)))
    return Group(*tables, *map(Text, lines))


def rank_markdown(ranking: Ranking) -> Iterator[str]:
    """Yield the lines of a table to be pasted into a document, and its legend."""
    headings = [standing.column for standing in ranking.rows[0]]
    yield f"| {NAMES} | {' | '.join(headings)} |"
    yield f"|---|{'--:|' * len(headings)}"
    for row in ranking.rows:
        cells = [_markdown_cell(standing) for standing in row]
        yield f"| {_markdown(printable(row[0].optimizer))} | {' | '.join(cells)} |"
    yield ""
    yield "; ".join([title(ranking), *legend(ranking)]) + "."


def rank_csv(ranking: Ranking) -> Iterator[str]:
    """Yield a heading, then one line for each optimizer in each column, without the lines' ends."""
    yield _csv_line([field.name for field in dataclasses.fields(Standing)])
    for standing in standings(ranking):
        values = to_plain(standing)
        values["optimizer"] = printable(standing.optimizer)
        yield _csv_line(values.values())


def standings(ranking: Ranking) -> Iterator[Standing]:
    """Yield every optimizer in every column, an optimizer's columns together."""
    for row in ranking.rows:
        yield from row


def title(ranking: Ranking) -> str:
    """Say what is ranked by what."""
    *columns, average = ranking.rows[0]
    seeds = sorted({column.seeds for column in columns if column.seeds}) or [0]
    means = " to ".join(str(number) for number in dict.fromkeys((seeds[0], seeds[-1])))
    return (
        f"average ranks of {_count(len(ranking.rows), 'optimizer')} in "
        f"{_count(average.tasks, 'task')}, by smoothed training loss "
        f"(mean over {means} seed{'' if seeds[-1] == 1 else 's'})"
    )


def legend(ranking: Ranking) -> list[str]:
    """Explain columns, and those signs that the table has."""
    shown = list(standings(ranking))
    lines = [f"{COLUMNS[ranking.by]}; average: over the columns"]
    lines.append(f"{PLACES[1]} {PLACES[2]} {PLACES[3]} best (bold), second and third of a column")
    if any(one.low is not None for one in shown):
        lines.append(f"[ ] 95 % interval over seeds, bootstrap of {ranking.resamples} resamples")
    if any(one.rank is None for one in shown):
        lines.append(f"{NOT_RANKED} not ranked there, for want of results")
    if any(one.diverged for one in shown):
        lines.append(f"{DIVERGED_SIGN} trainings diverged; in such a task the optimizer is last")
    if any(one.saturated for one in shown):
        lines.append(
            f"{SATURATED_SIGN} losses below {SATURATED} (saturated): ranks among such mean little"
        )
    return lines


def _plain_cells(column: Sequence[Standing]) -> list[str]:
    """Return the texts of a column: rank, signs and interval stand below each other."""
    signs = [_signs(standing) for standing in column]
    longest = max(map(len, signs))
    intervals = [_interval(standing) for standing in column]
    widest = max(map(len, intervals))
    return [
        f"{_rank(standing)} {sign.ljust(longest)} {interval.rjust(widest)}".rstrip(
            "" if widest else " "
        )
        for standing, sign, interval in zip(column, signs, intervals, strict=True)
    ]


def _styled(text: str, standing: Standing) -> Text:
    return Text(text, style="bold" if standing.place == 1 else "")


def _rank(standing: Standing) -> str:
    return NOT_RANKED if standing.rank is None else f"{standing.rank:.2f}"


def _signs(standing: Standing) -> str:
    """Return place, divergence and saturation as signs."""
    return (
        PLACES.get(standing.place or 0, " ")
        + DIVERGED_SIGN * bool(standing.diverged)
        + SATURATED_SIGN * bool(standing.saturated)
    )


def _interval(standing: Standing) -> str:
    if standing.low is None or standing.high is None:
        return ""
    return f"[{standing.low:.1f}, {standing.high:.1f}]"


def _markdown_cell(standing: Standing) -> str:
    rank = f"**{_rank(standing)}**" if standing.place == 1 else _rank(standing)
    parts = (rank, _signs(standing).strip(), _interval(standing))
    return " ".join(part for part in parts if part)


def _markdown(text: str) -> str:
    return _MARKUP.sub(lambda match: "\\" + match[0], text)


def _csv_line(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Return the numbers of columns, in blocks that fit into the room; a block has at least one."""
    blocks: list[list[int]] = [[]]
    left = room
    for index, width in enumerate(widths):
        if blocks[-1] and left < width + BORDERS:
            blocks.append([])
            left = room
        blocks[-1].append(index)
        left -= width + BORDERS
    return blocks


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
