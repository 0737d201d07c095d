"""The files of one output that several processes write are told apart, and from all others."""

from pathlib import Path

import pytest

from mulo_cli.errors import DataError
from mulo_cli.processes import ALONE, Place
from mulo_cli.results.row_file import RowFile
from mulo_cli.results.split_files import (
    earlier_files,
    files_of,
    other_files,
    own_file,
    rival_files,
)
from mulo_cli.results.store import to_line
from tests.results.evaluation_rows import evaluation_row

ROWS = [evaluation_row("adamw", seed=seed) for seed in range(4)]
FOLLOWING = Place(1, 2)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows", "a.b.jsonl", "[x]*?.jsonl", ".rows", "ü.j"])
def test_every_process_has_a_file_of_its_own_which_is_found_by_the_outputs_name(tmp_path, name):
    places = [Place(index, count) for count in (2, 3, 12) for index in range(count)]
    files = [own_file(tmp_path / name, place) for place in (ALONE, *places)]
    assert len(set(files)) == 1 + len(places)
    for file in reversed(files):
        file.touch()
    assert files_of(tmp_path / name) == files, "itself first, then by number of processes"


def test_who_is_alone_writes_the_output_itself(tmp_path):
    assert own_file(tmp_path / "rows.jsonl", ALONE) == tmp_path / "rows.jsonl"
    assert own_file(tmp_path / "rows.jsonl", Place(1, 4)).name == "rows.1-of-4.jsonl"


@pytest.mark.parametrize(
    "name",
    [
        "more.0-of-2.jsonl", "rows.0-of-2.json", "rows.2-of-2.jsonl", "rows.-1-of-2.jsonl",
        "rows.0-of-2.jsonl.old", "myrows.0-of-2.jsonl", "rows0-of-2.jsonl", "rows.a.0-of-2.jsonl",
        ".rows.0-of-2.jsonl.draft", "rows.jsonl.0-of-2",
    ],
)  # fmt: skip
def test_what_has_another_name_is_not_a_part_of_it(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "rows.1-of-2.jsonl").mkdir()
    assert files_of(tmp_path / "rows.jsonl") == []


@pytest.mark.parametrize("path", ["nowhere/rows.jsonl", "file/rows.jsonl", "x" * 300])
def test_where_nobody_can_look_there_is_nothing(tmp_path, path):
    (tmp_path / "file").touch()
    assert files_of(tmp_path / path) == []


def test_fellows_that_start_at_the_same_time_are_not_an_earlier_start(tmp_path):
    for name in ("rows", "rows.0-of-2", "rows.1-of-2", "rows.1-of-3"):
        (tmp_path / f"{name}.jsonl").touch()
    path = tmp_path / "rows.jsonl"
    named = [file.stem for file in earlier_files(path, FOLLOWING)]
    assert named == ["rows", "rows.1-of-2", "rows.1-of-3"]
    assert len(earlier_files(path, ALONE)) == 4


def test_rivals_are_commands_with_another_number_of_processes_begun_or_about_to(tmp_path):
    path = tmp_path / "rows.jsonl"
    for name in ("rows.0-of-2.jsonl", "rows.1-of-3.jsonl"):
        (tmp_path / name).touch()
    locked = ["rows.1-of-3.jsonl", "rows.2-of-3.jsonl", "rows.0-of-2.jsonl", "rows.jsonl", "other"]
    rivals = {place: rival_files(path, place, locked) for place in (ALONE, FOLLOWING)}
    named = {place: [file.stem for file in files] for place, files in rivals.items()}
    assert named[ALONE] == ["rows.0-of-2", "rows.1-of-3", "rows.2-of-3"]
    assert named[FOLLOWING] == ["rows", "rows.1-of-3", "rows.2-of-3"]


# --- Rows of other processes ----------------------------------------------------------------------


def rows_of_two(folder) -> RowFile:
    """Return the rows of process 1, beside the file of process 0 that has a torn last line."""
    path = folder / "rows.jsonl"
    lines = [to_line(row) + "\n" for row in ROWS]
    own_file(path, Place(0, 2)).write_text(lines[0] + lines[1][:60])
    own_file(path, FOLLOWING).write_text(lines[2] + lines[3][:60])
    return RowFile(own_file(path, FOLLOWING), lambda: other_files(path, FOLLOWING))


def test_rows_of_others_are_known_and_only_ones_own_file_is_mended(tmp_path):
    file = rows_of_two(tmp_path)
    assert [bool(file.find(row)) for row in ROWS] == [True, False, True, False]
    assert file.mended
    assert file.beside == 1
    assert (tmp_path / "rows.1-of-2.jsonl").read_text() == to_line(ROWS[2]) + "\n"
    torn = (tmp_path / "rows.0-of-2.jsonl").read_text()
    assert torn == to_line(ROWS[0]) + "\n" + to_line(ROWS[1])[:60], "its process may be alive"
    file.append(ROWS[3])
    assert (tmp_path / "rows.0-of-2.jsonl").read_text() == torn


def test_what_others_have_written_since_is_found_by_looking_again(tmp_path):
    file = rows_of_two(tmp_path)
    theirs = tmp_path / "rows.0-of-2.jsonl"
    theirs.write_text(theirs.read_text() + to_line(ROWS[1])[60:] + "\n")
    (tmp_path / "rows.jsonl").write_text(to_line(ROWS[3]) + "\n")
    assert file.find(ROWS[1]) is None
    file.look_again()
    assert [file.find(row) for row in ROWS] == ROWS
    theirs.unlink()
    file.look_again()
    assert file.find(ROWS[0]) is None


def test_looking_again_reads_only_what_has_changed(tmp_path, monkeypatch):
    file = rows_of_two(tmp_path)
    read, true = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.name), true(path))[1])
    file.look_again()
    assert (read, file.beside) == ([], 1)
    (tmp_path / "rows.jsonl").write_text(to_line(ROWS[3]) + "\n")
    file.look_again()
    assert (read, file.beside) == (["rows.jsonl"], 2)
    assert file.find(ROWS[0]) == ROWS[0]


def test_something_else_under_the_name_of_another_process_is_an_error_that_names_it(tmp_path):
    (tmp_path / "rows.0-of-2.jsonl").write_text("my thesis\n")
    path = tmp_path / "rows.jsonl"
    with pytest.raises(DataError, match=r"rows\.0-of-2\.jsonl"):
        RowFile(own_file(path, FOLLOWING), lambda: other_files(path, FOLLOWING))
    assert (tmp_path / "rows.0-of-2.jsonl").read_text() == "my thesis\n"
