"""`mulo data`: which data sets there are, preparing one, looking at one."""

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.assembly.data_preparing import Preparation
    from mulo_cli.assembly.data_reports import DataRow, Shown

LIST_EXAMPLES = """
[bold]Examples[/bold]

mulo data list

mulo data list --format jsonl
"""

PREPARE_EXAMPLES = """
[bold]Examples[/bold]

mulo data prepare cifar10

mulo data prepare imagenet32 --from downloads

mulo data prepare my-images --from my-images.zip --resize 32

mulo data prepare reviews --from reviews.zip --tokens sentencepiece --vocabulary 8000 --unit line
"""

SHOW_EXAMPLES = """
[bold]Examples[/bold]

mulo data show digits --plot digits.png

mulo data show ./my-images.zip:resize=32

mulo data show fashion_mnist --verify --format jsonl
"""

Format = Annotated[
    Literal["table", "jsonl"] | None,
    typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
]

data = typer.Typer(
    help="List, prepare and look at data sets.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@data.command("list", epilog=LIST_EXAMPLES)
def list_(format_: Format = None) -> Outcome:
    """Show every data set that has a name, and which of them are there.

    Beside these, any file or folder of images or text can be named.
    """
    from mulo_cli.assembly.data_reports import list_datasets
    from mulo_cli.cli.data_tables import list_in_words, list_table
    from mulo_cli.results.store import to_line

    terminal = Terminal()
    if _lines(terminal, format_):
        for row in list_datasets():
            terminal.line(to_line(row))
        return Outcome()
    rows = tuple(list_datasets())
    terminal.result(list_table(rows, terminal.out.width))
    return Outcome(list_in_words(rows))


@data.command("prepare", epilog=PREPARE_EXAMPLES)
def prepare(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the catalogue, or a new one of your own.")
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Published archives, or files of your own: images or text, in a folder, file or "
            "archive.",
            show_default="what tensorflow-datasets has prepared, else a download",
        ),
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(min=1, help="Side of images in pixels.", show_default="as they are"),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Of text: chars, bytes, sentencepiece (trained on the training text), or the path "
            "of a SentencePiece model.",
            show_default="chars; of lm1b sentencepiece",
        ),
    ] = None,
    vocabulary: Annotated[
        int | None,
        typer.Option(min=1, help="Of a SentencePiece model.", show_default="8000; of lm1b 32000"),
    ] = None,
    unit: Annotated[
        Literal["stream", "line"] | None,
        typer.Option(
            help="Of text: what an example is, a window or a line.",
            show_default="stream; of lm1b line",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of your own data.", show_default="unknown")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former one.")] = False,
    format_: Format = None,
) -> Outcome:
    """Convert a data set once, to plain arrays in the folder of data, where every command finds it.

    An interrupted preparation leaves nothing behind.
    """
    from mulo_cli.assembly.data_preparing import Preparation

    terminal = Terminal()
    asked = Preparation(name, source, resize, tokens, vocabulary, unit, licence, overwrite)
    began = time.monotonic()
    _prepare(terminal, asked)
    return _prepared(terminal, name, time.monotonic() - began, lines=_lines(terminal, format_))


def _prepare(terminal: Terminal, asked: "Preparation") -> None:
    """Do it, and say how far it is; a signal ends it at once, as there is nothing to save."""
    from mulo_cli.assembly.data_preparing import prepare as steps
    from mulo_cli.cli.interrupts import ended_by_signals
    from mulo_cli.cli.progress import display

    progress = display(terminal, "example")
    with ended_by_signals(), closing(steps(asked)) as reports:
        try:
            started = False
            for report in reports:
                if not report.total:
                    terminal.info(report.text)
                    continue
                if not started:
                    progress.start(report.done, report.total)
                started = True
                progress.show(report.done, report.text)
        finally:
            progress.stop()


def _prepared(terminal: Terminal, name: str, seconds: float, *, lines: bool) -> Outcome:
    """Say what there is now, and what to run next."""
    from mulo_cli.assembly.data_reports import prepared_row
    from mulo_cli.cli.facts import harmless
    from mulo_cli.cli.tables import duration
    from mulo_cli.results.store import to_line

    row = prepared_row(name)
    for note in row.notes:
        terminal.info(f"note: {harmless(note)}")
    summary = f"{_in_words(row)}, in {duration(seconds)}; saved in {row.place}; next: " + (
        f"mulo data show {name}"
    )
    if lines:
        terminal.line(to_line(row))
        terminal.info(summary)
        return Outcome()
    return Outcome((summary,))


def _in_words(row: "DataRow") -> str:
    from mulo_cli.cli.data_tables import shape_in_words

    counts = f"{row.name}: {row.train} training and {row.test} test examples"
    if row.examples == "images":
        return f"{counts}, {shape_in_words(row.shape)}, {row.num_classes} classes"
    return f"{counts}, a vocabulary of {row.num_classes}"


@data.command("show", epilog=SHOW_EXAMPLES)
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="A data set as --dataset takes it, options included.",
        ),
    ],
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|svg",
            help="Draw a contact sheet of images, or the frequencies of tokens.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the checksums of a prepared set's files.")
    ] = False,
    format_: Format = None,
) -> Outcome:
    """Show one data set: where it is from, sizes, classes and their balance, statistics, examples.

    Statistics are those of the training split. Of a published set that has not been prepared, what
    is known of it is shown.
    """
    from mulo_cli.assembly.data_reports import look_at
    from mulo_cli.cli.data_tables import report_table
    from mulo_cli.results.store import to_line

    terminal = Terminal()
    if plot is not None:
        from mulo_cli.results.plots import prepare_plot

        prepare_plot(plot)
    shown = look_at(name, verified=verify, loaded=plot is not None)
    if _lines(terminal, format_):
        terminal.line(to_line(shown.report))
    else:
        terminal.result(report_table(shown.report))
    if not shown.report.row.present:
        bare = name.partition(":")[0]
        terminal.info(f"not there yet: prepare it once with `mulo data prepare {bare}`")
    if plot is None:
        return Outcome()
    _draw(shown, plot)
    terminal.info(f"picture: {plot}")
    return Outcome()


def _draw(shown: "Shown", path: Path) -> None:
    from mulo_cli.assembly.data_reports import sheet_images
    from mulo_cli.errors import UsageError
    from mulo_cli.results.data_plots import plot_images, plot_token_frequencies

    if shown.dataset.kind == "images":
        plot_images(*sheet_images(shown.dataset), path)
    elif shown.report.text is not None:
        plot_token_frequencies(shown.report.text.counts, path)
    else:
        raise UsageError(
            f"{shown.report.row.name} has no stored text: there is nothing to draw",
            "leave --plot away",
        )


def _lines(terminal: Terminal, format_: str | None) -> bool:
    return terminal.piped if format_ is None else format_ == "jsonl"
