"""A file of rows grows, is mended where it was torn, and is never taken for what it is not."""

import os

import pytest

from mulo_cli.errors import DataError, OutputError, UsageError
from mulo_cli.results.record_file import BEGINNING
from mulo_cli.results.records import content_hash
from mulo_cli.results.row_file import RowFile, refuse_existing
from mulo_cli.results.store import to_line
from tests.faults.disks import room_for
from tests.results.evaluation_rows import evaluation_row

ROWS = [evaluation_row("adamw", {100: 2.0, 500: None}, seed=seed) for seed in range(3)]


@pytest.fixture
def path(tmp_path):
    """Return the file of three rows."""
    file = RowFile(tmp_path / "rows.jsonl")
    for row in ROWS:
        file.append(row)
    return tmp_path / "rows.jsonl"


def test_a_new_file_is_made_with_its_folder_and_holds_nothing(tmp_path):
    file = RowFile(tmp_path / "a" / "b" / "rows.jsonl")
    assert file.path.read_bytes() == b""
    assert not file.mended
    assert file.find(ROWS[0]) is None


def test_rows_are_found_by_what_was_trained_and_not_by_what_came_out(path):
    file = RowFile(path)
    for row in ROWS:
        assert file.find(row) == row
    assert file.find(evaluation_row("adamw", {100: 9.0, 500: 9.0}, seed=1)) == ROWS[1]
    assert file.find(evaluation_row("adamw", {100: 2.0, 500: None}, seed=3)) is None
    assert not file.mended


def test_a_row_is_on_disk_and_found_as_soon_as_it_is_appended(path):
    file, new = RowFile(path), evaluation_row("sgd")
    before = path.read_bytes()
    file.append(new)
    assert path.read_bytes() == before + to_line(new).encode() + b"\n"
    assert file.find(new) == new
    assert RowFile(path).find(new) == new


def test_looking_at_a_file_changes_nothing_in_it(path):
    before = path.read_bytes()
    RowFile(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.jsonl"]


def test_every_row_begins_as_the_mending_expects():
    for row in (*ROWS, evaluation_row("C:/\u00b5 run"), evaluation_row('"')):
        assert to_line(row).encode().startswith(BEGINNING)


def test_wherever_the_last_line_is_torn_it_is_cut_off_and_the_others_stay(path):
    whole = path.read_bytes()
    start_of_last = whole[:-1].rindex(b"\n") + 1
    for end in (*range(start_of_last + 1, start_of_last + 40), len(whole) - 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        file = RowFile(path)
        assert file.mended
        assert path.read_bytes() == whole[:start_of_last]
        assert file.find(ROWS[1]) == ROWS[1]
        assert file.find(ROWS[2]) is None
        file.append(ROWS[2])
        assert path.read_bytes() == whole


def test_a_file_torn_in_its_first_line_begins_anew(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(to_line(ROWS[0])[:50])
    assert RowFile(path).mended
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "content",
    [
        b"my thesis, in one line without an end",
        b"my thesis\n",
        b"my thesis\nin two lines, the second without an end",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        b"\xff\xfe\x00\x01",
        b"\xff\xfe\n",
        b'{"optimizer": 3',
        b"{\n",
        b"[1, 2, 3]",
        b" ",
    ],
)
def test_what_is_not_rows_is_refused_and_not_touched(tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        RowFile(path)
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


@pytest.mark.parametrize("torn", [b"", to_line(ROWS[1]).encode()[:60]])
def test_a_bad_line_among_rows_is_refused_by_its_number_before_anything_is_mended(path, torn):
    lines = path.read_bytes().splitlines(keepends=True)
    content = lines[0] + b'{"kind": "meta-step"}\n' + lines[1] + torn
    path.write_bytes(content)
    with pytest.raises(DataError, match="line 2 is not an evaluation row"):
        RowFile(path)
    assert path.read_bytes() == content


def test_text_after_good_rows_is_not_cut_off_as_a_torn_row(path):
    content = path.read_bytes() + b"a note of mine"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not rows"):
        RowFile(path)
    assert path.read_bytes() == content


def test_a_file_that_was_edited_with_other_line_ends_is_read(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    file = RowFile(path)
    assert all(file.find(row) == row for row in ROWS)


def test_a_name_with_every_line_end_that_python_knows_is_one_line(tmp_path):
    strange = [evaluation_row(f"a{end}b") for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"]
    file = RowFile(tmp_path / "rows.jsonl")
    for row in strange:
        file.append(row)
    again = RowFile(tmp_path / "rows.jsonl")
    assert all(again.find(row) == row for row in strange)
    assert len({content_hash(row) for row in strange}) == len(strange)


@pytest.mark.parametrize("where", ["folder", "file/inside"])
def test_a_place_that_cannot_be_written_is_an_error_with_its_name(tmp_path, where):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write") as caught:
        RowFile(tmp_path / where)
    assert where.split("/")[0] in caught.value.message
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_file_without_permission_is_an_error_with_its_name(path):
    path.chmod(0o400)
    with pytest.raises(OutputError, match="cannot write"):
        RowFile(path)


def test_a_row_that_cannot_be_written_is_an_error_and_not_taken_for_written(path):
    file, new = RowFile(path), evaluation_row("sgd")
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        file.append(new)
    assert file.find(new) is None


def test_a_row_that_finds_a_full_disk_is_not_there_and_can_be_appended_later(path):
    file, new = RowFile(path), evaluation_row("sgd")
    whole = path.read_bytes()
    with room_for(len(whole) + 100), pytest.raises(OutputError, match="cannot write"):
        file.append(new)
    assert path.read_bytes() == whole
    assert file.find(new) is None
    file.append(new)
    assert RowFile(path).find(new) == new


def test_a_row_torn_by_a_kill_is_mended_by_the_next_one_to_open_the_file(path):
    whole = path.read_bytes()
    path.write_bytes(whole + to_line(evaluation_row("sgd")).encode()[:100])
    assert RowFile(path).mended
    assert path.read_bytes() == whole


def test_a_file_that_is_there_is_refused_unless_it_is_empty(tmp_path, path):
    refuse_existing(tmp_path / "nowhere" / "rows.jsonl")
    (tmp_path / "empty").touch()
    refuse_existing(tmp_path / "empty")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already") as caught:
        refuse_existing(path)
    assert "--append" in caught.value.hint
    assert path.read_bytes() == before
    with pytest.raises(OutputError, match="is a folder"):
        refuse_existing(tmp_path)


def test_a_training_is_found_at_its_place_in_a_suite_else_wherever_it_was_told(path):
    file, placed = RowFile(path), evaluation_row("adamw", {100: 3.0, 500: None}, suite="ours")
    assert file.find(placed) == ROWS[0]
    file.append(placed)
    for reopened in (file, RowFile(path)):
        assert reopened.find(placed) == placed
        assert reopened.find(ROWS[0]) == ROWS[0]
