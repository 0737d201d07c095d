"""A file of records that grows: what is there is kept, and not computed again."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from mulo_cli.bounded_files import refuse_special
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


@dataclass(frozen=True)
class _Foreign(Generic[Record]):
    """What another process' file held when it was read: its state then, key -> records."""

    state: tuple[int, ...]
    records: Mapping[str, list[Record]]


def no_others() -> Iterable[Path]:
    """Return the files of other processes, of whoever is alone."""
    return ()


class RecordFile(Generic[Record]):
    """Records on disk, one a line, found by their identity.

    Args:
        path: of the file; it is made, with its folder, if it is not there.
        of: kind of the records.
        key: identity -> what it is found by; a record has the key of its identity.
        others: files whose records count as well, and that other processes may be writing: they
            are read only, and a last line that is not complete does not count.

    Raises:
        DataError: it, or one of the others, holds something else.
        OutputError: it cannot be written.

    Attributes:
        mended: whether a last line, not written to its end, was cut off.
    """

    def __init__(
        self,
        path: Path,
        of: RecordKind[Record],
        key: Callable[[Any], str],
        others: Callable[[], Iterable[Path]] = no_others,
    ) -> None:
        self.path, self._others = path, others
        self._of, self._key = of, key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                refuse_special(path, even_opened=True)  # what is there is read first
            path.open("a").close()
            content = path.read_bytes()
        except OSError as error:
            raise not_writable(path, error) from error
        complete, torn = _split(content)
        self._records = self._by_key(complete, path)
        self._foreign: dict[Path, _Foreign[Record]] = {}
        self.look_again()
        self.mended = bool(torn)
        if torn:
            _refuse_foreign(torn, path)
            replace_text(path, complete.decode())

    def look_again(self) -> None:
        """Read what others have written by now; a file that is as it was costs nothing.

        Raises:
            DataError: one of their files holds something else.
        """
        before, self._foreign = self._foreign, {}
        for path in self._others():
            with suppress(OSError):  # it is gone, or nobody may read it
                told, known = path.stat(), before.get(path)
                state = (told.st_ino, told.st_size, told.st_mtime_ns)
                if known is None or known.state != state:
                    complete = _split(path.read_bytes())[0]
                    known = _Foreign(state, self._by_key(complete, path))
                self._foreign[path] = known

    @property
    def beside(self) -> int:
        """How many of the others hold records."""
        return sum(bool(file.records) for file in self._foreign.values())

    def find_all(self, identity: Any) -> list[Record]:
        """Return the records of an identity, in the order they were written; others' come last."""
        key = self._key(identity)
        places = [self._records, *(file.records for file in self._foreign.values())]
        return [record for records in places for record in records.get(key, [])]

    def find(self, identity: Any) -> Record | None:
        """Return the newest record of an identity if there is one."""
        found = self.find_all(identity)
        return found[-1] if found else None

    def append(self, record: Record) -> None:
        """Add a record, on disk before this returns.

        Raises:
            OutputError: it could not be written; the records before it are there.
        """
        append_record(self.path, record, durable=True)
        self._keep(record)

    def _keep(self, record: Record) -> None:
        self._records.setdefault(self._key(record), []).append(record)

    def _by_key(self, complete: bytes, path: Path) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self._read(complete, path):
            found.setdefault(self._key(record), []).append(record)
        return found

    def _read(self, complete: bytes, path: Path) -> Iterator[Record]:
        try:
            lines = complete.decode().splitlines()
        except UnicodeDecodeError as error:
            raise _not_rows(path) from error
        yield from read_records(lines, str(path), self._of)


def _refuse_foreign(torn: bytes, path: Path) -> None:
    """Cut off nothing that does not look like the beginning of a record."""
    if not looks_torn(torn):
        raise _not_rows(path)


def looks_torn(rest: bytes) -> bool:
    """Whether what follows the last complete line looks like the beginning of a record."""
    return BEGINNING.startswith(rest[: len(BEGINNING)])


def _not_rows(path: Path) -> DataError:
    return DataError(
        f"{str(path)!r} holds something that is not rows",
        "give a file of rows, or a new name",
    )


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Return the complete lines, and what follows the last of them."""
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]
