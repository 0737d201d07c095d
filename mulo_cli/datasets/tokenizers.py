"""From text to numbers: characters, bytes, or the pieces of a SentencePiece model.

SentencePiece: T. Kudo and J. Richardson, *SentencePiece: A simple and language independent subword
tokenizer and detokenizer for neural text processing* (2018), through its own library.

Characters and bytes have the newline: it ends a line and stands before one, as it does in running
text. A SentencePiece model does not know it: its end token follows every line, and lines begin
with its padding token, as in T5 (C. Raffel et al., 2020, section 2.1 and its published model).
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Integer

from mulo_cli.datasets.options import DatasetOptions
from mulo_cli.datasets.sentencepiece_models import load_model, train_model
from mulo_cli.errors import DataError

Tokens: TypeAlias = Integer[np.ndarray, " n"]

NEWLINE = "\n"
UNKNOWN = "\ufffd"
"""How an unknown token is spelled."""

BYTE = re.compile("<0x([0-9A-F]{2})>")
"""How a byte is spelled that is no character by itself."""

ASCII = 128
BLOCK_LINES = 10_000
"""Lines that are turned into tokens at once; memory for intermediate lists stays small."""

BLOCK_CHARACTERS = 2**20
CODE_POINTS = 0x110000
NO_TOKEN = -1
"""Of a character that is not in the alphabet."""


class Lines(NamedTuple):
    """Lines as tokens, one after the other.

    Attributes:
        tokens: of all lines, each with its end token if there is one.
        starts: where each line begins, and, last, where the last one ends.
    """

    tokens: Tokens
    starts: Integer[np.ndarray, " m1"]


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into tokens and back."""

    @property
    def size(self) -> int:
        """Return the size of the vocabulary."""
        ...

    @property
    def start(self) -> int:
        """Return the token that stands before the first one of a line."""
        ...

    @property
    def unknown(self) -> int | None:
        """Return the token of everything that has none of its own, if there is such a token."""
        ...

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return how each token is spelled; see `spelled`."""
        ...

    def encode(self, text: str) -> Tokens:
        """Return running text as tokens."""
        ...

    def encode_lines(self, lines: Iterable[str]) -> Lines:
        """Return lines, given without their newlines, as tokens with their ends."""
        ...

    def decode(self, tokens: Sequence[int] | Tokens) -> str:
        """Return tokens as text."""
        ...


def make_tokenizer(options: DatasetOptions, training_text: str, test_text: str = "") -> Tokenizer:
    """Build the tokenizer that was asked for.

    Args:
        options: `tokens`, `vocabulary` and `unit` say which.
        training_text: what a vocabulary is made of.
        test_text: what must be expressible, too: with characters that training lacks, a vocabulary
            of characters has an unknown token.

    Raises:
        DataError: a SentencePiece model is broken, or cannot have the size asked for.
        UsageError: `tokens` names nothing.
    """
    if options.tokens == "chars":
        return _characters(training_text, test_text, with_newline=options.unit == "line")
    if options.tokens == "bytes":
        return Bytes()
    if options.tokens == "sentencepiece":
        return Pieces(train_model(lines_of(training_text), options.vocabulary))
    return Pieces(load_model(options.tokens))


def lines_of(text: str) -> Iterator[str]:
    """Give one line after the other, without its newline."""
    start = 0
    while start < len(text):
        end = text.find(NEWLINE, start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def spelled(spellings: Sequence[str], tokens: Iterable[int] | Tokens) -> str:
    """Return tokens as text; bytes that are spelled `<0xC3>` make characters together."""
    content = b"".join(_content(spellings[int(token)]) for token in tokens)
    return content.decode("utf-8", "replace")


def token_type(size: int) -> type[np.uint16] | type[np.int32]:
    """Return the smallest type that holds every token of a vocabulary."""
    return np.uint16 if size <= np.iinfo(np.uint16).max + 1 else np.int32


@dataclass(frozen=True)
class Characters:
    """Every character of the training text is a token.

    Attributes:
        alphabet: the characters, sorted.
        has_unknown: whether there is one more token, for all others.
    """

    alphabet: str = field(repr=False)
    has_unknown: bool = False

    @property
    def size(self) -> int:
        """Return the size of the vocabulary."""
        return len(self.alphabet) + self.has_unknown

    @property
    def start(self) -> int:
        """Return the newline, or the first character where lines are not told apart."""
        return max(0, self.alphabet.find(NEWLINE))

    @property
    def unknown(self) -> int | None:
        """Return the last token, if test characters made it necessary."""
        return len(self.alphabet) if self.has_unknown else None

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return the characters."""
        return (*self.alphabet, *((UNKNOWN,) if self.has_unknown else ()))

    def encode(self, text: str) -> Tokens:
        """Return the place of every character in the alphabet.

        Raises:
            DataError: a character has no token, and there is none for unknown ones.
        """
        table = np.full(CODE_POINTS, NO_TOKEN if self.unknown is None else self.unknown, np.int32)
        table[_code_points(self.alphabet)] = np.arange(len(self.alphabet))
        parts = (text[at : at + BLOCK_CHARACTERS] for at in range(0, len(text), BLOCK_CHARACTERS))
        kind = token_type(self.size)
        return _joined([_known(table[_code_points(part)], part, kind) for part in parts], kind)

    def encode_lines(self, lines: Iterable[str]) -> Lines:
        """Return lines as tokens, each with its newline."""
        return _lines_with_newlines(self.encode, lines, self.start)

    def decode(self, tokens: Sequence[int] | Tokens) -> str:
        """Return tokens as text."""
        return spelled(self.spellings, tokens)


