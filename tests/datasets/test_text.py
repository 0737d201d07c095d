"""Batches of text: windows and lines, the next-token relation, padding, and who draws what."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.datasets.base import at_length
from mulo_cli.datasets.options import DatasetOptions
from mulo_cli.datasets.text import text_dataset, tokenise
from mulo_cli.datasets.text_files import StoredText, read_text
from mulo_cli.datasets.tokenizers import spelled
from mulo_cli.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")

LINES = tuple(f"{'ab' * (number % 9)}c{number}" for number in range(60))
STORED = StoredText("\n".join(LINES[:50]) + "\n\n \n", "\n".join(LINES[50:]), ("a note",))
BATCH, LENGTH = 256, 8
SMALL_CONSTANT = 10_000
"""Bytes that a batch function may hold by itself."""


def dataset_of(stored=STORED, **options):
    tokens = tokenise(stored, DatasetOptions(**options))
    return text_dataset("mine", tokens, source="here", licence="none")


def drawn(dataset, split="train", batch_size=BATCH, length=LENGTH, step=0, key=0):
    data = jax.tree.map(jnp.asarray, dataset.splits[split])
    make = jax.jit(at_length(dataset, length).make_batch(batch_size))
    return jax.tree.map(np.asarray, make(data, jax.random.key(key), jnp.int32(step)))


@pytest.mark.parametrize("tokens", ["chars", "bytes"])
def test_a_window_is_a_piece_of_the_text_and_targets_are_one_further(tokens):
    dataset = dataset_of(tokens=tokens)
    batch = drawn(dataset)
    assert batch.inputs.shape == batch.targets.shape == (BATCH, LENGTH)
    assert batch.inputs.dtype == batch.targets.dtype == np.int32
    np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        window = spelled(dataset.classes, np.append(inputs, targets[-1]))
        assert window in STORED.train
        assert len(window) == LENGTH + 1


def test_every_window_comes_with_the_first_and_the_last_and_they_are_alike_in_frequency():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 20)))
    dataset = dataset_of(StoredText(text, text))
    first = drawn(dataset, batch_size=20_000, length=4).inputs[:, 0]
    times = np.bincount(first, minlength=20)
    assert times[16:].sum() == 0, "a window of 4 and its next token begins at 0 to 15"
    # binomial counts: the standard deviation is 34, and no count lies beyond 5 of them
    np.testing.assert_allclose(times[:16], 20_000 / 16, atol=5 * 34)


def test_a_window_may_be_all_of_a_split_but_not_more():
    dataset = dataset_of(StoredText("abcdefghi", "abcdefghi"))
    assert spelled(dataset.classes, drawn(dataset, length=8).inputs[0]) == "abcdefgh"
    with pytest.raises(DataError, match="a split of 9 tokens has no 9 of them and a next one"):
        drawn(dataset, length=9)


def test_windows_of_one_split_never_show_the_other():
    stored = StoredText("ab" * 40, "cd" * 10)
    dataset = dataset_of(stored)
    test = dataset_of(StoredText("abcd", "cd" * 10))
    assert set(spelled(dataset.classes, drawn(dataset).inputs.ravel())) == {"a", "b"}
    assert set(spelled(test.classes, drawn(test, "test").targets.ravel())) == {"c", "d"}


@pytest.mark.parametrize("tokens", ["chars", "bytes"])
def test_a_line_comes_from_its_beginning_with_its_end_and_padding(tokens):
    dataset = dataset_of(tokens=tokens, unit="line")
    assert dataset.sizes == {"train": 50, "test": 10}, "empty lines are dropped"
    batch = drawn(dataset, length=30)
    (newline,) = [token for token, text in enumerate(dataset.classes) if text == "\n"]
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        counted = targets >= 0
        size = counted.sum()
        line = spelled(dataset.classes, targets[counted])
        assert line.endswith("\n")
        assert line.strip() in LINES[:50]
        assert counted[:size].all(), "padding comes last"
        assert inputs[0] == newline
        np.testing.assert_array_equal(inputs[1:size], targets[: size - 1])
        assert (inputs[size:] == newline).all()
        assert (targets[size:] == -1).all()


def test_a_long_line_is_cut_and_has_no_end():
    dataset = dataset_of(StoredText("abcdefghijkl\n" * 3, "abc\n"), unit="line")
    batch = drawn(dataset, length=5)
    assert spelled(dataset.classes, batch.targets[0]) == "abcde"
    assert spelled(dataset.classes, batch.inputs[0]) == "\nabcd"


def test_the_last_line_is_drawn_whole():
    dataset = dataset_of(unit="line")
    batch = drawn(dataset, "test", length=40)
    lines = {spelled(dataset.classes, targets[targets >= 0]).strip() for targets in batch.targets}
    assert lines == set(LINES[50:])


@pytest.mark.parametrize("unit", ["stream", "line"])
def test_a_batch_depends_on_its_key_and_step_alone(unit):
    dataset = dataset_of(unit=unit)
    first = drawn(dataset, step=3)
    jax.tree.map(np.testing.assert_array_equal, first, drawn(dataset, step=3))
    for other in (drawn(dataset, step=4), drawn(dataset, step=3, key=1)):
        assert not np.array_equal(first.inputs, other.inputs)


@pytest.mark.parametrize("unit", ["stream", "line"])
def test_the_text_is_an_argument_and_batches_can_be_mapped(unit):
    dataset = dataset_of(unit=unit)
    make, data = dataset.make_batch(4, length=LENGTH), dataset.splits["train"]
    arguments = (jax.tree.map(jnp.asarray, data), jax.random.key(0))
    traced = jax.make_jaxpr(make)(*arguments, jnp.int32(0))
    assert sum(np.asarray(constant).nbytes for constant in traced.consts) < SMALL_CONSTANT
    mapped = jax.jit(jax.vmap(make, (None, None, 0)))(*arguments, jnp.arange(3))
    single = [jax.jit(make)(*arguments, jnp.int32(step)).inputs for step in range(3)]
    np.testing.assert_array_equal(mapped.inputs, np.stack(single))


def test_a_dataset_says_what_it_is():
    dataset = dataset_of()
    assert (dataset.kind, dataset.real, dataset.input_shape) == ("text", True, (64,))
    assert dataset.sizes == {"train": len(STORED.train), "test": len(STORED.test)}
    assert dataset.num_classes == len(dataset.classes) == len(set(STORED.train + STORED.test))


def test_unknown_tokens_are_told():
    tokens = tokenise(StoredText("aaaa", "abab", ("a note",)), DatasetOptions())
    assert tokens.vocabulary == 2
    assert tokens.notes == (
        "a note",
        "0.5 of the test split's tokens are unknown to the vocabulary",
    )


def test_a_text_of_empty_lines_is_an_error():
    with pytest.raises(DataError, match="the test split has 0 tokens"):
        tokenise(StoredText("a\n", "\n\n"), DatasetOptions(unit="line"))


@needs_shared
@pytest.mark.parametrize(("unit", "examples"), [("stream", 1_003_856), ("line", 29_242)])
def test_tiny_shakespeare_has_65_characters_in_either_form(unit, examples):
    dataset = dataset_of(read_text(SHARED / "tinyshakespeare" / "input.txt"), unit=unit)
    assert dataset.num_classes == 65
    assert dataset.sizes["train"] == examples
    assert dataset.splits["train"]["tokens"].dtype == np.uint16


@needs_shared
def test_reviews_in_t5s_pieces_follow_t5s_convention():
    (model,) = (SHARED / "sentencepiece").glob("*.model")
    stored = read_text(SHARED / "movie_reviews" / "movie_reviews.zip")
    few = StoredText(stored.train[:50_000], stored.test[:5_000])
    dataset = dataset_of(few, tokens=str(model), unit="line")
    assert dataset.num_classes == 32_101
    batch = drawn(dataset, length=64)
    assert (batch.inputs[:, 0] == 0).all()
    counted = (batch.targets >= 0).sum(axis=1)
    ends = (batch.targets == 1).sum(axis=1)
    assert ((ends == 1) | (counted == 64)).all(), "a line without an end has been cut"
    assert 15 < counted.mean() < 50
