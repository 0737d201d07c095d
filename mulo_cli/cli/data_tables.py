"""Data sets for people: the list of them, and one of them looked at closely."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mulo_cli.cli.facts import fact_columns, harmless

if TYPE_CHECKING:
    from mulo_cli.assembly.data_reports import (
        Balance,
        DataReport,
        DataRow,
        ImageFacts,
        TextFacts,
    )

NOTHING = "-"
SHOWN_CLASSES = 10
"""A data set of more classes shows its largest and smallest ones."""

SHOWN_TEXT = 160
"""Characters of an example that are shown; a pipe gets all."""

WIDE_SCREEN = 120
"""Characters of a line that has room for source and licence."""

TOLD_WIDTH = 86
"""Characters of a line that all but source and licence takes, and the space before each of them."""

NAME_WIDTH = 23
"""Characters of a name before it is broken: `synthetic/fashion_mnist` is not."""


def list_table(rows: Sequence["DataRow"], screen: int) -> RenderableType:
    """Return names x what is told of each; source and licence where a line has room for them."""
    wide = screen >= WIDE_SCREEN
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("name", overflow="fold", min_width=NAME_WIDTH)
    table.add_column("what")
    for heading in ("train", "test", "shape", "classes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("there", no_wrap=True)
    for heading, share in (("licence", 0.45), ("source", 0.55)) if wide else ():
        table.add_column(heading, overflow="fold", max_width=int(share * (screen - TOLD_WIDTH)))
    for row in rows:
        told = (Text(harmless(row.licence)), Text(harmless(row.source))) if wide else ()
        table.add_row(
            Text(harmless(row.name)),
            row.examples or NOTHING,
            _number(row.train),
            _number(row.test),
            shape_in_words(row.shape),
            _number(row.num_classes),
            "damaged" if row.complaint else "yes" if row.present else "no",
            *told,
        )
    return Group(table, Text())


def list_in_words(rows: Sequence["DataRow"]) -> tuple[str, ...]:
    """Return what to do about absent and damaged sets, and where more is told."""
    absent = [row.name for row in rows if not row.present and not row.complaint]
    lines = [harmless(row.complaint) for row in rows if row.complaint]
    if absent:
        lines.append(f"not there yet: `mulo data prepare NAME` for {', '.join(absent)}")
    lines.append(
        "any file or folder of images or text can be named as well; `mulo data show NAME|PATH` "
        "tells source, licence and options"
    )
    return tuple(lines)


def report_table(report: "DataReport") -> RenderableType:
    """Return what a set is, and what was measured on it."""
    row = report.row
    facts = [
        ("name", row.name),
        ("data", f"{row.examples}, {'real' if row.real else 'synthetic'}"),
        ("source", row.source),
        ("licence", row.licence),
        ("place", row.place or ""),
        ("options", ", ".join(row.options) or "none"),
        ("train", f"{row.train}"),
        ("test", f"{row.test}"),
        ("shape", "" if row.shape is None else shape_in_words(row.shape)),
        ("classes" if row.examples == "images" else "vocabulary", f"{row.num_classes}"),
        *(("note", note) for note in row.notes),
        *_verified(report.verified),
    ]
    if not row.present:
        return fact_columns([*facts, ("there", "no")])
    if report.images is not None:
        return Group(fact_columns([*facts, *_measured(report.images)]), *_balance(report.images))
    if report.text is not None:
        return fact_columns([*facts, *_text(report.text)])
    made = ("statistics", "none: examples are made when a batch is drawn")
    return fact_columns([*facts, made])


def _verified(files: tuple[str, ...] | None) -> list[tuple[str, str]]:
    return [] if files is None else [("checksums", f"{len(files)} files are as they were written")]


def _measured(images: "ImageFacts") -> list[tuple[str, str]]:
    return [
        ("mean", "  ".join(f"{value:.2f}" for value in images.mean)),
        ("std", "  ".join(f"{value:.2f}" for value in images.std)),
    ]


def _balance(images: "ImageFacts") -> tuple[RenderableType, ...]:
    """Return a short table of classes: all of them, or the largest and the smallest."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    table.add_column("training images", justify="right")
    for name, count in _shown_classes(images.balance):
        table.add_row(Text(harmless(name)), count)
    counts = images.balance.counts
    summary = (
        f"{len(counts)} classes of {min(counts)} to {max(counts)} training images, "
        f"{sum(counts) / len(counts):.4g} on average"
    )
    return (table, Text(summary))


def _shown_classes(balance: "Balance") -> list[tuple[str, str]]:
    rows = list(zip(balance.names, map(str, balance.counts), strict=True))
    if len(rows) <= SHOWN_CLASSES:
        return rows
    order = sorted(range(len(rows)), key=lambda number: (-balance.counts[number], number))
    half = SHOWN_CLASSES // 2
    return [rows[i] for i in order[:half]] + [("...", "")] + [rows[i] for i in order[-half:]]


def _text(text: "TextFacts") -> list[tuple[str, str]]:
    frequent = ", ".join(f"{token!r} {share:.1%}" for token, share in text.frequent)
    return [
        *((f"tokens, {split}", f"{count}") for split, count in text.tokens.items()),
        ("tokens that occur", f"{text.used}"),
        ("most frequent", frequent),
        *(("example", _cut(example)) for example in text.examples),
    ]


def _cut(example: str) -> str:
    shown = repr(example)
    return shown if len(shown) <= SHOWN_TEXT else shown[:SHOWN_TEXT] + "..."


def shape_in_words(shape: tuple[int, ...] | None) -> str:
    """Return 32x32x3, or a dash where there is none."""
    return NOTHING if shape is None else "x".join(map(str, shape))


def _number(value: int | None) -> str:
    return NOTHING if value is None else f"{value}"
