"""`mulo weights`: look into weights of other projects, make artefacts of them, write PyLO's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from rich.console import RenderableType

INSPECT_EXAMPLES = """
[bold]Examples[/bold]

mulo weights inspect theta.state

mulo weights inspect runs/multi-width-mup-desk-seed0 --format jsonl
"""

IMPORT_EXAMPLES = """
[bold]Examples[/bold]

mulo weights import global_step5000.pickle --out artefacts/mulo-m

mulo weights import theta.state --out artefacts/lo --set step_size=0.001 --licence Apache-2.0

mulo weights import model.safetensors --out artefacts/pylo --decays released-mulo
"""

EXPORT_EXAMPLES = """
[bold]Examples[/bold]

mulo weights export runs/multi-width-mup-desk-seed0 --out model.safetensors
"""

Format = Annotated[
    Literal["table", "jsonl"] | None,
    typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")]

weights = typer.Typer(
    help="Describe, import and export weights of learned optimizers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@weights.command("inspect", epilog=INSPECT_EXAMPLES)
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="theta.state, VeLO's params, a pickle, safetensors, an artefact or a run.",
        ),
    ],
    format_: Format = None,
) -> Outcome:
    """Say what a file of weights holds, without executing or unpacking anything.

    The checksum and the parity vector of an artefact are checked.
    """
    from mulo_cli.assembly.weight_inspection import inspect_weights
    from mulo_cli.cli.weights_tables import weights_table

    report = inspect_weights(path)
    return _shown(report, format_, weights_table)


@weights.command("import", epilog=IMPORT_EXAMPLES)
def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file of another project.")],
    out: Annotated[Path, typer.Option(help="Directory of the artefact that is written.")],
    name: Annotated[
        str | None, typer.Option(help="Name on the card.", show_default="that of the file")
    ] = None,
    parametrization: Annotated[
        Literal["mup", "sp"] | None,
        typer.Option(
            help="How networks are parametrized that it was meta-trained on.",
            show_default="assumed by the kind of file",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A constant of the architecture that the file does not tell. Repeatable.",
        ),
    ] = None,
    decays: Annotated[
        str | None,
        typer.Option(
            help="Of a file of PyLO, which has none: released-mulo, initial, or a TOML file.",
            show_default="released-mulo",
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the weights; never guessed.")] = "unknown",
    notice_file: Annotated[
        Path | None, typer.Option(help="Text of the licence's notice, for the card.")
    ] = None,
    overwrite: Overwrite = False,
    format_: Format = None,
) -> Outcome:
    """Make an artefact of weights of another project.

    What the file does not tell is taken from the options, else assumed by its kind; the card says
    which.
    """
    from mulo_cli.assembly.weight_import import import_weights
    from mulo_cli.assembly.weight_settings import Given
    from mulo_cli.cli.weights_tables import import_table

    given = Given(name, parametrization, tuple(set_ or ()), decays, licence, notice_file)
    report = import_weights(path, out, given, overwrite=overwrite)
    return _shown(report, format_, import_table)


@weights.command("export", epilog=EXPORT_EXAMPLES)
def export(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="An artefact, or a run that has finished.")
    ],
    out: Annotated[Path, typer.Option(help="Safetensors file that is written.")],
    overwrite: Overwrite = False,
    format_: Format = None,
) -> Outcome:
    """Write a small_fc_lopt as safetensors that PyLO reads.

    Decays and constants do not travel in PyLO's format; they are in the file's metadata, where
    `mulo weights import` finds them.
    """
    from mulo_cli.assembly.weight_export import export_weights
    from mulo_cli.cli.weights_tables import export_table

    report = export_weights(path, out, overwrite=overwrite)
    return _shown(report, format_, export_table)


def _shown(report: Any, format_: str | None, table: Any) -> Outcome:
    """Show a report: to people as a table, to programs as a line of JSON."""
    from mulo_cli.results.store import to_line

    terminal = Terminal()
    if (format_ or ("jsonl" if terminal.piped else "table")) == "jsonl":
        terminal.line(to_line(report))
    else:
        shown: RenderableType = table(report)
        terminal.result(shown)
    return Outcome()
