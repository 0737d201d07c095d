"""JSON lines on disk: one record a line, appended as soon as it is finished."""

import functools
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from mulo_cli.bounded_files import bounded_lines, refuse_special
from mulo_cli.errors import DataError, OutputError, shortened
from mulo_cli.results.records import EvaluationRow, to_plain

Record = TypeVar("Record")

DRAFT = ".draft"
"""End of the name of a file that is being written."""


@dataclass(frozen=True)
class RecordKind(Generic[Record]):
    """A kind of records that are read back.

    Attributes:
        record: its class.
        kind: what `kind` says in a line.
        noun: what a line of it is called, with its article.
        written_by: the command that writes it, and how.
        again: what to do where a record is damaged.
    """

    record: type[Record]
    kind: str
    noun: str
    written_by: str
    again: str


EVALUATION_ROWS = RecordKind(
    record=EvaluationRow,
    kind="evaluation",
    noun="an evaluation row",
    written_by="`mulo evaluate` in a pipe or with --output",
    again="evaluate again",
)


def to_line(record: Any) -> str:
    """Return a record as one line of JSON, without the line's end."""
    return json.dumps(to_plain(record), allow_nan=False)


def append_record(path: Path, record: Any, *, durable: bool = False) -> None:
    """Append one record: a whole line or nothing; what was written before stays whatever happens.

    Args:
        path: of the file.
        record: what is appended.
        durable: whether to wait until a loss of power does not take it away either.

    Raises:
        OutputError: it could not be written.
    """
    line = (to_line(record) + "\n").encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            _append(descriptor, line)
            if durable:
                with suppress(OSError):  # what is no file, a pipe for instance, has no disk
                    os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise not_writable(path, error) from error


def _append(descriptor: int, line: bytes) -> None:
    """Write a line in one piece, which the system may cut where a disk is full: then take it back.

    Raises:
        OSError: there is no room for it; the file is as it was before.
    """
    written = 0
    try:
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except BaseException:
        with suppress(OSError):  # a pipe takes nothing back
            if written:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        raise


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file up to the first line that was cut off or damaged.

    Raises:
        OSError: it cannot be read, or is neither a file nor a folder.
    """
    refuse_special(path)
    with path.open("rb") as file:
        for line in bounded_lines(file):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                return


def read_rows(lines: Iterable[str], source: str) -> Iterator[EvaluationRow]:
    """Yield evaluation rows; empty lines do not count.

    Args:
        lines: of JSON.
        source: what an error calls the place they come from.

    Raises:
        DataError: a line that is broken or is something else; the message has its number.
    """
    return read_records(lines, source, EVALUATION_ROWS)


def read_records(lines: Iterable[str], source: str, of: RecordKind[Record]) -> Iterator[Record]:
    """Yield records of one kind; empty lines do not count.

    Args:
        lines: of JSON.
        source: what an error calls the place they come from.
        of: what they are to be.

    Raises:
        DataError: a line that is broken or is something else; the message has its number.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            plain = json.loads(line, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where} is not JSON: {error}",
                f"lines here are written by {of.written_by}; delete the line if it was cut off",
            ) from error
        if not isinstance(plain, dict) or plain.get("kind") != of.kind:
            raise DataError(
                f"{where} is not {of.noun}: {shortened(line.strip())}",
                f"give only what is written by {of.written_by}",
            )
        try:
            yield _adapter(of.record).validate_python(plain)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
            raise DataError(
                f"{where} is a damaged row: {what}{first['msg'].removeprefix('Value error, ')}",
                f"the row was written by another version or edited; {of.again}",
            ) from error


_adapter = functools.cache(TypeAdapter)
"""Class -> what validates it; made when first needed, because that takes its time."""


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def keep_only(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Replace a file's content by these records, at once or not at all."""
    replace_text(path, "".join(json.dumps(record) + "\n" for record in records))


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old or the new content, never a part.

    Raises:
        OutputError: it could not be written; the old content is still there.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{DRAFT}")  # two may write at once
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise not_writable(path, error) from error


def is_draft(name: str, of: str) -> bool:
    """Whether a name is that of a file's draft, which a kill may leave behind."""
    return name.startswith(f".{of}.") and name.endswith(DRAFT)


def not_writable(path: Path, error: OSError) -> OutputError:
    """Say that the file system refused a file, and what to do."""
    return OutputError(
        f"cannot write {str(path)!r}: {error.strerror or error}",
        "check the folder's permissions and the free space on its disk, or choose another place",
    )
