"""A file of evaluation rows that grows: what is there is kept, and not computed again."""

from collections.abc import Iterator
from pathlib import Path

from mulo_cli.errors import DataError, OutputError, UsageError
from mulo_cli.results.records import (
    EvaluationIdentity,
    EvaluationRow,
    SuitePlace,
    content_hash,
)
from mulo_cli.results.store import append_record, not_writable, read_rows, replace_text

BEGINNING = b'{"optimizer": "'
"""Of every row, as it is written."""


class RowFile:
    """Rows on disk, found by the content of their identity.

    Args:
        path: of the file; it is made, with its folder, if it is not there.

    Raises:
        DataError: it holds something that is not a row.
        OutputError: it cannot be written.

    Attributes:
        mended: whether a last line, not written to its end, was cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
            content = path.read_bytes()
        except OSError as error:
            raise not_writable(path, error) from error
        complete, torn = _split(content)
        self._rows: dict[str, dict[SuitePlace, EvaluationRow]] = {}
        for row in _read(complete, path):
            self._keep(row)
        self.mended = bool(torn)
        if torn:
            _refuse_foreign(torn, path)
            replace_text(path, complete.decode())

    def find(self, identity: EvaluationIdentity) -> EvaluationRow | None:
        """Return the row of an identity if it is there: at its place in a suite, else another."""
        told = self._rows.get(content_hash(identity), {})
        return told.get(identity.place) or next(iter(told.values()), None)

    def append(self, row: EvaluationRow) -> None:
        """Add a row, on disk before this returns.

        Raises:
            OutputError: it could not be written; the rows before it are there.
        """
        append_record(self.path, row)
        self._keep(row)

    def _keep(self, row: EvaluationRow) -> None:
        self._rows.setdefault(content_hash(row), {})[row.place] = row


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Return the complete lines, and what follows the last of them."""
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]


def _read(complete: bytes, path: Path) -> Iterator[EvaluationRow]:
    try:
        lines = complete.decode().splitlines()
    except UnicodeDecodeError as error:
        raise _foreign(path) from error
    yield from read_rows(lines, str(path))


def _refuse_foreign(torn: bytes, path: Path) -> None:
    """Cut off nothing that does not look like the beginning of a row."""
    if not BEGINNING.startswith(torn[: len(BEGINNING)]):
        raise _foreign(path)


def _foreign(path: Path) -> DataError:
    return DataError(
        f"{str(path)!r} holds something that is not rows", "give a file of rows, or a new name"
    )


def refuse_existing(path: Path) -> None:
    """Stop before rows of another evaluation are mixed with new ones unasked.

    Raises:
        UsageError: there is something in the file already.
    """
    if path.is_dir():
        raise OutputError(f"{str(path)!r} is a folder", "give the name of a file")
    if path.exists() and path.stat().st_size:
        raise UsageError(
            f"{str(path)!r} exists already",
            "--append keeps its rows and adds those that are missing; or give another name",
        )
