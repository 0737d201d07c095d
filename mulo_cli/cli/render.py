"""The one place where a command's end, or its error, becomes text and an exit code."""

import logging
import os
import sys
import threading
import traceback
import warnings

from mulo_cli.cli.outcome import ExitCode, Outcome
from mulo_cli.cli.terminal import Terminal
from mulo_cli.errors import MuloError, OutputError

DEBUG_VARIABLE = "MULO_DEBUG"

KEPT_PROGRAM_WARNING = "Error (reading|writing) persistent compilation cache entry"
"""How jax begins to tell that a kept program cannot be used or kept: it compiles it, then."""

SHOWN_PATH = 200
"""Characters of a path that an error shows."""


def silence_libraries() -> None:
    """Keep libraries from printing tracebacks of their own: every failure reaches us as an error.

    Orbax logs what it also raises, and its threads report callbacks that came too late. Jax warns
    at every start of a kept program that was cut off while it was written.
    """
    if os.environ.get(DEBUG_VARIABLE):
        return
    logging.disable(logging.ERROR)
    warnings.filterwarnings("ignore", KEPT_PROGRAM_WARNING)
    sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *_: None


def render_outcome(terminal: Terminal, outcome: Outcome) -> int:
    """Print the summary; return the exit code."""
    terminal.summary(outcome.summary)
    return outcome.exit_code


def render_error(terminal: Terminal, error: MuloError) -> int:
    """Print an error of ours and its hint; return the exit code."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    terminal.error(error.message, error.hint)
    return error.exit_code


def render_usage_error(terminal: Terminal, message: str) -> int:
    """Print what was wrong with the command line; return the exit code."""
    terminal.error(message.rstrip("."), "`mulo COMMAND --help` shows what there is")
    return ExitCode.USAGE


def file_error(error: OSError) -> MuloError:
    """Return the file system's refusal as an error of ours."""
    named = f" {str(error.filename)[:SHOWN_PATH]!r}" if error.filename else ""
    return OutputError(f"cannot use the path{named}: {error.strerror}", "give another path")


def render_crash(terminal: Terminal, error: Exception) -> int:
    """Print an error nobody foresaw, without its traceback unless asked for."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    terminal.error(
        f"unexpected {type(error).__name__}: {first_line}",
        f"this is a defect of mulo; {DEBUG_VARIABLE}=1 shows where it happened",
    )
    return ExitCode.FAILED
