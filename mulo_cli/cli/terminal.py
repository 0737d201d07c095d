"""The two streams and their look: results on stdout, everything else on stderr.

Colour never carries meaning alone; rich obeys NO_COLOR. Nothing else in the package prints.
"""

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text


class ReaderLeft(Exception):
    """Whoever read stdout has closed it (`mulo ... | head`): an end, not an error."""


class _Console(Console):
    """A console whose reader may leave: work goes on, and is saved, without being watched."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True


def _console(*, stderr: bool) -> Console:
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


class Terminal:
    """Says things to people; methods are intentions, styles are decided here."""

    def __init__(self) -> None:
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    @property
    def interactive(self) -> bool:
        """Whether somebody watches stderr: only then is progress drawn."""
        return self.err.is_terminal

    @property
    def piped(self) -> bool:
        """Whether stdout goes to another program: then results are JSON lines."""
        return not self.out.is_terminal

    def result(self, renderable: RenderableType) -> None:
        """Show a result to a person."""
        self.out.print(renderable)

    def line(self, text: str) -> None:
        """Write one line of data, at once.

        Raises:
            ReaderLeft: nobody reads it any more.
        """
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ReaderLeft from error

    def summary(self, lines: Iterable[str]) -> None:
        """Write the closing lines of a command."""
        for text in lines:
            self.out.print(text)

    def info(self, text: str) -> None:
        """Say what is going on."""
        self.err.print(text)

    def warning(self, text: str) -> None:
        """Say what the user should know though it stops nothing."""
        self.err.print(Text.assemble(("warning", "yellow"), f": {text}"))

    def error(self, message: str, hint: str | None) -> None:
        """Say what went wrong, and what to do about it."""
        self.err.print(Text.assemble(("error", "bold red"), f": {message}"))
        if hint:
            self.err.print()
            self.err.print(Text.assemble(("hint", "cyan"), f": {hint}"))


def flush_stdout() -> bool:
    """Write what is left to be written; say whether there was somebody, or a disk, to take it."""
    _flush(sys.stderr)
    return _flush(sys.stdout)


def _flush(stream: TextIO | None) -> bool:
    """Flush a stream; point one that cannot be written at nothing, or Python complains at its end.

    Args:
        stream: None if whoever started us has closed it.
    """
    if stream is None:
        return True
    try:
        stream.flush()
    except OSError:  # a closed pipe; a full disk, which has been told already
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
