"""Text as users have it - a file, a compressed one, a folder or an archive - as two strings.

Text is UTF-8. A byte-order mark is dropped and CRLF becomes LF; a NUL byte means that something is
not text. What decides on the splits is told in notes.
"""

import codecs
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mulo_cli.datasets.files.archives import opened
from mulo_cli.datasets.files.members import Member, without_packed_copies
from mulo_cli.datasets.files.streams import (
    array_limit,
    first_bytes,
    read_up_to,
    unpacked,
    unreadable,
)
from mulo_cli.errors import DataError, shortened_path

TEST_SHARE = 0.1
"""The last part of a text is its test split, as in nanoGPT's `prepare.py` and hence in the
spectral-muP paper's runs on tiny Shakespeare."""

TEST_EVERY = 10
"""Of many files without a word on their split, every so many-th is a test file."""

READ_LIMIT = 2 * 2**30
"""Bytes that are read, once unpacked: a bound against zip bombs."""

ROOM = 10
"""Bytes of memory that a byte may need while it becomes text: four as a character, copied once."""

LOOKED_AT = 64 * 2**10
"""Bytes by which a file is told to be text."""

FILES_LOOKED_AT = 5
"""Files by which a folder or an archive is told to hold text."""

CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b")
"""Bytes that no text has, whatever its encoding; nearly every other format has some of them."""

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

SPLIT_NAMES = tuple(
    re.compile(rf"({words})(?![a-z])", re.IGNORECASE)
    for words in ("train|training", "test|testing", "val|valid|validation|dev|eval|heldout")
)
"""How files and folders of a split begin: those of training, then those that can be the test split;
of these the first kind that is there is used."""

TEXT_NAME = re.compile(r".+\.(txt|text)(\.(gz|xz))?", re.IGNORECASE)


@dataclass(frozen=True)
class StoredText:
    """The raw text of both splits.

    Attributes:
        train: of the training split.
        test: of the test split.
        notes: one sentence for each thing that was assumed.
    """

    train: str
    test: str
    notes: tuple[str, ...] = ()


def looks_like_text(path: Path) -> bool:
    """Return whether this is text, or mostly holds files of text; their beginnings are read."""
    try:
        with opened(path) as members:
            files = without_packed_copies(members)
            chosen = _text_files(files)
            if len(chosen) < len(files) - len(chosen):
                return False  # a folder of images has its labels in text files
            looked_at = chosen[:FILES_LOOKED_AT]
            return bool(looked_at) and all(map(_begins_like_text, looked_at))
    except DataError:
        return False


def read_text(path: Path) -> StoredText:
    """Read the text of both splits.

    A single text: its last tenth, from a line's beginning, is the test split. Several files: names
    or folders that begin with `train`, and with `test` or `val`, tell the split; otherwise every
    tenth of them, sorted by name, is a test file. Where some end in `.txt`, the others are passed
    over, and so is `x.txt.gz` beside `x.txt`.

    Raises:
        DataError: it cannot be read, is not text, is not UTF-8, or is empty.
    """
    shown = shortened_path(path)
    with opened(path) as members:
        files = without_packed_copies(members)
        if not files:
            raise DataError(f"{shown} holds no files", "give a text file, or a folder of such")
        chosen = _text_files(files)
        splits, notes = _splits(chosen)
        texts = _read_files([file for split in splits for file in split])
    if len(chosen) < len(files):
        notes = (_passed_over(files), *notes)
    train, *test = (_joined([texts[file.place] for file in split]) for split in splits)
    stored = StoredText(train, test[0], notes) if test else _noted(split_text(train), notes)
    if not stored.train.strip() or not stored.test.strip():
        raise DataError(f"{shown} has no text, or too little for two splits", "give a longer text")
    return stored


def split_text(text: str) -> StoredText:
    """Cut a text in two at the beginning of a line: its last tenth is the test split."""
    wanted = round((1 - TEST_SHARE) * len(text))
    after, before = text.find("\n", wanted) + 1, text.rfind("\n", 0, wanted) + 1
    cut = after if after and text[after:].strip() else before or wanted
    share = (len(text) - cut) / max(1, len(text))
    note = f"the last {share:.3g} of the text ({len(text) - cut} characters) is the test split"
    return StoredText(text[:cut], text[cut:], (note,))


