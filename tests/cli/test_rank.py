"""`mulo rank` as a user meets it."""

import csv
import io
import json
import os
import pty
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from rich.console import Console

from mulo_cli.cli import app as application
from mulo_cli.cli.commands import rank as commands
from mulo_cli.cli.rank_tables import rank_csv, rank_markdown, rank_table
from mulo_cli.cli.terminal import Terminal
from mulo_cli.results.ranking import RESAMPLES, Standing, rank_optimizers
from mulo_cli.results.row_file import RowFile
from mulo_cli.results.store import to_line
from tests.cli.programs import MULO, environment, mulo
from tests.results.evaluation_rows import evaluation_row, rows_of

GOOD = {"runs/lo": [0.5, 0.6, 0.4], "adamw": [0.7, 0.65, 0.8], "sgd": [2.0, 2.1, 1.9]}
"""On every seed in this order."""


def write(path: Path, rows) -> str:
    path.write_text("".join(to_line(row) + "\n" for row in rows))
    return path.name


@pytest.fixture
def suite(tmp_path) -> str:
    """Return a file of rows with a run that diverges and runs that are saturated."""
    floor, blown = {**GOOD, "runs/lo": [0.01] * 3}, {**GOOD, "sgd": [2.0, None, 1.9]}
    rows = [*rows_of(GOOD, width=16), *rows_of(floor, width=64), *rows_of(blown, width=256)]
    return write(tmp_path / "rows.jsonl", rows)


@dataclass(frozen=True)
class Done:
    """The end of a command, as subprocess tells it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def rank(tmp_path, monkeypatch, capsys):
    """Return a function that runs `mulo rank` in this process, in a folder of its own.

    A process for each would take ten times as long; a few tests have one.
    """
    command = typer.main.get_command(application.app).commands["rank"]
    monkeypatch.setattr(application, "app", command)
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)

    def run_rank(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["mulo rank", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = application.run(Terminal())
        return Done(code, *capsys.readouterr())

    return run_rank


def on_a_terminal(*arguments: str, cwd: Path) -> tuple[int, str]:
    """Run a command as in a terminal of 100 columns; return its code and what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*MULO, "rank", *arguments],
        cwd=cwd,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # how Linux says that the other side has closed
        pass
    os.close(ours)
    return process.wait(60), shown.decode()


def test_on_a_terminal_it_is_a_table_that_explains_its_signs(tmp_path, suite):
    code, shown = on_a_terminal(suite, cwd=tmp_path)
    assert code == 0
    for heading in ("width 16", "width 256", "step 500", "average"):
        assert heading in shown
    first = "".join(line for line in shown.splitlines() if "runs/lo" in line)
    last = "".join(line for line in shown.splitlines() if "sgd" in line)
    assert first.count("1.00 ¹") == 4
    assert "1.00 ¹~" in first
    assert "[1.0, 1.0]" in first
    assert last.count("3.00 ³") == 4
    assert "3.00 ³!" in last
    for sign in ("¹ ² ³", "~ losses below 0.02", "! trainings diverged", "95 %", "average:"):
        assert sign in shown


def test_the_best_of_a_column_is_bold_besides_its_sign():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, no_color=True)
    console.print(rank_table(rank_optimizers(rows_of(GOOD)), console.width))
    shown = console.file.getvalue()
    assert shown.count("\x1b[1m1.00 ¹") == 2
    assert "\x1b[1m2.00" not in shown


def test_columns_that_do_not_fit_go_below_and_no_number_is_broken(rank, tmp_path):
    rows = [row for width in range(1, 13) for row in rows_of(GOOD, width=width)]
    write(tmp_path / "rows.jsonl", rows)
    shown = rank("rows.jsonl", "--format", "table")
    assert shown.stdout.count("optimizer ") >= 3
    for width in range(1, 13):
        assert f" width {width} " in shown.stdout
    assert shown.stdout.count("1.00 ¹ [1.0, 1.0]") == 13
    assert max(map(len, shown.stdout.splitlines())) <= 100


def test_in_a_pipe_every_optimizer_in_every_column_is_one_line(rank, tmp_path, suite):
    done = rank(suite)
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]
    assert len(found) == 3 * 4
    assert found[0] == {
        "kind": "rank",
        "by": "size",
        "optimizer": "runs/lo",
        "column": "width 16, step 500",
        "size": None,
        "width": 16,
        "depth": None,
        "step": 500,
        "rank": 1.0,
        "low": 1.0,
        "high": 1.0,
        "place": 1,
        "mean_loss": pytest.approx(0.5),
        "diverged": 0,
        "saturated": 0,
        "tasks": 1,
        "comparisons": 1,
        "seeds": 3,
        "ranked": 3,
    }
    by_place = {(one["optimizer"], one["column"]): one for one in found}
    assert by_place["runs/lo", "width 64, step 500"]["saturated"] == 3
    assert by_place["sgd", "width 256, step 500"]["diverged"] == 1
    assert by_place["sgd", "width 256, step 500"]["mean_loss"] is None
    assert by_place["sgd", "average"]["rank"] == 3


