"""The billion-word benchmark's sentences as tokens, a block at a time: they are 4 GB of text.

C. Chelba et al., *One billion word benchmark for measuring progress in statistical language
modeling* (2013). The vocabulary of 32 000 pieces is that of the papers' language models.
"""

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping

import numpy as np

from mulo_cli.datasets.options import DatasetOptions
from mulo_cli.datasets.preparing import Progress
from mulo_cli.datasets.text import StoredTokens, check_size
from mulo_cli.datasets.tfds import Opened
from mulo_cli.datasets.tokenizers import Lines, Tokenizer, make_tokenizer
from mulo_cli.errors import DataError

OPTIONS = DatasetOptions(tokens="sentencepiece", vocabulary=32_000, unit="line")
"""Unless the user wants something else."""

TRAINING_LINES = 1_000_000
"""Sentences, the first of the training split, that a SentencePiece model is trained on; their order
was shuffled by the publisher."""


def tokenise_sentences(
    opened: Opened, sizes: Mapping[str, int], options: DatasetOptions
) -> Generator[Progress, None, StoredTokens]:
    """Turn all sentences into tokens, telling how far it is.

    Args:
        opened: where they come from.
        sizes: split -> number of sentences there must be.
        options: which tokenizer; an example is a line.

    Raises:
        DataError: there are more or fewer sentences, or more tokens than a split may have.
    """
    total = sum(sizes.values())
    train = _sentences(opened.blocks["train"])
    first = list(itertools.islice(train, TRAINING_LINES))
    yield Progress(0, total, f"a vocabulary from the first {len(first)} sentences")
    tokenizer = make_tokenizer(options, "\n".join(first))
    of_split = {
        "train": itertools.chain(first, train),
        "test": _sentences(opened.blocks["test"]),
    }
    splits, done = {}, 0
    for split, sentences in of_split.items():
        lines = yield from _encoded(tokenizer, sentences, split, done, total)
        found = len(lines.starts) - 1
        if found != sizes[split]:
            raise DataError(
                f"the {split} split has {found} sentences instead of {sizes[split]}",
                "the source is another one than it says, or incomplete",
            )
        done += found
        splits[split] = {"tokens": lines.tokens, "starts": lines.starts}
    return StoredTokens(
        splits=splits,
        vocabulary=tokenizer.size,
        start=tokenizer.start,
        unit="line",
        spellings=tokenizer.spellings,
        notes=(opened.note, _told(options, len(first))),
    )


def _told(options: DatasetOptions, lines: int) -> str:
    if options.tokens == "sentencepiece":
        return f"The SentencePiece model was trained on the first {lines} training sentences."
    return f"Tokens are those of {options.tokens}."


def _sentences(blocks: Iterable[list[Mapping[str, str | bytes]]]) -> Iterator[str]:
    for block in blocks:
        for record in block:
            text = record["text"]
            yield text.decode("utf-8") if isinstance(text, bytes) else text


BLOCK = 100_000
"""Sentences between two reports."""


def _encoded(
    tokenizer: Tokenizer, sentences: Iterator[str], split: str, done: int, total: int
) -> Generator[Progress, None, Lines]:
    """Encode the sentences of a split block by block, and put the blocks together."""
    tokens, starts, count = [], [np.zeros(1, np.int32)], 0
    while block := list(itertools.islice(sentences, BLOCK)):
        lines = tokenizer.encode_lines(block)
        tokens.append(lines.tokens)
        before, count = count, count + len(lines.tokens)
        check_size(split, count)
        starts.append(lines.starts[1:] + np.int32(before))
        done += len(block)
        yield Progress(done, total, f"{split} sentences as tokens")
    check_size(split, count)
    return Lines(np.concatenate(tokens), np.concatenate(starts))
