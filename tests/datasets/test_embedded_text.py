"""The text that every Python has: it is there, it is a text, and its splits are apart."""

import platform
import sys
from pydoc_data.topics import topics

import numpy as np
import pytest

from mulo_cli.datasets.embedded import pydoc
from mulo_cli.datasets.options import DatasetOptions
from mulo_cli.datasets.tokenizers import spelled
from mulo_cli.errors import DataError


@pytest.fixture(scope="module")
def texts():
    """Return both splits, decoded."""
    dataset = pydoc()
    splits = [dataset.splits[split]["tokens"] for split in ("train", "test")]
    return [spelled(dataset.classes, tokens) for tokens in splits]


def test_it_is_the_language_reference_and_what_is_left_out_is_there_already(texts):
    train, test = texts
    assert len(test) / len(train + test) == pytest.approx(0.1, abs=0.01)
    assert pydoc().sizes == {"train": len(train), "test": len(test)}
    assert train.endswith("\n")
    words = " ".join((train + test).split())
    left_out = [name for name, text in topics.items() if text not in train + test]
    assert 0 < len(left_out) < len(topics) / 2
    for name in left_out:
        last = topics[name].strip().split("\n\n")[-1]
        assert " ".join(last.split()) in words, f"{name} is lost"


def test_it_is_english(texts):
    words = texts[1].lower().split()
    assert len(words) > 1_000
    assert words.count("the") / len(words) > 0.03


def test_its_splits_share_no_passage(texts):
    train, test = ("".join(text.split()) for text in texts)
    passages = [test[at : at + 200] for at in range(0, len(test) - 200, 200)]
    assert len(passages) > 100
    assert not [passage for passage in passages if passage in train]


def test_its_source_tells_the_version_and_the_size():
    dataset = pydoc()
    assert platform.python_version() in dataset.source
    assert f"{sum(dataset.sizes.values())} characters" in dataset.source
    assert dataset.licence == "PSF-2.0"
    assert dataset.real


def test_it_has_the_options_of_a_text():
    dataset = pydoc(DatasetOptions(tokens="sentencepiece", vocabulary=1_000, unit="line"))
    assert dataset.num_classes == 1_000
    lines = dataset.splits["train"]["starts"]
    assert dataset.sizes["train"] == len(lines) - 1 > 4_000
    assert np.all(np.diff(lines) > 0)


def test_a_python_without_it_is_an_error_with_a_hint(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"without pydoc_data\.topics") as caught:
        pydoc()
    assert "text file of your own" in caught.value.hint
