"""Tokenizers: what goes in comes out, vocabularies have their size, models are checked."""

import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.datasets.options import DatasetOptions
from mulo_cli.datasets.sentencepiece_models import train_model
from mulo_cli.datasets.tokenizers import Pieces, lines_of, make_tokenizer, spelled
from mulo_cli.errors import DataError, UsageError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")

WORDS = ("the quick brown fox", "jumps over", "a lazy dog", "und läuft weiter", "through 42 fields")
REFERENCE = " ".join(list(topics.values())[:12]).encode("ascii", "ignore").decode()
TEXT = "".join(
    f"{' '.join(line.split())}\n" for line in (*WORDS, *REFERENCE.split("\n")) if line.strip()
)
VOCABULARY = 300


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.model"
    path.write_bytes(train_model(lines_of(TEXT), VOCABULARY).serialized_model_proto())
    return path


@pytest.fixture(params=["chars", "bytes", "sentencepiece", "file"])
def tokenizer(request, model_file):
    tokens = str(model_file) if request.param == "file" else request.param
    return make_tokenizer(DatasetOptions(tokens=tokens, vocabulary=VOCABULARY), TEXT)


def test_text_comes_back_from_its_tokens(tokenizer):
    found = tokenizer.decode(tokenizer.encode(TEXT))
    assert "".join(found.split()) == "".join(TEXT.split())
    assert found.count("\n") == TEXT.count("\n")


def test_tokens_are_of_the_vocabulary_and_every_one_can_be_spelled(tokenizer):
    tokens = tokenizer.encode(TEXT)
    assert tokens.dtype == np.uint16
    assert tokens.max() < tokenizer.size == len(tokenizer.spellings)
    assert 0 <= tokenizer.start < tokenizer.size


def test_lines_are_the_text_cut_at_their_ends(tokenizer):
    lines = TEXT.splitlines()
    tokens, starts = tokenizer.encode_lines(lines)
    assert len(starts) == len(lines) + 1
    assert starts.dtype == np.int32
    assert (starts[0], starts[-1]) == (0, len(tokens))
    np.testing.assert_array_equal(tokens, tokenizer.encode(TEXT))
    for line, begin, end in list(zip(lines, starts[:-1], starts[1:], strict=True))[:40]:
        assert tokenizer.decode(tokens[begin:end]).strip() == line


def test_no_lines_are_no_tokens(tokenizer):
    tokens, starts = tokenizer.encode_lines([])
    assert len(tokens) == 0
    assert list(starts) == [0]
    assert len(tokenizer.encode("")) == 0


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(codec="utf-8")))
def test_characters_and_bytes_lose_nothing(text):
    for tokens in ("chars", "bytes"):
        tokenizer = make_tokenizer(DatasetOptions(tokens=tokens), text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(codec="utf-8")))
def test_lines_are_what_stands_between_newlines(text):
    found = list(lines_of(text))
    assert "\n".join(found) == text.removesuffix("\n")


def test_characters_are_those_of_the_training_text_in_order():
    tokenizer = make_tokenizer(DatasetOptions(), "banana\n")
    assert tokenizer.spellings == ("\n", "a", "b", "n")
    assert list(tokenizer.encode("nab")) == [3, 1, 2]
    assert tokenizer.unknown is None


def test_a_test_character_that_training_lacks_is_an_unknown_token():
    tokenizer = make_tokenizer(DatasetOptions(), "banana", "bandana")
    assert tokenizer.size == 4
    assert tokenizer.unknown == 3
    assert list(tokenizer.encode("dab")) == [3, 0, 1]
    assert tokenizer.decode([3, 0]) == "\ufffda"


def test_a_character_without_a_token_is_an_error_where_there_is_no_unknown_token():
    tokenizer = make_tokenizer(DatasetOptions(), "banana")
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_lines([text])):
        with pytest.raises(DataError, match="the character 'd' is not in the vocabulary"):
            encode("bad")


def test_half_a_character_in_a_list_of_spellings_is_shown_as_unknown():
    assert "a" in spelled(["\ud800", "a"], [1, 0]).replace("\ufffd", "")


def test_lines_of_characters_have_an_end_even_where_the_text_has_no_newline():
    tokenizer = make_tokenizer(DatasetOptions(unit="line"), "banana")
    assert tokenizer.size == 4
    assert tokenizer.decode([tokenizer.start]) == "\n"


def test_bytes_are_256_whatever_the_text():
    tokenizer = make_tokenizer(DatasetOptions(tokens="bytes"), "a")
    assert tokenizer.size == 256
    assert list(tokenizer.encode("aé")) == [97, 0xC3, 0xA9]
    assert tokenizer.spellings[0xC3] == "<0xC3>"
    assert tokenizer.decode([0xC3]) == "\ufffd"


