"""A file of records that grows: what is there is kept, and not computed again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic

from mulo_cli.errors import DataError
from mulo_cli.results.store import (
    Record,
    RecordKind,
    append_record,
    not_writable,
    read_records,
    replace_text,
)

BEGINNING = b'{"optimizer": "'
"""Of every record that has an identity, as it is written."""


class RecordFile(Generic[Record]):
    """Records on disk, one a line, found by their identity.

    Args:
        path: of the file; it is made, with its folder, if it is not there.
        of: kind of the records.
        key: identity -> what it is found by; a record has the key of its identity.

    Raises:
        DataError: it holds something else.
        OutputError: it cannot be written.

    Attributes:
        mended: whether a last line, not written to its end, was cut off.
    """

    def __init__(self, path: Path, of: RecordKind[Record], key: Callable[[Any], str]) -> None:
        self.path = path
        self._of, self._key = of, key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
            content = path.read_bytes()
        except OSError as error:
            raise not_writable(path, error) from error
        complete, torn = _split(content)
        self._records: dict[str, list[Record]] = {}
        for record in self._read(complete):
            self._keep(record)
        self.mended = bool(torn)
        if torn:
            self._refuse_foreign(torn)
            replace_text(path, complete.decode())

    def find_all(self, identity: Any) -> list[Record]:
        """Return the records of an identity, in the order they were written."""
        return self._records.get(self._key(identity), [])

    def find(self, identity: Any) -> Record | None:
        """Return the newest record of an identity if there is one."""
        found = self.find_all(identity)
        return found[-1] if found else None

    def append(self, record: Record) -> None:
        """Add a record, on disk before this returns.

        Raises:
            OutputError: it could not be written; the records before it are there.
        """
        append_record(self.path, record)
        self._keep(record)

    def _keep(self, record: Record) -> None:
        self._records.setdefault(self._key(record), []).append(record)

    def _read(self, complete: bytes) -> Iterator[Record]:
        try:
            lines = complete.decode().splitlines()
        except UnicodeDecodeError as error:
            raise self._foreign() from error
        yield from read_records(lines, str(self.path), self._of)

    def _refuse_foreign(self, torn: bytes) -> None:
        """Cut off nothing that does not look like the beginning of a record."""
        if not BEGINNING.startswith(torn[: len(BEGINNING)]):
            raise self._foreign()

    def _foreign(self) -> DataError:
        return DataError(
            f"{str(self.path)!r} holds something that is not rows",
            "give a file of rows, or a new name",
        )


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Return the complete lines, and what follows the last of them."""
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]
