"""JSON lines on disk: what was written stays, what was torn is passed over or named."""

import json
import os
from pathlib import Path

import pytest

from mulo_cli.errors import DataError, OutputError
from mulo_cli.results.records import ValidationRecord, to_plain
from mulo_cli.results.store import (
    append_record,
    keep_only,
    read_lines,
    read_rows,
    replace_text,
    to_line,
)
from tests.faults.disks import room_for
from tests.results.evaluation_rows import evaluation_row


def record(step: int, name: str = "a") -> ValidationRecord:
    return ValidationRecord(step, {name: 1.0}, {name: float("nan")}, best=False)


@pytest.fixture
def lines(tmp_path) -> Path:
    """Return a file of three records."""
    path = tmp_path / "metrics.jsonl"
    for step in range(3):
        append_record(path, record(step))
    return path


def steps(path: Path) -> list[int]:
    return [line["step"] for line in read_lines(path)]


def test_records_are_read_in_the_order_in_which_they_were_appended(lines):
    assert steps(lines) == [0, 1, 2]
    assert all(json.loads(line) for line in lines.read_text().splitlines())
    assert lines.read_text().count("\n") == 3


def test_a_record_is_on_disk_as_soon_as_it_is_appended(lines):
    append_record(lines, record(3))
    assert json.loads(lines.read_bytes().splitlines()[-1])["step"] == 3


# separators that Python's splitlines would take for the end of a line, among others
@pytest.mark.parametrize("name", ["µLO", "a\nb", "a\u2028b", "a\x85b", "a\x0bb", '"', "\ud800", ""])
def test_any_name_fits_into_one_line(tmp_path, name):
    path = tmp_path / "metrics.jsonl"
    append_record(path, record(0, name))
    append_record(path, record(1))
    assert [line["mean_loss"] for line in read_lines(path)] == [{name: 1.0}, {"a": 1.0}]


def test_wherever_the_last_line_is_torn_the_lines_before_it_are_read(lines):
    whole = lines.read_bytes()
    start_of_last = whole[:-1].rindex(b"\n") + 1
    for end in range(start_of_last, len(whole)):
        lines.write_bytes(whole[:end])
        assert steps(lines) == [0, 1], f"{len(whole) - end} bytes are missing"
    lines.write_bytes(whole)
    assert steps(lines) == [0, 1, 2]


