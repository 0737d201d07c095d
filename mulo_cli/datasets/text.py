"""Text as a data set: tokens at rest, and batches of windows or of lines with their next tokens."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer

from mulo_cli.datasets.base import BatchFunction, Dataset, sample_indices
from mulo_cli.datasets.options import DatasetOptions, Unit
from mulo_cli.datasets.text_files import StoredText
from mulo_cli.datasets.tokenizers import Tokenizer, lines_of, make_tokenizer
from mulo_cli.errors import DataError
from mulo_cli.types import Batch, Data, PRNGKey

LENGTH = 64
"""Tokens `L` of an example, unless the network says otherwise."""

PADDING = -1
"""The target where there is nothing left to tell; it is not counted."""

MOST_TOKENS = np.iinfo(np.int32).max
"""Of one split: places in it are told in 32 bits."""


@dataclass(frozen=True)
class StoredTokens:
    """A text as tokens.

    Attributes:
        splits: "train" and "test" -> `tokens`, uint16 or int32 `[n]`; with lines also `starts`,
            int32 `[m + 1]`: where each begins, and where the last one ends.
        vocabulary: its size `C`.
        start: the token before the first one of a line.
        unit: what an example is.
        spellings: how each token is written: `tokenizers.spelled` puts them together.
        notes: one sentence for each thing that was assumed.
    """

    splits: Mapping[str, Mapping[str, Integer[np.ndarray, "..."]]]
    vocabulary: int
    start: int
    unit: Unit
    spellings: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()


def tokenise(stored: StoredText, options: DatasetOptions) -> StoredTokens:
    """Turn both splits into tokens; lines without anything in them are dropped.

    Raises:
        DataError: there is no such tokenizer for this text, or a split is empty or too long.
        UsageError: `options.tokens` names nothing.
    """
    tokenizer = make_tokenizer(options, stored.train, stored.test)
    texts = {"train": stored.train, "test": stored.test}
    splits = {split: _split_tokens(tokenizer, text, options.unit) for split, text in texts.items()}
    for split, arrays in splits.items():
        check_size(split, len(arrays["tokens"]))
    return StoredTokens(
        splits=splits,
        vocabulary=tokenizer.size,
        start=tokenizer.start,
        unit=options.unit,
        spellings=tokenizer.spellings,
        notes=(*stored.notes, *_unknown_notes(splits, tokenizer.unknown)),
    )


def check_size(split: str, tokens: int) -> None:
    """Refuse a split without tokens, or with more than 32 bits can tell the places of.

    Raises:
        DataError: it has too few or too many.
    """
    if not 0 < tokens <= MOST_TOKENS:
        raise DataError(
            f"the {split} split has {tokens} tokens", f"a split may have 1 to {MOST_TOKENS}"
        )


def text_dataset(
    name: str, tokens: StoredTokens, *, source: str, licence: str, real: bool = True
) -> Dataset:
    """Make a data set of stored tokens.

    Args:
        name: as records call it.
        tokens: both splits.
        source: where it comes from.
        licence: its terms.
        real: False for synthetic data.
    """
    if tokens.unit == "line":
        make_batch = functools.partial(line_batch, start=tokens.start)
        # the last start is an end
        sizes = {split: len(arrays["starts"]) - 1 for split, arrays in tokens.splits.items()}
    else:
        make_batch = stream_batch
        sizes = {split: len(arrays["tokens"]) for split, arrays in tokens.splits.items()}
    return Dataset(
        name=name,
        kind="text",
        splits=tokens.splits,
        sizes=sizes,
        make_batch=make_batch,
        input_shape=(LENGTH,),
        num_classes=tokens.vocabulary,
        real=real,
        source=source,
        licence=licence,
        classes=tokens.spellings,
    )


def stream_batch(batch_size: int, length: int = LENGTH) -> BatchFunction:
    """Build the batch function of `{tokens: [n]}`: windows at uniform offsets, and what follows.

    Args:
        batch_size: examples `B` per batch.
        length: tokens `L` of an example.
    """

    def batch(data: Data, key: PRNGKey, step: Int[Array, ""]) -> Batch:
        tokens = data["tokens"]
        offsets = tokens.shape[0] - length
        if offsets < 1:
            raise DataError(
                f"a split of {tokens.shape[0]} tokens has no {length} of them and a next one",
                "use a longer text, or a network with a smaller length, as in `gpt:length=32`",
            )
        index = sample_indices(key, step, batch_size, offsets)
        window = tokens[index[:, None] + jnp.arange(length + 1)].astype(jnp.int32)
        return Batch(window[:, :-1], window[:, 1:])

    return batch


def line_batch(batch_size: int, length: int = LENGTH, *, start: int) -> BatchFunction:
    """Build the batch function of `{tokens: [n], starts: [m + 1]}`: lines from their beginning.

    Args:
        batch_size: examples `B` per batch.
        length: positions `L` of an example: longer lines are cut, shorter ones padded.
        start: the token before the first one; beyond a line's end inputs have it, too.
    """

    def batch(data: Data, key: PRNGKey, step: Int[Array, ""]) -> Batch:
        tokens, starts = data["tokens"], data["starts"]
        line = sample_indices(key, step, batch_size, starts.shape[0] - 1)
        places = starts[line][:, None] + jnp.arange(length)
        inside = places < starts[line + 1][:, None]
        last = tokens.shape[0] - 1
        targets = tokens[jnp.minimum(places, last)].astype(jnp.int32)
        return shifted(jnp.where(inside, targets, PADDING), start)

    return batch


def shifted(targets: Int[Array, "B L"], start: int) -> Batch:
    """Put before each target the one that precedes it, `start` at first and instead of padding."""
    before = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=start)
    return Batch(jnp.where(targets >= 0, before, start), targets)


def _split_tokens(
    tokenizer: Tokenizer, text: str, unit: Unit
) -> dict[str, Integer[np.ndarray, "..."]]:
    if unit == "stream":
        return {"tokens": tokenizer.encode(text)}
    lines = tokenizer.encode_lines(line for line in lines_of(text) if line.strip())
    return {"tokens": lines.tokens, "starts": lines.starts}


def _unknown_notes(
    splits: Mapping[str, Mapping[str, np.ndarray]], unknown: int | None
) -> tuple[str, ...]:
    """Tell what share of each split is unknown to the vocabulary, where something is."""
    if unknown is None:
        return ()
    shares = {name: np.mean(arrays["tokens"] == unknown) for name, arrays in splits.items()}
    return tuple(
        f"{share:.2g} of the {name} split's tokens are unknown to the vocabulary"
        for name, share in shares.items()
        if share > 0
    )
