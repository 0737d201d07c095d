"""Reading text: what is text, which part is the test split, and what is wrong with a file."""

import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from mulo_cli.datasets import text_files
from mulo_cli.datasets.text_files import looks_like_text, read_text, split_text
from mulo_cli.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")

VERSE = "".join(f"line {number} of a long poem\n" for number in range(100))


def put(folder, **files):
    """Write files; two underscores in a name stand for a folder."""
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    return folder


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_the_last_tenth_of_a_text_is_its_test_split_from_a_lines_beginning(tmp_path):
    path = tmp_path / "poem"
    path.write_text(VERSE)
    stored = read_text(path)
    assert stored.train + stored.test == VERSE
    assert stored.train.endswith("\n")
    assert stored.test.startswith("line 9")
    assert len(stored.test) / len(VERSE) == pytest.approx(0.1, abs=30 / len(VERSE))
    (note,) = stored.notes
    assert f"{len(stored.test)} characters" in note


@pytest.mark.parametrize("text", ["abcdefghij", "a" * 95 + "\nbcde", "a" * 80 + "\n" + "b" * 20])
def test_a_text_with_hardly_any_lines_is_still_cut_in_two(text):
    stored = split_text(text)
    assert stored.train + stored.test == text
    assert stored.train.strip()
    assert stored.test.strip()


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_compressed_file_reads_like_the_file(tmp_path, pack):
    path = tmp_path / "poem.txt.packed"
    path.write_bytes(pack(VERSE.encode()))
    assert looks_like_text(path)
    assert read_text(path).train == split_text(VERSE).train


def test_windows_line_ends_and_a_byte_order_mark_leave_no_trace(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_bytes(b"\xef\xbb\xbf" + VERSE.replace("\n", "\r\n").encode())
    assert read_text(path) == split_text(VERSE)


@pytest.mark.parametrize("test_name", ["test", "val", "valid__part", "test-00000-of-00001"])
def test_names_of_files_and_folders_tell_the_splits(tmp_path, test_name):
    files = {"train__a": "one", "train__b": "two\n", test_name: "three"}
    put(tmp_path / "data", **files, readme="not of any split")
    stored = read_text(tmp_path / "data")
    assert stored.train == "one\ntwo\n"
    assert stored.test.strip() == "three"
    assert "training files 2, test files 1" in stored.notes[0]
    assert "passed over: 1" in stored.notes[1]


def test_the_topmost_name_that_says_a_split_decides(tmp_path):
    put(tmp_path, train__a="one", train__validation="two", test__train_times="three")
    stored = read_text(tmp_path)
    assert stored.train == "one\ntwo\n"
    assert stored.test == "three"


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_a_packed_copy_beside_a_file_is_not_read_again(tmp_path, suffix, pack):
    put(tmp_path, poem=VERSE)
    (tmp_path / f"poem.txt.{suffix}").write_bytes(pack(VERSE.encode()))
    assert read_text(tmp_path) == split_text(VERSE)


def test_test_files_are_preferred_to_validation_files(tmp_path):
    put(tmp_path, train="one", val="two", test="three")
    assert read_text(tmp_path).test == "three"


def test_a_word_that_only_begins_like_a_splits_name_tells_nothing(tmp_path):
    put(tmp_path, trainspotting=VERSE, testament=VERSE)
    assert read_text(tmp_path).notes == split_text(VERSE + VERSE).notes


def test_the_name_of_the_folder_that_holds_everything_tells_nothing(tmp_path):
    inside = put(tmp_path / "all", test__train="one", test__val="two")
    assert read_text(inside).test == "two"


def test_of_many_files_every_tenth_by_name_is_a_test_file(tmp_path):
    put(tmp_path / "data", **{f"f{number:02}": f"text {number}" for number in range(25)})
    for path in (tmp_path / "data", zipped(tmp_path / "data", tmp_path / "data.zip")):
        stored = read_text(path)
        assert stored.test == "text 9\ntext 19\n"
        assert len(stored.train.splitlines()) == 23
        assert "every 10th of 25 files" in stored.notes[0]


def test_a_tar_reads_like_its_folder(tmp_path):
    put(tmp_path / "data", **{f"f{number:02}": f"text {number}" for number in range(12)})
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "data", "data")
    assert looks_like_text(tmp_path / "data.tar.gz")
    assert read_text(tmp_path / "data.tar.gz") == read_text(tmp_path / "data")