def test_an_empty_file_holds_no_records(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert steps(tmp_path / "metrics.jsonl") == []


def test_keeping_some_records_keeps_them_to_the_letter_and_mends_a_torn_file(lines):
    before = lines.read_text().splitlines()
    lines.write_text(lines.read_text() + '{"step": 3, "me')
    keep_only(lines, [line for line in read_lines(lines) if line["step"] != 1])
    assert lines.read_text().splitlines() == [before[0], before[2]]
    append_record(lines, record(4))
    assert steps(lines) == [0, 2, 4]


def test_replacing_a_text_leaves_no_draft(tmp_path):
    replace_text(tmp_path / "recipe.toml", "old")
    replace_text(tmp_path / "recipe.toml", "new µ")
    assert (tmp_path / "recipe.toml").read_text("utf-8") == "new µ"
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.parametrize("broken", ["open", "replace"])
def test_replacing_that_fails_leaves_the_old_content(lines, monkeypatch, broken):
    before = lines.read_bytes()

    def fail(self, *arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, broken, fail)
    with pytest.raises(OutputError):
        keep_only(lines, [])
    monkeypatch.undo()
    assert lines.read_bytes() == before
    assert [path.name for path in lines.parent.iterdir()] == [lines.name]


@pytest.mark.parametrize(
    "write",
    [lambda path: append_record(path, record(0)), lambda path: replace_text(path, "text")],
    ids=["append", "replace"],
)
@pytest.mark.parametrize("where", ["folder", "file/inside", "missing/inside"])
def test_what_cannot_be_written_is_an_error_that_names_the_file_and_says_what_to_do(
    tmp_path, write, where
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as caught:
        write(tmp_path / where)
    assert str(tmp_path / where) in caught.value.message
    assert "free space" in caught.value.hint
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_record_that_finds_no_room_leaves_nothing_behind(lines, room):
    """The system writes as much of a line as there is room for, and only then says no."""
    before = lines.read_bytes()
    with room_for(len(before) + room), pytest.raises(OutputError, match="too large"):
        append_record(lines, record(3))
    assert lines.read_bytes() == before
    append_record(lines, record(3), durable=True)
    assert steps(lines) == [0, 1, 2, 3]


def test_a_text_that_finds_no_room_leaves_the_old_one_and_no_draft(lines):
    before = lines.read_bytes()
    with room_for(10), pytest.raises(OutputError, match="too large"):
        replace_text(lines, "x" * 100)
    assert lines.read_bytes() == before
    assert [path.name for path in lines.parent.iterdir()] == [lines.name]


def test_a_pipe_takes_records_too(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    append_record(tmp_path / "pipe", record(0), durable=True)
    assert json.loads(os.read(reader, 1000))["step"] == 0
    os.close(reader)


def test_a_full_disk_is_an_error_that_says_so():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("only Linux has a device that is always full")
    with pytest.raises(OutputError, match="No space left"):
        append_record(full, record(0))


# --- Evaluation rows ------------------------------------------------------------------------------

ROWS = [evaluation_row("adamw", seed=0), evaluation_row("adamw", {100: 2.0, 500: None}, seed=1)]
LINES = [to_line(row) for row in ROWS]
PLAIN = to_plain(ROWS[0])


def test_rows_are_read_in_order_and_empty_lines_do_not_count():
    assert list(read_rows(LINES, "rows")) == ROWS
    assert list(read_rows(["", LINES[0] + "\n", "  \n", LINES[1] + "\r\n", ""], "rows")) == ROWS
    assert list(read_rows([], "rows")) == []


def refusal(line: str) -> DataError:
    """Return how a line is refused that stands after a good one and an empty one."""
    rows = read_rows([LINES[0], "", line, LINES[1]], "some place")
    assert next(rows) == ROWS[0], "what is good before it has been read"
    with pytest.raises(DataError) as caught:
        next(rows)
    assert caught.value.message.startswith("some place, line 3 is ")
    assert len(caught.value.message) < 300
    return caught.value


@pytest.mark.parametrize(
    "line",
    [
        LINES[0][:-1],
        LINES[0][:40],
        LINES[0] + LINES[1],
        "mulo",
        "\x00",
        "[" * 100_000,
        '{"kind": "evaluation", "seed": ' + "9" * 5_000 + "}",
    ],
    ids=["cut", "half", "two in one", "word", "zero", "deep", "huge"],
)
def test_a_line_that_is_not_json_is_refused_by_its_number(line):
    error = refusal(line)
    assert "is not JSON" in error.message
    assert "delete the line" in error.hint


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", ["smoothed_loss", "test_accuracy", "curve"])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(number, field):
    value = {"smoothed_loss": '{"500": X}', "test_accuracy": "X", "curve": "[1.0, X]"}[field]
    line = json.dumps(PLAIN | {field: "here"}).replace('"here"', value.replace("X", number))
    assert f"{number} is not a JSON number" in refusal(line).message


@pytest.mark.parametrize(
    "value",
    [
        1,
        None,
        "row",
        [],
        [PLAIN],
        {},
        to_plain(record(1)),
        PLAIN | {"kind": "Evaluation"},
        {name: value for name, value in PLAIN.items() if name != "kind"},
    ],
    ids=repr,
)
def test_a_line_of_something_else_is_refused_and_shown(value):
    error = refusal(json.dumps(value))
    assert "is not an evaluation row" in error.message
    assert json.dumps(value)[:20] in error.message
    assert "mulo evaluate" in error.hint


ADDED = ("suite", "suite_task", "family", "sizes", "data")
"""Rows of versions before suites do not have these."""


@pytest.mark.parametrize("name", [name for name in PLAIN if name not in ("kind", *ADDED)])
def test_a_row_without_one_of_its_fields_is_refused_by_its_name(name):
    error = refusal(json.dumps({key: value for key, value in PLAIN.items() if key != name}))
    assert f"is a damaged row: {name}: " in error.message


def test_a_row_of_a_version_before_suites_is_read_as_one_outside_of_any():
    old = {key: value for key, value in PLAIN.items() if key not in ADDED}
    assert [*read_rows([json.dumps(old)], "memory")] == [*read_rows([json.dumps(PLAIN)], "memory")]


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "kind"])
def test_a_field_of_the_wrong_type_is_refused_by_its_name(name):
    error = refusal(json.dumps(PLAIN | {name: [{"what": "is this"}]}))
    assert f"is a damaged row: {name}" in error.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"smoothed_loss": {"499": 1.0}}, "at the steps of at = [500]"),
        ({"at": [400, 500]}, "at the steps of at = [400, 500]"),
        ({"at": [], "smoothed_loss": {}}, "at the steps of at = []"),
        ({"smoothed_loss": {"last": 1.0}}, "smoothed_loss.last"),
        ({"settings": {"learning_rate": None}}, "settings.learning_rate"),
        ({"status": "fine"}, "status"),
        ({"width": 8.5}, "width"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused_with_the_reason(changes, said):
    error = refusal(json.dumps(PLAIN | changes))
    assert said in error.message
    assert ": :" not in error.message
    assert "evaluate again" in error.hint
