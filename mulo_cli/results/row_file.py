"""A file of evaluation rows that grows: what is there is kept, and not computed again."""

from collections.abc import Callable, Iterable
from pathlib import Path

from mulo_cli.errors import OutputError, UsageError
from mulo_cli.results.record_file import RecordFile, no_others
from mulo_cli.results.records import EvaluationIdentity, EvaluationRow, content_hash
from mulo_cli.results.store import EVALUATION_ROWS


class RowFile(RecordFile[EvaluationRow]):
    """Rows on disk, found by the content of their identity.

    Args:
        path: of the file; it is made, with its folder, if it is not there.
        others: files of other processes whose rows count as well; they are read only.

    Raises:
        DataError: it holds something that is not a row.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, others: Callable[[], Iterable[Path]] = no_others) -> None:
        super().__init__(path, EVALUATION_ROWS, content_hash, others)

    def find(self, identity: EvaluationIdentity) -> EvaluationRow | None:
        """Return the row of an identity if it is there: at its place in a suite, else another."""
        told = self.find_all(identity)
        here = [row for row in told if row.place == identity.place]
        return (here[-1] if here else told[0]) if told else None


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
