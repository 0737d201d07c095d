"""Where evaluation rows go: to a file that keeps them, and to whoever reads stdout."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mulo_cli.cli.terminal import ReaderLeft, Terminal
from mulo_cli.processes import ALONE, Place
from mulo_cli.results.records import EvaluationIdentity, EvaluationRow, SuitePlace
from mulo_cli.results.row_file import RowFile
from mulo_cli.results.split_files import other_files, own_file, rival_files
from mulo_cli.results.store import to_line


@contextmanager
def own_rows(terminal: Terminal, path: Path | None, place: Place) -> Iterator[None]:
    """Keep every other command from an output, but those of the other processes of this number.

    Args:
        terminal: is told of a command that was killed there.
        path: of the output, if there is one.
        place: of this process; each has a file of its own.

    Raises:
        OutputError: another command is at work there.
    """
    from mulo_cli.results.lock_file import locked_names
    from mulo_cli.results.run_lock import locked_file, refuse_if_locked

    if path is None:
        yield
        return
    with locked_file(own_file(path, place), terminal.warning):
        # after our own: of two that begin at once, one at least sees the other
        for rival in rival_files(path, place, locked_names(path.parent)):
            refuse_if_locked(rival, terminal.warning)
        yield


class RowOutput:
    """Takes rows one by one.

    Args:
        terminal: whose stdout gets them as lines, if `lines`.
        path: of the output that keeps them; what is in any of its files is not computed again.
        lines: whether stdout gets lines (else a table at the end, from `rows`).
        place: of this process; each writes a file of its own.
    """

    def __init__(
        self, terminal: Terminal, path: Path | None, *, lines: bool, place: Place = ALONE
    ) -> None:
        self._terminal, self._lines = terminal, lines
        self._file = None
        self.rows: list[EvaluationRow] = []
        self.fresh = 0
        if path is None:
            return
        self._file = RowFile(own_file(path, place), lambda: other_files(path, place))
        if self._file.mended:
            terminal.warning(
                f"the last line of {self._file.path} was cut off; that row is computed again"
            )

    @property
    def where(self) -> str:
        """Name the files that keep rows, for people."""
        return "" if self._file is None else named_files(self._file.path, self._file.beside)

    def find(self, identity: EvaluationIdentity) -> EvaluationRow | None:
        """Return a row that is in the files already, as told at this place of a suite."""
        stored = None if self._file is None else self._file.find(identity)
        return stored and _at(identity.place, stored)

    def look_again(self) -> None:
        """Learn what other processes have written by now."""
        if self._file is not None:
            self._file.look_again()

    def found_by_now(self, identities: Iterable[EvaluationIdentity]) -> list[EvaluationRow]:
        """Return those rows that this process or another one has written by now."""
        self.look_again()
        return [row for identity in identities if (row := self.find(identity))]

    def take(self, row: EvaluationRow) -> EvaluationRow:
        """Keep a row and pass it on; what is in the files already is passed on as it was measured.

        A training that they know at another place of a suite is told again, at this one.

        Raises:
            ReaderLeft: nobody reads stdout any more, and no file keeps the rows.
        """
        stored = None if self._file is None else self._file.find(row)
        self.fresh += stored is None
        place, row = row.place, _at(row.place, stored or row)
        if self._file is not None and (stored is None or stored.place != place):
            self._file.append(row)
        self.rows.append(row)
        if self._lines:
            self._pass_on(row)
        return row

    def _pass_on(self, row: EvaluationRow) -> None:
        try:
            self._terminal.line(to_line(row))
        except ReaderLeft:
            if self._file is None:
                raise
            self._lines = False


def named_files(own: Path, beside: int) -> str:
    """Name the file of a process, and how many files of others hold something."""
    if not beside:
        return str(own)
    return f"{own} and {beside} {'file' if beside == 1 else 'files'} beside it"


def _at(place: SuitePlace, row: EvaluationRow) -> EvaluationRow:
    return dataclasses.replace(row, **vars(place))
