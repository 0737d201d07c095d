"""The roles of a network for people: one table, and the remarks below it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mulo_cli.mup.descriptions import RoleRow

NOTHING = "-"

SIGN = "!"
"""Stands beside the scales of a leaf that has a remark."""

LEAF_WIDTH = 18
"""Characters of a leaf's name before it is broken."""

GAP = 3
"""Characters between columns."""

DROPPED = ("fan-out", "shape", "axes", "1/fan-in\nacts in")
"""Columns that a narrow screen does without, in this order."""


def role_table(
    rows: Sequence["RoleRow"], widths: tuple[int, int], called: str, screen: int
) -> Table:
    """Return leaves x what muP makes of them.

    Args:
        rows: of the leaves.
        widths: at which shapes and scales were compared; shapes and fans are the larger one's.
        called: the network's name.
        screen: characters of a line; columns that do not fit are left out.
    """
    cells = {heading: [cell(row) for row in rows] for heading, cell in _columns(widths).items()}
    for heading in DROPPED:
        if LEAF_WIDTH + GAP + sum(_widest(*column) + GAP for column in cells.items()) <= screen:
            break
        del cells[heading]
    title = f"{called} at width {widths[1]}: roles under muP (scale: initial root mean square)"
    return _table(title, rows, cells)


Cell: TypeAlias = Callable[["RoleRow"], str | Text]


def _columns(widths: tuple[int, int]) -> dict[str, Cell]:
    """Return the heading of each column after the leaf's, and what it shows."""
    return {
        "shape": lambda row: "x".join(map(str, row.shape)) or "scalar",
        "axes": lambda row: _axis_words(row) or NOTHING,
        "role": lambda row: row.role,
        "fan-in": lambda row: str(row.fan_in),
        "fan-out": lambda row: str(row.fan_out),
        "update\ntimes": lambda row: f"{row.multiplier:.3g}",
        "1/fan-in\nacts in": lambda row: row.readout or NOTHING,
        f"scale\nat {widths[0]}": lambda row: _scale(row.scale_small),
        f"scale\nat {widths[1]}": lambda row: Text.assemble(
            _scale(row.scale_large), " ", (SIGN if row.remark else " ", "yellow")
        ),
    }


WORDS = ("shape", "axes", "role", "1/fan-in\nacts in")
"""Columns that are no numbers."""


def _table(
    title: str, rows: Sequence["RoleRow"], cells: Mapping[str, Sequence[str | Text]]
) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("leaf", overflow="fold", min_width=LEAF_WIDTH)
    for heading, column in cells.items():
        justify = "left" if heading in WORDS else "right"
        widest = _widest(heading, column)
        table.add_column(heading, justify=justify, no_wrap=True, min_width=widest)
    for row, *of_row in zip(rows, *cells.values(), strict=True):
        table.add_row(row.leaf, *of_row)
    return table


def _widest(heading: str, column: Sequence[str | Text]) -> int:
    return max(len(text) for text in (*heading.splitlines(), *column))


def _axis_words(row: "RoleRow") -> str:
    words = dict.fromkeys(row.in_axes, "in") | dict.fromkeys(row.out_axes, "out")
    words |= dict.fromkeys(row.stack_axes, "stack")
    return ",".join(words[axis] for axis in sorted(words))


def _scale(scale: float | None) -> str:
    return NOTHING if scale is None else f"{scale:.3g}"


def roles_in_words(rows: Sequence["RoleRow"]) -> tuple[str, ...]:
    """Return the closing lines: how many of each role, and every remark."""
    counts = Counter(row.role for row in rows)
    told = ", ".join(f"{counts[role]} {role}" for role in ("input", "hidden", "output"))
    remarks = [f"{SIGN} {row.leaf} {row.remark}" for row in rows if row.remark]
    return (f"{len(rows)} parameters: {told}", *remarks)
