"""Where evaluation rows go: to a file that keeps them, and to whoever reads stdout."""

import dataclasses
from pathlib import Path

from mulo_cli.cli.terminal import ReaderLeft, Terminal
from mulo_cli.results.records import EvaluationIdentity, EvaluationRow, SuitePlace
from mulo_cli.results.row_file import RowFile
from mulo_cli.results.store import to_line


class RowOutput:
    """Takes rows one by one.

    Args:
        terminal: whose stdout gets them as lines, if `lines`.
        path: of the file that keeps them; what is there already is not computed again.
        lines: whether stdout gets lines (else a table at the end, from `rows`).
    """

    def __init__(self, terminal: Terminal, path: Path | None, *, lines: bool) -> None:
        self._terminal, self._lines = terminal, lines
        self._file = None if path is None else RowFile(path)
        self.rows: list[EvaluationRow] = []
        self.fresh = 0
        if self._file is not None and self._file.mended:
            terminal.warning(f"the last line of {path} was cut off; that row is computed again")

    def find(self, identity: EvaluationIdentity) -> EvaluationRow | None:
        """Return a row that is in the file already, as told at this place of a suite."""
        stored = None if self._file is None else self._file.find(identity)
        return stored and _at(identity.place, stored)

    def take(self, row: EvaluationRow) -> EvaluationRow:
        """Keep a row and pass it on; what is in the file already is passed on as it was measured.

        A training that the file knows at another place of a suite is told again, at this one.

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


def _at(place: SuitePlace, row: EvaluationRow) -> EvaluationRow:
    return dataclasses.replace(row, **vars(place))
