"""`mulo rank`: average ranks of optimizers, from the rows of `mulo evaluate`."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.results.ranking import Ranking
    from mulo_cli.results.records import EvaluationRow

EXAMPLES = """
[bold]Examples[/bold]

mulo rank rows.jsonl

mulo evaluate --optimizer adamw --optimizer muadam | mulo rank

mulo rank desk.jsonl more.jsonl --by width

mulo rank rows.jsonl --format markdown >> README.md
"""

STDIN = "-"

RESAMPLES = 1_000
"""As in `results.ranking`, whose import would cost `--help` a tenth of a second."""

MOST_RESAMPLES = 100_000
"""More would take memory and tell nothing new."""

Format = Literal["table", "jsonl", "csv", "markdown"]


def rank(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Rows of `mulo evaluate`, with those that other processes wrote beside it "
            "(rows.0-of-4.jsonl ...); - for standard input.",
            show_default="standard input, if something is piped into it",
        ),
    ] = None,
    by: Annotated[
        Literal["size", "width", "depth", "horizon"],
        typer.Option(help="Columns: width (in a suite: size) x step, or one of these axes alone."),
    ] = "size",
    resamples: Annotated[
        int,
        typer.Option(
            min=0, max=MOST_RESAMPLES, help="Of the bootstrap over seeds; 0: no intervals."
        ),
    ] = RESAMPLES,
    format_: Annotated[
        Format | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
) -> Outcome:
    """Rank optimizers by smoothed training loss, averaged over tasks.

    What is missing, doubled or not comparable is named on stderr, and never averaged.
    """
    from mulo_cli.recipes.suite_file import suite_names
    from mulo_cli.recipes.suites import load_suite
    from mulo_cli.results.ranking import rank_optimizers

    terminal = Terminal()
    rows = _all_rows(terminal, _with_processes(terminal, _sources(files or [])))
    named = {row.suite for row in rows}.intersection(suite_names())
    families = {name: load_suite(name).families_by_size for name in named}
    ranking = rank_optimizers(rows, by, resamples, families)
    for warning in ranking.warnings:
        terminal.warning(warning)
    _refuse_nothing_ranked(ranking)
    _show(terminal, ranking, format_ or ("jsonl" if terminal.piped else "table"))
    return Outcome()


def _sources(files: list[str]) -> list[str]:
    """Return where rows come from: files, or `-` for standard input."""
    from mulo_cli.errors import UsageError

    if files.count(STDIN) > 1:
        raise UsageError("standard input (-) is given twice", "it can be read once: give one -")
    closed = sys.stdin is None
    if (closed and STDIN in files) or (not files and (closed or sys.stdin.isatty())):
        raise UsageError(
            "no rows to rank: there is no file and nothing is piped in",
            "mulo rank rows.jsonl, or mulo evaluate ... | mulo rank",
        )
    return files or [STDIN]


def _with_processes(terminal: Terminal, sources: list[str]) -> list[str]:
    """Put the files of its processes in the place of an output that several of them wrote.

    A file is read once, whatever names it is given by.
    """
    from mulo_cli.results.split_files import files_of

    given, found = set(map(_real, sources)), dict[str, str]()
    for source in sources:
        split = [] if source == STDIN else files_of(Path(source))
        beside = {_real(str(file)): str(file) for file in split if file != Path(source)}
        more = {real: file for real, file in beside.items() if real not in {*given, *found}}
        if more:
            terminal.info(f"with {_called(source)} are read {', '.join(map(repr, more.values()))}")
        if not beside or Path(source) in split:
            found.setdefault(_real(source), source)
        found |= more
    return list(found.values())


def _real(source: str) -> str:
    """Return what a source is found to be the same by as another one."""
    return source if source == STDIN else os.path.realpath(source)


def _all_rows(terminal: Terminal, sources: list[str]) -> list["EvaluationRow"]:
    """Read everything; name a source without rows, and stop if none has any.

    Raises:
        DataError: a source cannot be read or holds something else, or there are no rows at all.
    """
    from mulo_cli.errors import DataError
    from mulo_cli.results.store import read_rows

    rows, empty = [], []
    for source in sources:
        found = list(read_rows(_lines(terminal, source), _called(source)))
        rows += found
        empty += [] if found else [_called(source)]
    if not rows:
        raise DataError(
            f"there are no rows in {', '.join(empty)}",
            "`mulo evaluate` writes rows in a pipe or with --output; look whether it failed",
        )
    for name in empty:
        terminal.warning(f"there are no rows in {name}")
    return rows


def _lines(terminal: Terminal, source: str) -> Iterator[str]:
    """Yield the lines of a text; only a line feed ends one.

    A row at the very end that was cut off is left out: its process was killed, or is writing it.
    """
    from mulo_cli.errors import DataError

    before, kept = 0, source != STDIN and Path(source).is_file()
    for line in _content(source):
        try:
            text = line.decode("utf-8" if before else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{_called(source)} is not text: byte {before + error.start} is not UTF-8",
                "give a file that `mulo evaluate` wrote with --output",
            ) from error
        if not text.endswith("\n") and _is_cut_off(text, kept=kept):
            terminal.warning(
                f"the last line of {_called(source)} is cut off, and left out: it has no line feed"
            )
            return
        before += len(line)
        yield text


def _is_cut_off(rest: str, *, kept: bool) -> bool:
    """Whether what follows the last line feed is the beginning of a row, and not all of it.

    Args:
        rest: what follows it.
        kept: whether a file keeps it. There a row is whole when its line has its end: who writes
            the file computes it again else. What is piped may come without.
    """
    from mulo_cli.results.record_file import looks_torn

    if not rest.strip() or not looks_torn(rest.encode()):
        return False
    if kept:
        return True
    try:
        json.loads(rest)
    except (ValueError, RecursionError):
        return True
    return False


def _content(source: str) -> Iterator[bytes]:
    """Yield lines as they are; a pipe may be the source, and is waited for."""
    from mulo_cli.bounded_files import bounded_lines
    from mulo_cli.errors import DataError

    try:
        if source == STDIN:
            yield from bounded_lines(sys.stdin.buffer)
        else:
            with Path(source).open("rb") as file:
                yield from bounded_lines(file)
    except IsADirectoryError as error:
        raise DataError(f"{_called(source)} is a folder", "give the files of rows in it") from error
    except OSError as error:
        raise DataError(
            f"cannot read {_called(source)}: {error.strerror or error}",
            "give a file that `mulo evaluate` wrote with --output",
        ) from error


def _called(source: str) -> str:
    return "standard input" if source == STDIN else repr(source)


def _refuse_nothing_ranked(ranking: "Ranking") -> None:
    from mulo_cli.errors import DataError

    if all(standing.rank is None for row in ranking.rows for standing in row):
        raise DataError(
            "nothing can be ranked: no column has an optimizer with all of its results",
            "evaluate all optimizers on the same tasks, steps and seeds; the warnings name what "
            "is missing",
        )


def _show(terminal: Terminal, ranking: "Ranking", format_: Format) -> None:
    from mulo_cli.cli.rank_tables import rank_csv, rank_markdown, rank_table, standings
    from mulo_cli.results.store import to_line

    if format_ == "table":
        terminal.result(rank_table(ranking, terminal.out.width))
        return
    lines = {
        "jsonl": map(to_line, standings(ranking)),
        "csv": rank_csv(ranking),
        "markdown": rank_markdown(ranking),
    }
    for line in lines[format_]:
        terminal.line(line)