def test_rows_come_through_a_pipe_with_and_without_a_dash_and_beside_a_file(rank, tmp_path, suite):
    piped = (tmp_path / suite).read_text()
    expected = rank(suite).stdout
    assert rank(stdin=piped).stdout == expected
    assert rank("-", stdin=piped).stdout == expected
    other = write(tmp_path / "other.jsonl", rows_of(GOOD, width=512))
    both = rank(other, "-", stdin=piped)
    assert both.stdout == rank(suite, other).stdout
    assert "width 512" in both.stdout


@pytest.mark.parametrize("axis", ["width", "depth", "horizon"])
def test_one_axis_alone_is_explained_under_the_table(rank, tmp_path, suite, axis):
    done = rank(suite, "--by", axis, "--format", "table")
    explained = " ".join(done.stdout.split())
    assert {
        "width": "rank at that width, averaged over tasks",
        "depth": "rank at that depth, averaged over tasks",
        "horizon": "rank by the loss after so many steps, averaged over tasks",
    }[axis] in explained


def test_no_resamples_no_intervals(rank, tmp_path, suite):
    done = rank(suite, "--format", "table", "--resamples", "0")
    assert "1.00 ¹" in done.stdout
    assert "[" not in done.stdout
    assert done.stderr == ""


def test_csv_is_read_back_as_it_was_written(rank, tmp_path, suite):
    done = rank(suite, "--format", "csv")
    found = list(csv.DictReader(done.stdout.splitlines()))
    lines = [json.loads(line) for line in rank(suite).stdout.splitlines()]
    assert found == [
        {key: "" if value is None else str(value) for key, value in line.items()} for line in lines
    ]


def test_markdown_escapes_what_a_name_may_hold_and_has_a_cell_for_every_column(rank, tmp_path):
    rows = rows_of({"adamw:tuned=a|b_c_.json": [1.0, 2.0], "*x*\n<y>": [2.0, 3.0]})
    heading, rule, *body = list(rank_markdown(rank_optimizers(rows)))[:4]
    assert heading == "| optimizer | width 16, step 500 | average |"
    assert rule == "|---|--:|--:|"
    assert body == [
        r"| adamw:tuned=a\|b_c\_.json | **1.00** ¹ [1.0, 1.0] | **1.00** ¹ [1.0, 1.0] |",
        r"| \*x\*\\n\<y\> | 2.00 ² [2.0, 2.0] | 2.00 ² [2.0, 2.0] |",
    ]
    write(tmp_path / "rows.jsonl", rows)
    done = rank("rows.jsonl", "--format", "markdown")
    assert done.stdout.splitlines()[:4] == [heading, rule, *body]
    assert "95 % interval over seeds" in done.stdout


def test_a_name_that_no_screen_can_show_breaks_no_format(rank, tmp_path):
    rows = rows_of({"\x1b[31m\ud800,|\n": [1.0], "b": [2.0]})
    write(tmp_path / "rows.jsonl", rows)
    for format_ in ("table", "jsonl", "csv", "markdown"):
        done = rank("rows.jsonl", "--format", format_)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
    quoted = list(csv.reader(rank_csv(rank_optimizers(rows))))
    assert {len(line) for line in quoted} == {len(Standing.__dataclass_fields__)}


def test_what_is_missing_or_doubled_is_named_on_stderr_and_shown_as_a_dash(rank, tmp_path):
    rows = [*rows_of(GOOD, width=16), *rows_of({"adamw": [1.0] * 3, "sgd": [2.0] * 3}, width=64)]
    write(tmp_path / "rows.jsonl", rows)
    write(tmp_path / "copy.jsonl", rows)
    done = rank("rows.jsonl", "copy.jsonl", "--format", "table")
    assert done.returncode == 0
    assert "warning: 15 rows are given more than once and counted once" in done.stderr
    assert "warning: 'runs/lo' lacks mlp on digits, width 64, depth 3" in done.stderr
    row = next(line for line in done.stdout.splitlines() if "runs/lo" in line)
    assert [cell.strip() for cell in row.split("│")[3:5]] == ["-", "-"]
    assert "- not ranked there" in done.stdout
    (tmp_path / "empty.jsonl").write_text("\n")
    named = rank("rows.jsonl", "empty.jsonl")
    assert named.returncode == 0
    assert "warning: there are no rows in 'empty.jsonl'" in named.stderr


