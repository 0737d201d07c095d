"""The billion-word benchmark: sentences become padded lines, in order, none lost."""

from dataclasses import replace

import numpy as np
import pytest

from mulo_cli.datasets import lm1b, text
from mulo_cli.datasets.options import NO_OPTIONS, DatasetOptions
from mulo_cli.datasets.prepared import load_prepared
from mulo_cli.datasets.preparing import Origin, draft_of, write_text
from mulo_cli.datasets.tfds import Opened
from mulo_cli.datasets.tokenizers import Bytes, Lines, spelled
from mulo_cli.errors import DataError

TRAIN = [f"the cat number {i} sat on the mat ." for i in range(250)]
TEST = ["a dog is held out .", "so is é ."]
SIZES = {"train": len(TRAIN), "test": len(TEST)}
OPTIONS = replace(lm1b.OPTIONS, vocabulary=45)


def opened():
    """Return records as both ways of tfds give them: text, or its bytes."""
    records = [{"text": text} for text in TRAIN], [{"text": text.encode()} for text in TEST]
    blocks = {split: iter([of[:3], of[3:]]) for split, of in zip(SIZES, records, strict=True)}
    return Opened((), blocks, "Read from a test.")


def tokenised(options=OPTIONS, sizes=SIZES):
    """Return the tokens and every report on the way."""
    reports, steps = [], lm1b.tokenise_sentences(opened(), sizes, options)
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return end.value, reports


@pytest.mark.parametrize("options", [OPTIONS, DatasetOptions(tokens="bytes", unit="line")])
def test_every_sentence_is_a_line_whatever_the_blocks(options, monkeypatch, tmp_path):
    stored, _ = tokenised(options)
    monkeypatch.setattr(lm1b, "BLOCK", 7)
    monkeypatch.setattr(lm1b, "TRAINING_LINES", 1_000)
    in_blocks, reports = tokenised(options)
    for split, arrays in stored.splits.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, in_blocks.splits[split][name])
        starts = arrays["starts"]
        assert len(starts) - 1 == SIZES[split]
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert reports[-1].done == reports[-1].total == sum(SIZES.values())
    with draft_of(tmp_path / "lm1b", overwrite=False) as draft:
        list(write_text(draft, stored, Origin("lm1b", "a test", "none")))
    dataset = load_prepared(tmp_path / "lm1b", NO_OPTIONS)
    assert dataset.sizes == SIZES
    train = dataset.splits["train"]
    lines = [
        spelled(dataset.classes, train["tokens"][start:end]).strip()
        for start, end in zip(train["starts"][:-1], train["starts"][1:], strict=True)
    ]
    assert lines == TRAIN


def test_the_vocabulary_is_that_of_the_papers_and_made_of_training_text_alone():
    assert (lm1b.OPTIONS.vocabulary, lm1b.OPTIONS.unit) == (32_000, "line")
    stored, _ = tokenised()
    assert stored.vocabulary == 45
    assert "é" not in "".join(stored.spellings)
    assert any("trained on the first 250" in note for note in stored.notes)


def test_more_tokens_than_32_bits_can_tell_the_places_of_are_refused_at_once(monkeypatch):
    tokens = sum(len(f"{line}\n".encode()) for line in TRAIN)
    monkeypatch.setattr(text, "MOST_TOKENS", tokens)
    options = DatasetOptions(tokens="bytes", unit="line")
    assert len(tokenised(options)[0].splits["train"]["tokens"]) == tokens
    monkeypatch.setattr(text, "MOST_TOKENS", tokens // 2)
    monkeypatch.setattr(lm1b, "BLOCK", 10)
    with pytest.raises(DataError, match=r"train split has (\d+) tokens") as caught:
        tokenised(options)
    (found,) = [int(word) for word in caught.value.message.split() if word.isdecimal()]
    assert tokens // 2 < found < tokens * 0.6


def test_places_of_tokens_do_not_wrap(monkeypatch):
    """Two lines of 2^30 tokens each, which take no memory: all are one."""

    class Long(Bytes):
        def encode_lines(self, lines):
            (_,) = lines
            return Lines(np.broadcast_to(np.uint16(0), 2**30), np.array([0, 2**30], np.int32))

    monkeypatch.setattr(lm1b, "BLOCK", 1)
    with pytest.raises(DataError, match=f"{2**31} tokens"):
        list(lm1b._encoded(Long(), iter("ab"), "train", 0, 1))


def test_a_split_without_sentences_is_an_error():
    with pytest.raises(DataError, match="train split has 0 tokens"):
        list(lm1b._encoded(Bytes(), iter(()), "train", 0, 1))


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_sentences_are_an_error(split):
    with pytest.raises(DataError, match=f"the {split} split has {SIZES[split]} sentences instead"):
        tokenised(sizes={**SIZES, split: 251})
