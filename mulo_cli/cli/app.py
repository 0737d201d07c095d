"""`mulo`: its commands, and what happens around every one of them."""

import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from mulo_cli.cli.commands.coord_check import EXAMPLES as COORD_CHECK_EXAMPLES
from mulo_cli.cli.commands.coord_check import coord_check
from mulo_cli.cli.commands.data import data
from mulo_cli.cli.commands.doctor import EXAMPLES as DOCTOR_EXAMPLES
from mulo_cli.cli.commands.doctor import doctor
from mulo_cli.cli.commands.evaluate import EXAMPLES as EVALUATE_EXAMPLES
from mulo_cli.cli.commands.evaluate import evaluate
from mulo_cli.cli.commands.meta_train import EXAMPLES as META_TRAIN_EXAMPLES
from mulo_cli.cli.commands.meta_train import meta_train
from mulo_cli.cli.commands.rank import EXAMPLES as RANK_EXAMPLES
from mulo_cli.cli.commands.rank import rank
from mulo_cli.cli.commands.roles import EXAMPLES as ROLES_EXAMPLES
from mulo_cli.cli.commands.roles import roles
from mulo_cli.cli.commands.tasks import tasks
from mulo_cli.cli.commands.tune_adam import EXAMPLES as TUNE_ADAM_EXAMPLES
from mulo_cli.cli.commands.tune_adam import tune_adam
from mulo_cli.cli.commands.weights import weights
from mulo_cli.cli.compiled_programs import keep_compiled_programs
from mulo_cli.cli.interrupts import Terminated
from mulo_cli.cli.outcome import ExitCode, Outcome
from mulo_cli.cli.render import (
    file_error,
    render_crash,
    render_error,
    render_outcome,
    render_usage_error,
    silence_libraries,
)
from mulo_cli.cli.terminal import ReaderLeft, Terminal, flush_stdout
from mulo_cli.errors import MuloError

app = typer.Typer(
    name="mulo",
    help="Learned optimizers that keep working when networks grow.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("meta-train", epilog=META_TRAIN_EXAMPLES)(meta_train)
app.command("evaluate", epilog=EVALUATE_EXAMPLES)(evaluate)
app.command("coord-check", epilog=COORD_CHECK_EXAMPLES)(coord_check)
app.command("tune-adam", epilog=TUNE_ADAM_EXAMPLES)(tune_adam)
app.command("rank", epilog=RANK_EXAMPLES)(rank)
app.command("roles", epilog=ROLES_EXAMPLES)(roles)
app.command("doctor", epilog=DOCTOR_EXAMPLES)(doctor)
app.add_typer(data, name="data")
app.add_typer(tasks, name="tasks")
app.add_typer(weights, name="weights")


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"mulo {metadata.version('mulo-cli')}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version  # its callback has done everything


def main() -> None:
    """Run the command line and exit with the command's code."""
    silence_libraries()
    keep_compiled_programs(os.environ)
    code = run(Terminal())
    everything_read = flush_stdout()
    sys.exit(code if everything_read or code else ExitCode.READER_LEFT)


def run(terminal: Terminal) -> int:
    """Run one command; return its exit code. Nothing ends in a traceback."""
    try:
        result = app(standalone_mode=False)
        if isinstance(result, Outcome):
            return render_outcome(terminal, result)
        return int(result or ExitCode.DONE)
    except MuloError as error:
        return render_error(terminal, error)
    except typer.TyperException as error:
        return render_usage_error(terminal, error.format_message())
    except Terminated:
        return ExitCode.TERMINATED
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except ReaderLeft:
        return ExitCode.READER_LEFT
    except OSError as error:  # a path that is too long, a folder that may not be read ...
        return render_error(terminal, file_error(error))
    except Exception as error:
        return render_crash(terminal, error)
