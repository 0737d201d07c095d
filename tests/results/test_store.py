"""JSON lines on disk: what was written stays, what was torn is passed over."""

import json
from pathlib import Path

import pytest

from mulo_cli.errors import OutputError
from mulo_cli.results.records import ValidationRecord
from mulo_cli.results.store import append_record, keep_only, read_lines, replace_text


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


@pytest.mark.parametrize("broken", ["write_text", "replace"])
def test_replacing_that_fails_leaves_the_old_content(lines, monkeypatch, broken):
    before = lines.read_bytes()

    def fail(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, broken, fail)
    with pytest.raises(OutputError):
        keep_only(lines, [])
    assert lines.read_bytes() == before


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


def test_a_full_disk_is_an_error_that_says_so():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("only Linux has a device that is always full")
    with pytest.raises(OutputError, match="No space left"):
        append_record(full, record(0))