def _noted(stored: StoredText, notes: tuple[str, ...]) -> StoredText:
    return StoredText(stored.train, stored.test, (*notes, *stored.notes))


def _text_files(files: Sequence[Member]) -> Sequence[Member]:
    """Return those that say that they are text, or all where none does."""
    return [file for file in files if TEXT_NAME.fullmatch(file.name)] or files


def _passed_over(files: Sequence[Member]) -> str:
    others = [file for file in files if not TEXT_NAME.fullmatch(file.name)]
    return f"only .txt files were read, {len(others)} others like {others[0].shown} were not"


def _begins_like_text(file: Member) -> bool:
    """Return whether this may be meant as text; in which encoding, reading will tell."""
    content = first_bytes(file, LOOKED_AT)
    return content.startswith(UTF_16) or (bool(content) and not CONTROLS.intersection(content))


def _read_files(files: Sequence[Member]) -> Mapping[int, str]:
    """Read files in the order in which that is fastest.

    Raises:
        DataError: one cannot be read or is not text, or all are too much.
    """
    limit = min(READ_LIMIT, array_limit() // ROOM)
    left, texts = limit, {}
    for file in sorted(files, key=lambda file: file.place):
        with unpacked(file) as stream, unreadable(file.shown):
            content = bytes(read_up_to(stream, left + 1))
        left -= len(content)
        if left < 0:
            raise DataError(
                f"{file.shown} makes this text larger than {limit / 2**30:.2g} GiB",
                "give a part of it: all of it has to fit into memory, several times over",
            )
        texts[file.place] = _decoded(file.shown, content)
    return texts


def _decoded(shown: str, content: bytes) -> str:
    if b"\0" in content:
        raise DataError(
            f"{shown} is not text: a NUL byte at offset {content.index(0)}",
            "text is read as UTF-8; convert UTF-16 with `iconv -f UTF-16 -t UTF-8`",
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}",
            "convert it, from Windows' encoding for instance: `iconv -f WINDOWS-1252 -t UTF-8`",
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _splits(files: Sequence[Member]) -> tuple[Sequence[Sequence[Member]], tuple[str, ...]]:
    """Return training and test files, or all in one where the text is to be cut; and notes."""
    by_name = _splits_by_name(files)
    if by_name is not None:
        train, test = by_name
        left = len(files) - len(train) - len(test)
        note = f"names tell the splits: training files {len(train)}, test files {len(test)}"
        return by_name, (note, *([f"files of neither, passed over: {left}"] if left else []))
    if len(files) < TEST_EVERY:
        return (files,), ()
    test = files[TEST_EVERY - 1 :: TEST_EVERY]
    train = [file for place, file in enumerate(files, 1) if place % TEST_EVERY]
    note = f"every {TEST_EVERY}th of {len(files)} files, sorted by name, is a test file"
    return (train, test), (note,)


def _splits_by_name(files: Sequence[Member]) -> tuple[list[Member], list[Member]] | None:
    """Return training and test files, if names below the folder that all share tell them."""
    shared = _shared_folders([file.parts[:-1] for file in files])
    kinds: list[list[Member]] = [[] for _ in SPLIT_NAMES]
    for file in files:
        told = _kind_of_split(file.parts[shared:])
        if told is not None:
            kinds[told].append(file)
    train, *others = kinds
    test = next(filter(None, others), [])
    return (train, test) if train and test else None


def _kind_of_split(parts: Sequence[str]) -> int | None:
    """Return the place in `SPLIT_NAMES` of the first folder or name that says a split."""
    told = (kind for part in parts for kind, name in enumerate(SPLIT_NAMES) if name.match(part))
    return next(told, None)


def _shared_folders(folders: Sequence[tuple[str, ...]]) -> int:
    """Return how many folders the paths have in common before they part."""
    levels = zip(*folders, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))


def _joined(texts: Sequence[str]) -> str:
    """Put texts one after the other; each begins on a line of its own."""
    if len(texts) == 1:
        return texts[0]
    return "".join(text if text.endswith("\n") or not text else f"{text}\n" for text in texts)