@dataclass(frozen=True)
class Bytes:
    """Every byte of the text's UTF-8 form is a token."""

    size: int = 256
    start: int = ord(NEWLINE)
    unknown: None = None

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return ASCII characters, and parts of others as SentencePiece spells them: `<0xC3>`."""
        return tuple(chr(byte) if byte < ASCII else f"<0x{byte:02X}>" for byte in range(self.size))

    def encode(self, text: str) -> Tokens:
        """Return the bytes."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(token_type(self.size))

    def encode_lines(self, lines: Iterable[str]) -> Lines:
        """Return lines as tokens, each with its newline."""
        return _lines_with_newlines(self.encode, lines, self.start)

    def decode(self, tokens: Sequence[int] | Tokens) -> str:
        """Return tokens as text."""
        return spelled(self.spellings, tokens)


@dataclass(frozen=True)
class Pieces:
    """The pieces of a SentencePiece model.

    Attributes:
        model: a `sentencepiece.SentencePieceProcessor`; that library is heavy and comes late.
    """

    model: Any

    @property
    def size(self) -> int:
        """Return the number of pieces, special ones included."""
        return self.model.get_piece_size()

    @property
    def start(self) -> int:
        """Return the padding token, or what comes nearest to it."""
        model = self.model
        special = (model.pad_id(), model.bos_id(), model.eos_id(), model.unk_id())
        return next(token for token in special if token >= 0)

    @property
    def unknown(self) -> int:
        """Return the unknown token; every model has one."""
        return self.model.unk_id()

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return the pieces with spaces as they are meant; an end is a newline."""
        return tuple(self._spelling(token) for token in range(self.size))

    def encode(self, text: str) -> Tokens:
        """Return every line's pieces and its end token."""
        return self.encode_lines(lines_of(text)).tokens

    def encode_lines(self, lines: Iterable[str]) -> Lines:
        """Return lines as tokens, each with its end token if the model has one."""
        kind, left = token_type(self.size), iter(lines)
        tokens, lengths = [], [0]
        while block := list(itertools.islice(left, BLOCK_LINES)):
            pieces = self.model.encode(block, add_eos=self.model.eos_id() >= 0)
            lengths += map(len, pieces)
            tokens.append(np.fromiter(itertools.chain.from_iterable(pieces), kind))
        return Lines(_joined(tokens, kind), np.cumsum(lengths, dtype=np.int32))

    def decode(self, tokens: Sequence[int] | Tokens) -> str:
        """Return tokens as text."""
        return spelled(self.spellings, tokens)

    def _spelling(self, token: int) -> str:
        piece = self.model.id_to_piece(token)
        if token == self.model.eos_id():
            return NEWLINE
        if self.model.is_control(token):
            return ""
        if self.model.is_unknown(token):
            return UNKNOWN
        return piece.replace("\u2581", " ")


def _characters(training_text: str, test_text: str, *, with_newline: bool) -> Characters:
    known = set(training_text) | ({NEWLINE} if with_newline else set())
    return Characters("".join(sorted(known)), has_unknown=not set(test_text) <= known)


def _known(found: Tokens, text: str, kind: type[np.uint16] | type[np.int32]) -> Tokens:
    """Return tokens as their type, if every character has one."""
    missing = found == NO_TOKEN
    if missing.any():
        character = text[int(np.argmax(missing))]
        raise DataError(
            f"the character {character!r} is not in the vocabulary, which has no unknown token",
            "use tokens=bytes, or a SentencePiece model",
        )
    return found.astype(kind)


def _content(spelling: str) -> bytes:
    byte = BYTE.fullmatch(spelling)
    # a file of spellings may hold half a character, which has no UTF-8 form
    return bytes([int(byte[1], 16)]) if byte else spelling.encode("utf-8", "surrogatepass")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _lines_with_newlines(
    encode: Callable[[str], Tokens], lines: Iterable[str], newline: int
) -> Lines:
    left, tokens = iter(lines), []
    while block := list(itertools.islice(left, BLOCK_LINES)):
        tokens.append(encode("".join(f"{line}{NEWLINE}" for line in block)))
    joined = _joined(tokens, np.uint16)
    ends = np.flatnonzero(joined == newline) + 1
    return Lines(joined, np.concatenate([[0], ends]).astype(np.int32))


def _joined(parts: Sequence[np.ndarray], dtype: Any) -> Tokens:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