# --- Files of several processes -------------------------------------------------------------------


def test_the_files_of_an_outputs_processes_are_read_with_it(rank, tmp_path):
    rows = rows_of(GOOD, width=16)
    write(tmp_path / "whole.jsonl", rows)
    write(tmp_path / "rows.0-of-2.jsonl", rows[::2])
    write(tmp_path / "rows.2-of-3.jsonl", rows[1::2])
    write(tmp_path / "other.0-of-2.jsonl", rows_of({"stranger": [1.0]}))
    done = rank("rows.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout == rank("whole.jsonl").stdout
    assert "read 'rows.0-of-2.jsonl', 'rows.2-of-3.jsonl'" in done.stderr
    assert "more than once" not in done.stderr
    named = rank("rows.jsonl", "rows.2-of-3.jsonl", "rows.0-of-2.jsonl")
    assert named.stdout == done.stdout
    assert "more than once" not in named.stderr, "each file is read once"
    write(tmp_path / "rows.jsonl", rows[:1])
    assert rank("rows.jsonl").stdout == done.stdout


def test_a_file_is_read_once_whatever_names_it_is_given_by(rank, tmp_path):
    rows = rows_of(GOOD, width=16)
    write(tmp_path / "rows.jsonl", rows[::2])
    write(tmp_path / "rows.1-of-2.jsonl", rows[1::2])
    (tmp_path / "link").symlink_to("rows.jsonl")
    names = ("rows.jsonl", "./rows.jsonl", "link", *map(str, tmp_path.glob("rows*")))
    done = rank(*names)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == rank("rows.jsonl").stdout


def test_a_row_of_two_processes_counts_once_if_they_agree_and_is_named_if_not(rank, tmp_path):
    rows = rows_of(GOOD, width=16)
    write(tmp_path / "rows.0-of-2.jsonl", rows)
    write(tmp_path / "rows.1-of-2.jsonl", rows[:1])
    agreed = rank("rows.jsonl")
    assert agreed.stdout == rank("rows.0-of-2.jsonl").stdout
    assert "1 row is given more than once and counted once" in agreed.stderr
    write(tmp_path / "rows.1-of-2.jsonl", [evaluation_row("runs/lo", 9.0, seed=0)])
    contradicted = rank("rows.jsonl")
    assert contradicted.returncode == 1
    assert "rows of 'runs/lo'" in contradicted.stderr
    assert "seed 0) differ in the smoothed loss at step 500" in contradicted.stderr


@pytest.mark.parametrize("cut", [20, 150, -60, -2])
def test_a_row_that_is_cut_off_at_the_very_end_is_left_out_with_a_warning(rank, tmp_path, cut):
    """Its process was killed while it wrote, or is writing it."""
    rows = rows_of(GOOD, width=16)
    write(tmp_path / "whole.jsonl", rows)
    (tmp_path / "torn.jsonl").write_text(
        (tmp_path / "whole.jsonl").read_text() + to_line(evaluation_row("late"))[:cut]
    )
    done = rank("torn.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout == rank("whole.jsonl").stdout
    assert "warning: the last line of 'torn.jsonl' is cut off, and left out" in done.stderr
    piped = rank(stdin=(tmp_path / "torn.jsonl").read_text())
    assert piped.stdout == done.stdout


def test_a_last_row_without_its_line_end_counts_in_a_pipe_alone(rank, tmp_path):
    """Who writes a file computes such a row again: it does not count for `rank` either."""
    rows = rows_of(GOOD, width=16)
    write(tmp_path / "whole.jsonl", rows)
    write(tmp_path / "less.jsonl", rows[:-1])
    (tmp_path / "edited.jsonl").write_text((tmp_path / "whole.jsonl").read_text().rstrip())
    others = [tmp_path / "edited.jsonl"]
    assert RowFile(tmp_path / "new.jsonl", lambda: others).find(rows[-1]) is None
    done = rank("edited.jsonl")
    assert done.stdout == rank("less.jsonl").stdout
    assert "the last line of 'edited.jsonl' is cut off" in done.stderr
    piped = rank(stdin=(tmp_path / "edited.jsonl").read_text())
    assert piped.stdout == rank("whole.jsonl").stdout
    assert "cut off" not in piped.stderr


def contents(folder: Path) -> None:
    """Write everything that the next test gives to the command."""
    line = to_line(evaluation_row("a")) + "\n"
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "torn.jsonl").write_text(line + line[:50] + "\n" + line)
    (folder / "notes.jsonl").write_text(line + "a note of mine")
    (folder / "beginning.jsonl").write_text(line[:50])
    (folder / "foreign.jsonl").write_text(line + '{"kind": "meta-step", "step": 3}\n')
    (folder / "damaged.jsonl").write_text(line.replace('"width": 16', '"width": "wide"'))
    (folder / "binary.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    write(folder / "conflict.jsonl", [evaluation_row("a", 1.0), evaluation_row("a", 2.0)])
    apart = [evaluation_row("a", seed=0), evaluation_row("b", seed=1)]
    write(folder / "apart.jsonl", apart)


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        (["nowhere.jsonl"], 1, "cannot read 'nowhere.jsonl': No such file", "mulo evaluate"),
        (["."], 1, "'.' is a folder", "files"),
        (["/proc/self/mem"], 1, "cannot read '/proc/self/mem'", "mulo evaluate"),
        (["empty.jsonl"], 1, "no rows in 'empty.jsonl'", "mulo evaluate"),
        ([], 1, "no rows in standard input", "mulo evaluate"),
        (["torn.jsonl"], 1, "torn.jsonl', line 2 is not JSON", "cut off"),
        (["notes.jsonl"], 1, "notes.jsonl', line 2 is not JSON", "mulo evaluate"),
        (["beginning.jsonl"], 1, "no rows in 'beginning.jsonl'", "mulo evaluate"),
        (["foreign.jsonl"], 1, "foreign.jsonl', line 2 is not an evaluation row", "evaluate"),
        (["damaged.jsonl"], 1, "damaged.jsonl', line 1 is a damaged row: width", "evaluate"),
        (["binary.jsonl"], 1, "'binary.jsonl' is not text", "mulo evaluate"),
        (["conflict.jsonl"], 1, "differ in the smoothed loss at step 500 (1.0, 2.0)", "only one"),
        (["apart.jsonl"], 1, "nothing can be ranked", "same tasks"),
        (["-", "-"], 2, "standard input (-) is given twice", "one -"),
        (["empty.jsonl", "--by", "size,width"], 2, "--by", "--help"),
        (["empty.jsonl", "--format", "xml"], 2, "--format", "--help"),
        (["empty.jsonl", "--resamples", "-1"], 2, "--resamples", "--help"),
    ],
)
def test_what_cannot_be_ranked_gets_one_sentence_and_a_hint(
    rank, tmp_path, arguments, code, said, hinted
):
    contents(tmp_path)
    refused = rank(*arguments)
    assert refused.returncode == code, refused.stderr
    assert refused.stdout == ""
    message, hint = refused.stderr.split("hint: ")
    assert said in message
    assert message.count("error: ") == 1
    assert hinted in hint
    assert "Traceback" not in refused.stderr
    assert "defect of mulo" not in refused.stderr


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_without_standard_input_there_is_nothing_to_rank(rank, monkeypatch, arguments):
    monkeypatch.setattr(io, "TextIOWrapper", lambda _: None)  # a shell's `<&-`
    refused = rank(*arguments)
    assert refused.returncode == 2
    assert "error: no rows to rank" in refused.stderr


