"""Prepared sets: what was written comes back, whole or not at all, and damage is named."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.datasets import preparing
from mulo_cli.datasets.mapped import MappedRows
from mulo_cli.datasets.options import NO_OPTIONS, DatasetOptions
from mulo_cli.datasets.prepared import (
    data_folder,
    describe_prepared,
    is_prepared,
    load_prepared,
    prepared_names,
    read_card,
    verify,
)
from mulo_cli.datasets.preparing import ImageStream, Origin, draft_of, stream_of, write_images
from mulo_cli.datasets.tokenizers import spelled
from mulo_cli.errors import DataError, OutputError
from tests.datasets.prepared_sets import CLASSES, TEXT, prepare_images, prepare_text, some_images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder of data of this test's own, which does not exist yet."""
    monkeypatch.setenv("MULO_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_images_come_back_as_they_were(folder):
    stored, place = some_images(), prepare_images(folder)
    dataset = load_prepared(place, NO_OPTIONS)
    for split, arrays in stored.splits.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(dataset.splits[split][name], array)
            assert dataset.splits[split][name].dtype == array.dtype
    assert (dataset.name, dataset.kind, dataset.num_classes) == ("mine", "images", len(CLASSES))
    assert (dataset.classes, dataset.notes) == (CLASSES, ("Made up.",))
    assert dataset.sizes == {"train": 60, "test": 12}
    assert dataset.real
    batch = jax.jit(dataset.make_batch(4_096))(
        jax.tree.map(jnp.asarray, dataset.splits["train"]), jax.random.key(0), jnp.int32(0)
    )
    np.testing.assert_allclose(batch.inputs.mean((0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(batch.inputs.std((0, 1, 2)), 1, atol=0.05)


@pytest.mark.parametrize("unit", ["stream", "line"])
@pytest.mark.parametrize("tokens", ["chars", "bytes"])
def test_text_comes_back_as_it_was_even_if_tokens_are_parts_of_characters(folder, unit, tokens):
    dataset = load_prepared(prepare_text(folder, unit=unit, tokens=tokens), NO_OPTIONS)
    train = dataset.splits["train"]
    lines = [line for line in TEXT.train.splitlines() if line]
    told = "".join(f"{line}\n" for line in lines) if unit == "line" else TEXT.train
    assert spelled(dataset.classes, train["tokens"]) == told
    assert dataset.sizes["train"] == (len(lines) if unit == "line" else len(TEXT.train))
    batch = dataset.make_batch(4, length=16)(train, jax.random.key(0), jnp.int32(0))
    assert (int(batch.targets.min()) == -1) == (unit == "line"), "lines are padded"


@pytest.mark.parametrize("prepare_one", [prepare_images, prepare_text])
def test_a_description_has_the_shapes_of_what_is_loaded(folder, prepare_one):
    place = prepare_one(folder)
    described, loaded = (f(place, NO_OPTIONS) for f in (describe_prepared, load_prepared))
    shapes = jax.tree.map(lambda array: (array.shape, array.dtype), loaded.splits)
    assert jax.tree.map(lambda array: (array.shape, array.dtype), described.splits) == shapes
    assert (described.sizes, described.classes) == (loaded.sizes, loaded.classes)


def test_a_large_set_stays_in_its_file_unless_the_user_says_otherwise(folder, monkeypatch):
    place = prepare_images(folder)

    def fed(feed):
        splits = load_prepared(place, DatasetOptions(feed=feed)).splits
        return [isinstance(splits[split]["inputs"], MappedRows) for split in ("train", "test")]

    assert (fed("auto"), fed("always"), fed("never")) == ([False] * 2, [True] * 2, [False] * 2)
    monkeypatch.setattr("mulo_cli.datasets.prepared.RESIDENT_LIMIT", 60 * 8 * 8 * 3 - 1)
    assert (fed("auto"), fed("never")) == ([True, False], [False] * 2), "the test split is small"


def test_the_folder_of_data_is_where_the_user_says(folder, monkeypatch, tmp_path):
    assert data_folder() == folder
    assert prepared_names() == ()
    prepare_images(folder, "b")
    prepare_images(folder, "a")
    (folder / ".c.draft").mkdir()
    shutil.copy(folder / "a" / "dataset.json", folder / ".c.draft")
    (folder / "other").mkdir()
    assert prepared_names() == ("a", "b")
    monkeypatch.delenv("MULO_DATA_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "mulo" / "data"


def _cut(place):
    path = place / "train_inputs.npy"
    path.write_bytes(path.read_bytes()[:-1])
    return path.name


def _lose(place):
    (place / "test_targets.npy").unlink()
    return "test_targets.npy"


def _swap(place):
    shutil.copy(place / "test_inputs.npy", place / "train_inputs.npy")
    return "train_inputs.npy"


def _pickled(place):
    size = (place / "train_targets.npy").stat().st_size
    np.save(place / "train_targets.npy", np.array([{"a": 1}], object), allow_pickle=True)
    content = (place / "train_targets.npy").read_bytes()
    (place / "train_targets.npy").write_bytes(content[:size].ljust(size, b"\0"))
    return "train_targets.npy"


def _edit(**changes):
    def damage(place):
        card = json.loads((place / "dataset.json").read_text())
        (place / "dataset.json").write_text(json.dumps({**card, **changes}))
        return "dataset.json"

    return damage


def _no_json(place):
    (place / "dataset.json").write_bytes(b"\xff{")
    return "dataset.json"


@pytest.mark.parametrize(
    "damage",
    [
        _cut, _lose, _swap, _pickled, _no_json, _edit(format=9), _edit(sizes={"train": 60}),
        _edit(sizes={"train": 59, "test": 12}), _edit(files={}), _edit(kind="text"),
        _edit(channels=None), _edit(kind="films"), _edit(num_classes="many"),
    ],
)  # fmt: skip
def test_a_damaged_set_is_one_error_that_names_the_file_and_the_cure(folder, damage):
    place = prepare_images(folder)
    name = damage(place)
    with pytest.raises(DataError) as caught:
        load_prepared(place, NO_OPTIONS)
    assert str(place) in caught.value.message
    assert name in caught.value.message
    assert "mulo data prepare mine --overwrite" in caught.value.hint


@pytest.mark.parametrize("name", ["../../../../dev/zero", "/dev/zero", "notes.txt", "\x1b[31m"])
def test_a_card_that_names_other_files_is_refused_before_one_is_opened(folder, name):
    place = prepare_images(folder)
    card = json.loads((place / "dataset.json").read_text())
    files = {**card["files"], name: {"bytes": 0, "sha256": "0" * 64}}
    _edit(files=files)(place)
    with pytest.raises(DataError, match="no file of a data set") as caught:
        read_card(place)
    assert "\x1b" not in caught.value.message


def test_no_error_about_a_card_carries_what_a_terminal_obeys(folder):
    place = prepare_images(folder)
    card = json.loads((place / "dataset.json").read_text())
    arrays = dict(card["files"])
    arrays["train_inputs.npy"] |= {"dtype": "\x1b[31m"}
    for damage in (_edit(files={"\x1b[31m": 3}), _edit(files=arrays)):
        damage(place)
        with pytest.raises(DataError) as caught:
            read_card(place)
        assert (caught.value.message + caught.value.hint).isprintable()
        assert "[31m" in caught.value.message


@pytest.mark.parametrize("content", ["[" * 100_000, "/dev/zero"], ids=["nested", "endless"])
def test_spellings_that_never_end_are_damage(folder, content):
    place = prepare_text(folder)
    path, card = place / "spellings.json", json.loads((place / "dataset.json").read_text())
    path.unlink()
    if content.startswith("/"):
        path.symlink_to(content)
    else:
        path.write_text(content)
    card["files"]["spellings.json"]["bytes"] = path.stat().st_size
    _edit(files=card["files"])(place)
    with pytest.raises(DataError, match=r"spellings\.json"):
        load_prepared(place, NO_OPTIONS)


def test_text_without_its_spellings_is_damaged(folder):
    place = prepare_text(folder)
    text = (place / "spellings.json").read_text()
    (place / "spellings.json").write_text(text.replace("[", "{", 1))
    with pytest.raises(DataError, match=r"spellings\.json"):
        load_prepared(place, NO_OPTIONS)
    (place / "spellings.json").unlink()
    with pytest.raises(DataError, match=r"spellings\.json"):
        load_prepared(place, NO_OPTIONS)


def test_a_changed_byte_is_found_when_checksums_are_compared(folder):
    place = prepare_images(folder)
    assert len(list(verify(place, read_card(place)))) == 4
    path = place / "test_inputs.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load_prepared(place, NO_OPTIONS)
    with pytest.raises(DataError, match="checksum"):
        list(verify(place, read_card(place)))


class _Stop(BaseException):
    """What a signal raises."""


@pytest.mark.parametrize("error", [_Stop(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("former", [False, True])
def test_an_interrupted_preparation_leaves_what_was_there_and_nothing_else(folder, error, former):
    place = folder / "mine"
    if former:
        prepare_images(folder)
    before = {path: path.read_bytes() for path in place.glob("*")}

    def broken(split):
        yield from stream_of(some_images()).blocks(split)
        raise error

    stream = ImageStream((8, 8, 3), 3, CLASSES, {"train": 61, "test": 12}, broken)
    origin = Origin("mine", "a test", "none")
    wanted = OutputError if isinstance(error, OSError) else _Stop
    with pytest.raises(wanted), draft_of(place, overwrite=True) as draft:
        list(write_images(draft, stream, origin))
    assert {path: path.read_bytes() for path in place.glob("*")} == before
    assert [path.name for path in folder.iterdir()] == (["mine"] if former else [])


def test_nobody_who_stops_listening_leaves_a_draft(folder):
    def steps():
        with draft_of(folder / "mine", overwrite=False) as draft:
            yield from write_images(draft, stream_of(some_images()), Origin("mine", "", ""))

    reports = steps()
    next(reports)
    assert list(folder.iterdir())
    reports.close()
    assert not list(folder.iterdir())


def test_two_that_prepare_one_set_at_once_do_not_mix_their_files(folder):
    place, stored = folder / "mine", some_images()
    with draft_of(place, overwrite=False) as one:
        (one / "mark").touch()
        with draft_of(place, overwrite=False) as two:
            list(write_images(two, stream_of(stored), Origin("mine", "the other", "")))
        assert list(one.iterdir()) == [one / "mark"]
        assert read_card(place).source == "the other"
        (one / "mark").unlink()
        list(write_images(one, stream_of(stored), Origin("mine", "the first", "")))
        with (
            pytest.raises(DataError, match="prepared already"),
            draft_of(place, overwrite=False),
        ):
            pass
        shutil.rmtree(place)
    assert read_card(place).source == "the first"
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_who_comes_second_does_not_replace_what_came_meanwhile(folder):
    place = folder / "mine"
    attempt = draft_of(place, overwrite=False)
    list(write_images(attempt.__enter__(), stream_of(some_images()), Origin("mine", "mine", "")))
    prepare_images(folder)
    with pytest.raises(DataError, match="prepared already"):
        attempt.__exit__(None, None, None)
    assert read_card(place).source == "a test"
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_a_prepared_set_can_be_read_by_those_whom_the_user_lets(folder):
    usual = folder.parent / "usual"
    usual.mkdir()
    assert prepare_images(folder).stat().st_mode == usual.stat().st_mode


def test_nothing_is_replaced_unless_it_is_asked_for_and_is_a_data_set(folder):
    place = prepare_images(folder)
    with pytest.raises(DataError, match="prepared already"), draft_of(place, overwrite=False):
        pass
    (folder / "letters").mkdir()
    (folder / "letters" / "love.txt").write_text("dear")
    with (
        pytest.raises(DataError, match="no prepared data set"),
        draft_of(folder / "letters", overwrite=True),
    ):
        pass
    assert (folder / "letters" / "love.txt").read_text() == "dear"
    assert is_prepared(place)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"train": 61, "test": 12}, "ends after 60 of 61"),
        ({"train": 59, "test": 12}, "number 60, where 59"),
    ],
)
def test_more_or_fewer_images_than_announced_are_an_error(folder, sizes, said):
    blocks = stream_of(some_images()).blocks
    stream = ImageStream((8, 8, 3), 3, (), sizes, blocks)
    with pytest.raises(DataError, match=said), draft_of(folder / "mine", overwrite=False) as draft:
        list(write_images(draft, stream, Origin("mine", "", "")))
    assert not list(folder.iterdir())


def test_a_disk_without_room_is_told_before_anything_is_written(folder, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="10 left"):
        prepare_images(folder)
    assert not list(folder.iterdir())