def test_many_characters_get_larger_numbers():
    text = "".join(map(chr, range(0x20000, 0x20000 + 70_000)))
    tokenizer = make_tokenizer(DatasetOptions(), text)
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, np.arange(70_000))


def test_a_trained_model_has_the_size_asked_for_and_t5s_special_tokens():
    model = train_model(lines_of(TEXT), 250)
    assert model.get_piece_size() == 250
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
    assert Pieces(model).start == 0
    assert model.encode(TEXT.splitlines()[0], add_eos=True)[-1] == 1


def test_the_same_text_gives_the_same_model():
    one, two = (train_model(lines_of(TEXT), VOCABULARY).serialized_model_proto() for _ in range(2))
    assert one == two


def test_a_line_of_any_length_counts_for_the_model():
    model = train_model([TEXT.replace("\n", " ")], VOCABULARY)
    assert "\u2581the" in {model.id_to_piece(token) for token in range(VOCABULARY)}


@pytest.mark.parametrize(
    ("vocabulary", "said", "hinted"),
    [
        (80_000, r"vocabulary=80000 .* it has enough for (\d+)", "vocabulary={} or fewer"),
        (10, r"vocabulary=10 .* characters alone are (\d+)", "ask for more than {}"),
    ],
)
def test_a_vocabulary_of_the_wrong_size_is_an_error_that_tells_the_right_one(
    vocabulary, said, hinted
):
    with pytest.raises(DataError, match=said) as caught:
        train_model(lines_of(TEXT), vocabulary)
    (bound,) = [word for word in caught.value.message.split() if word.isdecimal()]
    assert hinted.format(bound) in caught.value.hint
    tried = int(bound) + (0 if vocabulary > 10 else 50)
    assert train_model(lines_of(TEXT), tried).get_piece_size() == tried


def test_a_vocabulary_beyond_what_the_trainer_can_choose_from_is_an_error():
    for vocabulary in (1_000_001, 99_999_999_999):
        with pytest.raises(UsageError, match=f"vocabulary={vocabulary} is above 1000000"):
            train_model(["a text"], vocabulary)


def test_a_vocabulary_below_one_is_an_error():
    with pytest.raises(UsageError, match="vocabulary=0 is below 1"):
        train_model(["a text"], 0)


def test_a_name_that_means_nothing_is_an_error_that_tells_the_choice():
    with pytest.raises(UsageError, match="tokens=char is no file") as caught:
        make_tokenizer(DatasetOptions(tokens="char"), "a")
    assert "chars, bytes, sentencepiece" in caught.value.hint


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_broken_model_is_one_error_that_names_it(tmp_path, model_file, kept):
    broken = tmp_path / "broken.model"
    broken.write_bytes(model_file.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"broken\.model' is not a SentencePiece model"):
        make_tokenizer(DatasetOptions(tokens=str(broken)), "a")


def test_a_model_with_pieces_that_are_no_text_is_refused(tmp_path, model_file):
    content, piece = model_file.read_bytes(), "\u2581the".encode()
    assert piece in content
    (tmp_path / "odd.model").write_bytes(content.replace(piece, b"\xff" * len(piece)))
    with pytest.raises(DataError, match=r"odd\.model' is not a SentencePiece model"):
        make_tokenizer(DatasetOptions(tokens=str(tmp_path / "odd.model")), "a")


def test_the_library_writes_nothing_by_itself(tmp_path):
    (tmp_path / "broken.model").write_bytes(b"nothing of the kind")
    (tmp_path / "text").write_text(TEXT)
    script = (
        "import pathlib\n"
        "from mulo_cli.datasets.sentencepiece_models import load_model, train_model\n"
        "from mulo_cli.errors import DataError\n"
        "lines = pathlib.Path('text').read_text('utf-8').splitlines()\n"
        "train_model(lines, 300)\n"
        "for call in (lambda: train_model(lines, 90_000), lambda: load_model('broken.model')):\n"
        "    try:\n        call()\n    except DataError:\n        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_shared
def test_tiny_shakespeare_has_65_characters():
    text = (SHARED / "tinyshakespeare" / "input.txt").read_text("utf-8")
    for unit in ("stream", "line"):
        assert make_tokenizer(DatasetOptions(unit=unit), text).size == 65


@needs_shared
def test_t5s_own_model_can_be_used():
    (path,) = (SHARED / "sentencepiece").glob("*.model")
    tokenizer = make_tokenizer(DatasetOptions(tokens=str(path)), "")
    assert tokenizer.size == 32_101
    assert (tokenizer.start, tokenizer.unknown) == (0, 3)
    tokens, _ = tokenizer.encode_lines(["the movie was good ."])
    assert tokens[-1] == 1
    assert tokenizer.decode(tokens) == " the movie was good .\n"