def test_with_no_file_on_a_terminal_it_does_not_wait_for_somebody_to_type(tmp_path):
    code, shown = on_a_terminal(cwd=tmp_path)
    assert code == 2
    assert "error: no rows to rank" in shown
    assert "mulo rank rows.jsonl" in shown


def test_a_reader_who_leaves_is_not_complained_about(tmp_path):
    """More lines than a pipe holds, so that mulo does meet the closed end."""
    rows = rows_of({f"optimizer{n}": [float(n)] for n in range(400)})
    name = write(tmp_path / "rows.jsonl", rows)
    command = f"{shlex.join(MULO)} rank {name} --resamples 0 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    first, code = done.stdout.splitlines()
    assert json.loads(first)["optimizer"] == "optimizer0"
    assert code == "141"
    assert done.stderr == ""


def test_it_does_not_import_the_engine(tmp_path, suite):
    script = (
        "import sys\nfrom mulo_cli.cli.app import run\nfrom mulo_cli.cli.terminal import Terminal\n"
        f"sys.argv = ['mulo', 'rank', {suite!r}]\ncode = run(Terminal())\n"
        "heavy = {'jax', 'flax', 'optax', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_help_shows_an_example_and_the_defaults_of_the_engine(tmp_path):
    shown = mulo("rank", "--help", cwd=tmp_path).stdout
    assert "mulo rank rows.jsonl" in shown
    assert commands.RESAMPLES == RESAMPLES
    assert f"[default: {RESAMPLES}]" in shown