def test_what_systems_leave_behind_is_not_read_and_other_files_are_named(tmp_path):
    put(tmp_path, __MACOSX__poem="no")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0")
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8\0")
    put(tmp_path, a=VERSE)
    stored = read_text(tmp_path)
    assert stored.train == split_text(VERSE).train
    assert "1 others like 'cover.jpg' were not" in stored.notes[0]


def test_a_folder_of_images_with_labels_in_a_text_file_is_not_text(tmp_path):
    put(tmp_path, labels="cat\ndog\n")
    assert looks_like_text(tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG\0")
    assert not looks_like_text(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\0\1", b"GIF89a\1", b"\0" * 99])
def test_other_files_do_not_look_like_text(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not looks_like_text(path)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_text_in_another_encoding_looks_like_text_so_that_reading_can_say_what_it_is(
    tmp_path, encoding
):
    path = tmp_path / "file"
    path.write_text("café au lait\n" * 9, encoding)
    assert looks_like_text(path)
    with pytest.raises(DataError, match="is not") as caught:
        read_text(path)
    assert "iconv" in caught.value.hint


def test_only_the_beginning_is_looked_at(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a" * text_files.LOOKED_AT + b"\0")
    assert looks_like_text(path)


def test_nothing_at_all_does_not_look_like_text(tmp_path):
    assert not looks_like_text(tmp_path / "nowhere")
    assert not looks_like_text(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"good\nbad \xe9\n", "poem.txt.*is not UTF-8: byte 0xe9 at offset 9"),
        (VERSE.encode("utf-16"), "poem.txt.*is not text: a NUL byte at offset 3"),
        (b"", "poem.txt.*has no text"),
        (b" \n\n \n", "poem.txt.*has no text"),
        (b"a", "too little for two splits"),
        (gzip.compress(VERSE.encode())[:-30], "poem.txt.*cannot be read"),
        (gzip.compress(VERSE.encode())[:200] + b"\xff" * 40, "poem.txt.*cannot be read"),
    ],
)
def test_a_file_that_is_no_text_is_an_error_that_names_it_and_the_place(tmp_path, content, said):
    path = tmp_path / "poem.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_text(path)
    assert caught.value.hint


def test_a_bad_member_of_an_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        archive.writestr("good.txt", VERSE)
        archive.writestr("neg/bad.txt", b"\xff\xfe\xfd")
    with pytest.raises(DataError, match=r"neg/bad\.txt.* is not UTF-8: byte 0xff at offset 0"):
        read_text(tmp_path / "many.zip")


def test_an_archive_that_unpacks_to_too_much_is_refused_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "READ_LIMIT", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abc":
            archive.writestr(f"{name}.txt", "a\n" * 2_500)
    with pytest.raises(DataError, match=r"c\.txt.* makes this text larger than"):
        read_text(tmp_path / "bomb.zip")


def test_a_members_name_leads_nowhere(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../evil.txt", VERSE)
    assert read_text(tmp_path / "a.zip").train == split_text(VERSE).train
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_encrypted_or_damaged_archive_is_an_error(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", VERSE)
    damaged = bytearray(content.getvalue())
    damaged[60:70] = b"\xff" * 10
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(DataError, match=r"cannot be read"):
        read_text(tmp_path / "damaged.zip")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_without_rights_is_an_error(tmp_path):
    path = put(tmp_path, poem=VERSE) / "poem.txt"
    path.chmod(0)
    with pytest.raises(DataError, match=r"poem\.txt"):
        read_text(path)


@needs_shared
def test_the_movie_reviews_are_2000_files_of_which_200_are_test_files():
    stored = read_text(SHARED / "movie_reviews" / "movie_reviews.zip")
    assert "every 10th of 2000 files" in stored.notes[1]
    assert "README" in stored.notes[0]
    assert len((stored.train + stored.test).split()) > 1_400_000
    assert stored.train.startswith("plot : two teen couples")
