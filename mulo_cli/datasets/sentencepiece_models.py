"""SentencePiece models, read from a file or trained; the only file that imports the library.

Unigram models with T5's special tokens: padding 0, end 1, unknown 2 (C. Raffel et al., *Exploring
the limits of transfer learning with a unified text-to-text transformer*, 2020).
"""

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mulo_cli.errors import DataError, UsageError, shortened, shortened_path
from mulo_cli.folders import below_home

LARGEST_MODEL = 64 * 2**20
"""Bytes of a model file; those in use have about 1 to 5 million."""

SENTENCE = 1_000
"""Characters of a training sentence. The trainer leaves out longer ones: they are cut instead."""

TRAINING_CHARACTERS = 50_000_000
"""Of a longer text, lines that lie evenly spread make the model: a minute, and some GB at most."""

MOST_PIECES = 1_000_000
"""The trainer chooses pieces from as many candidates."""

SEED = 0
QUIET = 2
"""The library's level of errors, below which it writes to stderr by itself."""

TOO_LARGE = re.compile(r"value <= (\d+)")
TOO_SMALL = re.compile(r"required_chars\. \d+ vs (\d+)")


def load_model(name: str) -> Any:
    """Read a model from its file, as a `sentencepiece.SentencePieceProcessor`.

    Raises:
        UsageError: there is no such file.
        DataError: it is no SentencePiece model.
    """
    path = below_home(name)
    if not path.is_file():
        raise UsageError(
            f"tokens={shortened(name)[1:-1]} is no file",
            "give chars, bytes, sentencepiece, or the path of a SentencePiece model",
        )
    try:
        if path.stat().st_size > LARGEST_MODEL:
            raise ValueError(f"it is larger than {LARGEST_MODEL // 2**20} MiB")
        return _processor(path.read_bytes())
    except (OSError, ValueError, RuntimeError) as error:
        # a RuntimeError speaks of places in the library
        reason = "it is damaged" if isinstance(error, RuntimeError) else str(error)
        raise DataError(
            f"{shortened_path(path)} is not a SentencePiece model: {reason}",
            "give a .model file of that library",
        ) from None


def train_model(lines: Iterable[str], vocabulary: int) -> Any:
    """Train a unigram model of `vocabulary` pieces; the same lines give the same model.

    Raises:
        DataError: the lines have no model of that size.
        UsageError: no model has that size.
    """
    import sentencepiece  # heavy, and only wanted for such models

    if vocabulary < 1:
        raise UsageError(f"vocabulary={vocabulary} is below 1", "give some thousands")
    if vocabulary > MOST_PIECES:
        raise UsageError(f"vocabulary={vocabulary} is above {MOST_PIECES}", "give some thousands")
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(SEED)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(list(lines)),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,  # with more, sums are added up in any order
            minloglevel=QUIET,
        )
    except RuntimeError as error:
        raise _wrong_size(vocabulary, str(error)) from None
    return _processor(model.getvalue())


def _processor(content: bytes) -> Any:
    import sentencepiece

    sentencepiece.set_min_log_level(QUIET)
    if not content:
        raise ValueError("it is empty")
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    if not model.get_piece_size():
        raise ValueError("it has no pieces")
    # a model may be readable, and still not be usable
    model.encode("a")
    model.id_to_piece(list(range(model.get_piece_size())))
    return model


def _sentences(lines: list[str]) -> Iterator[str]:
    """Give the lines in pieces, evenly spread ones if there are too many."""
    every = -(-sum(map(len, lines)) // TRAINING_CHARACTERS)
    for line in lines[:: max(1, every)]:
        for at in range(0, len(line), SENTENCE):
            yield line[at : at + SENTENCE]


def _wrong_size(vocabulary: int, message: str) -> DataError:
    """Say which size would do, as far as the trainer tells it."""
    said = f"a SentencePiece model of vocabulary={vocabulary} cannot be trained on this text"
    if found := TOO_LARGE.search(message):
        return DataError(
            f"{said}: it has enough for {found[1]}", f"ask for vocabulary={found[1]} or fewer"
        )
    if found := TOO_SMALL.search(message):
        return DataError(
            f"{said}: its characters alone are {found[1]}", f"ask for more than {found[1]}"
        )
    return DataError(f"{said}: {message.rpartition(']')[2].strip() or message}", "use tokens=bytes")
