"""`mulo evaluate` as a user meets it: rows and tables, kill and continue, and what is wrong."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.results.records import to_plain
from mulo_cli.results.tuned import Tuned
from tests.cli.programs import MULO, environment, inside, mulo, start
from tests.results.evaluation_rows import evaluation_row

ARTEFACT = Path(__file__).parent.parent.parent / "assets" / "mulo-m-desk"
SHORT = ("--widths", "8", "--steps", "30", "--window", "10", "--seeds", "2")
PAIR = ("--optimizer", "adamw", "--optimizer", "sgd")
"""Two optimizers, two programs: between them a run can be interrupted."""


def rows(text: str) -> list[dict]:
    """Return rows without what the clock said."""
    found = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds_per_step"} for row in found]


def trained(found: list[dict]) -> list[tuple[str, int]]:
    return [(row["optimizer"], row["seed"]) for row in found]


@pytest.mark.parametrize("command", ["evaluate", "tune-adam"])
def test_help_names_every_optimizer_and_parametrization(tmp_path, command):
    told = inside(command, "--help", cwd=tmp_path, COLUMNS="160").stdout
    assert set(OPTIMIZERS) <= set(re.findall(r"\w+", told))
    assert "mup|sp|spectral" in told


# --- What comes out -------------------------------------------------------------------------------


def test_in_a_pipe_every_network_is_one_line(tmp_path):
    optimizers = ("--optimizer", str(ARTEFACT), "--optimizer", "muadam:learning_rate=0.03")
    done = mulo("evaluate", *optimizers, *SHORT, "--at", "30,10", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    names = (str(ARTEFACT), "muadam:learning_rate=0.03")
    assert trained(found) == [(name, seed) for name in names for seed in (0, 1)]
    for row in found:
        assert row["parametrization"] == "mup"
        assert row["real"] is True
        assert row["status"] == "ok"
        assert row["at"] == [10, 30]
        assert 0 < row["smoothed_loss"]["30"] < row["smoothed_loss"]["10"] < 3
    assert all(json.loads(line)["seconds_per_step"] > 0 for line in done.stdout.splitlines())
    assert list(tmp_path.iterdir()) == [], "nothing is written that nobody asked for"


def test_a_diverged_run_has_no_nan_in_its_line(tmp_path):
    optimizers = ("--optimizer", "adamw:learning_rate=1e30")
    done = inside("evaluate", *optimizers, *SHORT, "--at", "10,30", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "NaN" not in done.stdout
    assert "Infinity" not in done.stdout
    for row in rows(done.stdout):
        assert row["status"] == "diverged"
        assert 1 < row["diverged_at"] <= 10
        assert row["smoothed_loss"] == {"10": None, "30": None}


def test_alone_it_compares_a_built_in_suite_and_says_so(tmp_path):
    done = inside("evaluate", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    suite = ("adamw:learning_rate=0.01", "muadam:learning_rate=0.1")
    assert trained(rows(done.stdout)) == [(name, seed) for name in suite for seed in (0, 1)]
    assert f"no --optimizer given, comparing {', '.join(suite)} (" in done.stderr
    assert "no finished run in ./runs" in done.stderr


def test_alone_it_sets_the_newest_finished_run_beside_the_suite(tmp_path):
    shutil.copytree(ARTEFACT, tmp_path / "runs" / "mine" / "artefact")
    (tmp_path / "runs" / "unfinished").mkdir()
    done = inside("evaluate", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert trained(rows(done.stdout))[-2:] == [("runs/mine", 0), ("runs/mine", 1)]
    assert len(rows(done.stdout)) == 6
    assert re.search("comparing .*, runs/mine$", done.stderr, re.MULTILINE)


def test_what_is_asked_for_twice_is_trained_once(tmp_path):
    done = inside("evaluate", *("--optimizer", "sgd") * 2, *SHORT, cwd=tmp_path)
    assert trained(rows(done.stdout)) == [("sgd", 0), ("sgd", 1)]


def test_progress_is_a_line_for_what_is_compiled_and_for_what_is_done(whole):
    said = whole.process.stderr.splitlines()
    assert "step 0/60 · adamw at width 8: compiling" in said
    for done, name in ((30, "adamw"), (60, "sgd")):
        beginning = f"step {done}/60 · {name} at width 8: step 30, loss "
        assert sum(line.startswith(beginning) for line in said) == 1


# --- Rows that are kept ---------------------------------------------------------------------------


class Whole:
    """An evaluation that nobody interrupted, and the file that it left."""

    def __init__(self, folder: Path):
        self.process = mulo("evaluate", *PAIR, *SHORT, "--output", "rows.jsonl", cwd=folder)
        assert self.process.returncode == 0, self.process.stderr
        self.file = folder / "rows.jsonl"
        self.rows = rows(self.file.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copied(tmp_path, whole) -> Path:
    """Return a folder with a copy of the uninterrupted file."""
    shutil.copy(whole.file, tmp_path)
    return tmp_path


def append(cwd: Path, *more: str, **settings):
    return inside(
        "evaluate", *PAIR, *SHORT, "--output", "rows.jsonl", "--append", *more, cwd=cwd, **settings
    )


def test_the_file_holds_what_the_pipe_got(whole):
    assert whole.file.read_text() == whole.process.stdout
    assert trained(whole.rows) == [("adamw", 0), ("adamw", 1), ("sgd", 0), ("sgd", 1)]
    assert "4 rows, 4 of them new, are in rows.jsonl" in whole.process.stderr


def test_the_same_again_trains_nothing_and_gives_the_same_rows(copied, whole):
    again = append(copied)
    assert again.returncode == 0, again.stderr
    assert again.stdout == whole.process.stdout
    assert (copied / "rows.jsonl").read_bytes() == whole.file.read_bytes()
    assert again.stderr == "4 rows, 0 of them new, are in rows.jsonl\n", "no progress"


def test_only_what_is_missing_is_trained(copied, whole):
    more = append(copied, "--optimizer", "sgd:momentum=0.9")
    assert more.returncode == 0, more.stderr
    assert "6 rows, 2 of them new" in more.stderr
    assert "adamw at width" not in more.stderr
    kept = (copied / "rows.jsonl").read_text()
    assert kept.startswith(whole.file.read_text())
    assert trained(rows(kept))[4:] == [("sgd:momentum=0.9", 0), ("sgd:momentum=0.9", 1)]


def test_a_row_of_other_settings_is_not_taken_for_an_answer(copied):
    other = append(copied, "--batch-size", "63")
    assert "4 rows, 4 of them new" in other.stderr
    assert len((copied / "rows.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_an_interrupted_evaluation_goes_on_to_the_same_rows(tmp_path, whole, number, code):
    process = start("evaluate", *PAIR, *SHORT, "--output", "rows.jsonl", cwd=tmp_path)
    file, deadline = tmp_path / "rows.jsonl", time.monotonic() + 200
    while not (file.exists() and b"\n" in file.read_bytes()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    kept = file.read_text().count("\n")
    assert 1 <= kept < 4
    if number == signal.SIGINT:
        assert f"stopped after {kept} rows; the same command with --append continues" in said
    continued = append(tmp_path)
    assert continued.returncode == 0, continued.stderr
    assert rows(file.read_text()) == whole.rows, "no row is lost, doubled or different"
    assert rows(continued.stdout) == whole.rows


def test_a_line_that_was_torn_is_computed_again(copied, whole):
    file = copied / "rows.jsonl"
    file.write_bytes(file.read_bytes()[:-100])
    mended = append(copied)
    assert mended.returncode == 0, mended.stderr
    assert "warning: the last line of rows.jsonl was cut off" in mended.stderr
    assert "4 rows, 1 of them new" in mended.stderr
    assert rows(file.read_text()) == whole.rows


def test_a_full_disk_keeps_what_was_written_and_what_is_left_is_done_later(tmp_path, whole):
    """A limit on file sizes stands in for a full disk: two rows fit, and half of the third."""
    first_two = whole.file.read_text().index("\n", whole.file.read_text().index("\n") + 1)
    refused = mulo(
        *("evaluate", *PAIR, *SHORT, "--output", "rows.jsonl"),
        cwd=tmp_path,
        file_size=first_two + 300,
    )
    assert refused.returncode == 1, refused.stderr
    assert "error: cannot write 'rows.jsonl'" in refused.stderr
    assert "free space" in refused.stderr.split("hint: ")[1]
    assert "Traceback" not in refused.stderr
    assert rows(refused.stdout) == whole.rows[:2], "nothing is told that is not kept"
    later = append(tmp_path)
    assert later.returncode == 0, later.stderr
    assert rows((tmp_path / "rows.jsonl").read_text()) == whole.rows


# --- Who reads it ---------------------------------------------------------------------------------


def with_a_reader_of_one_line(*more: str, cwd: Path) -> tuple[str, int, str]:
    """Pipe an evaluation into `head -1`; return what that read, and the end of the evaluation."""
    read_one = [sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.readline())"]
    writer = subprocess.Popen(
        [*MULO, "evaluate", *PAIR, *SHORT, *more],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    reader = subprocess.Popen(read_one, stdin=writer.stdout, stdout=subprocess.PIPE, text=True)
    writer.stdout.close()  # the reader alone holds the pipe: when it leaves, nobody does
    read, _ = reader.communicate(timeout=120)
    said = writer.stderr.read()
    return read, writer.wait(timeout=60), said


NOISE = ("Traceback", "BrokenPipe", "Broken pipe", "Exception ignored", "error:")


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path, whole):
    read, code, said = with_a_reader_of_one_line("--optimizer", "muadam", cwd=tmp_path)
    assert rows(read) == whole.rows[:1]
    assert code == 141
    assert not [noise for noise in NOISE if noise in said]
    assert "muadam" not in said, "nobody would see the rest"


def test_a_reader_that_leaves_does_not_keep_rows_from_being_written(tmp_path, whole):
    read, code, said = with_a_reader_of_one_line("--output", "rows.jsonl", cwd=tmp_path)
    assert rows(read) == whole.rows[:1]
    assert code == 141
    assert not [noise for noise in NOISE if noise in said]
    assert rows((tmp_path / "rows.jsonl").read_text()) == whole.rows


def test_a_full_disk_behind_stdout_is_one_sentence_too(copied):
    """As in `mulo evaluate > rows.jsonl`."""
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a device that is always full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MULO, "evaluate", *PAIR, *SHORT, "--output", "rows.jsonl", "--append"],
            cwd=copied,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr
    assert not [noise for noise in NOISE[:-1] if noise in done.stderr]


@pytest.mark.parametrize(
    ("watched", "asked", "shown"),
    [
        (True, [], "table"),
        (False, [], "jsonl"),
        (True, ["--format", "jsonl"], "jsonl"),
        (False, ["--format", "table"], "table"),
    ],
)
def test_people_get_a_table_and_programs_get_lines_unless_told_otherwise(
    copied, whole, watched, asked, shown
):
    done = append(copied, *asked, watched=watched)
    assert done.returncode == 0, done.stderr
    if shown == "jsonl":
        assert done.stdout == whole.process.stdout
        return
    lines = done.stdout.splitlines()
    assert "training loss (nats), mean of steps 21..30" in lines[0]
    assert [line for line in lines if re.search(r"│ sgd +│ +\d\.\d{3} ± \d\.\d{3} \* +│", line)]
    assert [line for line in lines if re.search(r"│ adamw +│ +\d\.\d{3} ± \d\.\d{3} +│", line)]


def test_a_picture_can_be_drawn_of_rows_that_are_there_already(copied):
    pytest.importorskip("matplotlib")
    drawn = append(copied, "--plot", "curves.png")
    assert drawn.returncode == 0, drawn.stderr
    assert (copied / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "0 of them new" in drawn.stderr


# --- What is wrong --------------------------------------------------------------------------------


def artefact_in(folder: Path, **changes) -> Path:
    """Copy an artefact with some facts of its card changed."""
    shutil.copytree(ARTEFACT, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a folder of files that are not what they should be."""
    folder = tmp_path_factory.mktemp("place")
    values = {"learning_rate": 0.5, "b1": 0.8, "b2": 0.9}
    tuned = Tuned(
        "muadam", values, "constant", "mup", 0.5, 8, (), "mlp", "digits",
        64, 3, 64, 500, 50, 2, "0.1.0",
    )  # fmt: skip
    (folder / "muadam.json").write_text(json.dumps(to_plain(tuned)))
    (folder / "row.json").write_text(json.dumps(to_plain(evaluation_row("adamw"))))
    (folder / "rows.jsonl").write_text(json.dumps(to_plain(evaluation_row("adamw"))) + "\n")
    (folder / "thesis.tex").write_text("do not lose me\n")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (folder / "folder").mkdir()
    shutil.rmtree(artefact_in(folder / "half") / "theta")
    (artefact_in(folder / "torn") / "card.json").write_text('{"name": "mulo')
    artefact_in(folder / "other", architecture="velo")
    artefact_in(folder / "larger", settings={"hidden_size": 9})
    artefact_in(folder / "odd", settings={"hidden_sizes": 8})
    artefact_in(folder / "swapped", checksum="0" * 64)
    artefact_in(folder / "future", format=3)
    (folder / "running").mkdir()
    (folder / "running" / "recipe.toml").write_text("seed = 0\n")
    return folder


ADAMW = ["--optimizer", "adamw"]


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        (["--optimizer", "adamww"], 2, "'adamww'", "adamw"),
        (["--optimizer", "nowhere/artefact"], 2, "nowhere/artefact", "finished run"),
        (["--optimizer", "adamw:learning_rat=1"], 2, "'learning_rat'", "learning_rate"),
        (["--optimizer", "adamw:momentum=0.9"], 2, "'momentum'", "known are"),
        (["--optimizer", "adamw:b1=high"], 2, "'b1=high'", "adamw:"),
        (["--optimizer", "adamw:learning_rate=inf"], 2, "'learning_rate=inf'", "adamw:"),
        (["--optimizer", "adamw:b1=0.9:b1=0.8"], 2, "'b1' twice", "once"),
        (["--optimizer", "adamw:preset=paper/cifar-mlp"], 2, "'paper/cifar-mlp'", "cifar10-mlp"),
        (["--optimizer", "sgd:preset=paper/cifar10-mlp"], 2, "unknown preset", "none"),
        (["--optimizer", "adamw:schedule=cosine"], 2, "'cosine'", "warmup-cosine"),
        (["--optimizer", "adamw:parametrization=ntk"], 2, "'ntk'", "sp, mup"),
        (["--optimizer", "sgd:parametrization=ntk"], 2, "'ntk'", "known are: sp, mup"),
        (["--optimizer", "adamw:tuned=nowhere.json"], 1, "cannot read 'nowhere.json'", "tune-adam"),
        (["--optimizer", "adamw:tuned=folder"], 1, "cannot read 'folder'", "tune-adam"),
        (["--optimizer", "adamw:tuned=row.json"], 1, "no tuned values", "tune-adam"),
        (["--optimizer", "adamw:tuned=thesis.tex"], 1, "no tuned values", "tune-adam"),
        (["--optimizer", "adamw:tuned=muadam.json"], 2, "muadam, not of", "muadam:tuned=muadam"),
        (
            ["--optimizer", "muadam:tuned=muadam.json:preset=paper/cifar10-mlp"],
            2,
            "a preset and a file",
            "one of them",
        ),
        (["--optimizer", f"{ARTEFACT}:b1=0.9"], 2, "no settings", "leave"),
        (["--optimizer", f"{ARTEFACT}:schedule=warmup-cosine"], 2, "no settings", "leave"),
        (["--optimizer", f"{ARTEFACT}:parametrization=ntk"], 2, "'ntk'", "mup, sp"),
        (["--optimizer", "folder"], 1, "holds no artefact", "mulo meta-train"),
        (["--optimizer", "thesis.tex"], 1, "holds no artefact", "mulo meta-train"),
        (["--optimizer", "running"], 1, "has not finished", "resume"),
        (["--optimizer", "half"], 1, "theta of 'half' cannot be read", "write it again"),
        (["--optimizer", "torn"], 1, "'torn/card.json' is not a card", "write it again"),
        (["--optimizer", "other"], 1, "'velo'", "use mulo"),
        (["--optimizer", "larger"], 1, "theta of 'larger' cannot be read", "write it again"),
        (["--optimizer", "odd"], 1, "hidden_sizes", "use mulo"),
        (["--optimizer", "swapped"], 1, "checksum differs", "write it again"),
        (["--optimizer", "future"], 1, "format 3", "version of mulo"),
        ([*ADAMW, "--widths", "0.."], 2, "'0..'", "128..8192"),
        ([*ADAMW, "--widths", "8..4"], 2, "ascending", "128..8192"),
        ([*ADAMW, "--widths", "a..b"], 2, "'a'", "128..8192"),
        ([*ADAMW, "--depth", "0"], 2, "--depth", "--help"),
        ([*ADAMW, "--seeds", "0"], 2, "--seeds", "--help"),
        ([*ADAMW, "--steps", "-3"], 2, "--steps", "--help"),
        ([*ADAMW, "--steps", "many"], 2, "--steps", "--help"),
        ([*ADAMW, "--window", "0"], 2, "--window", "--help"),
        ([*ADAMW, "--steps", "5"], 2, "--window 50 is longer than --steps 5", "--window"),
        ([*ADAMW, "--at", "20,100"], 2, "--window 50 is longer than --at 20", "--window"),
        ([*ADAMW, "--at", "100,501"], 2, "beyond --steps 500", "--steps"),
        ([*ADAMW, "--at", "last"], 2, "--at 'last'", "--at 100,300,1000"),
        ([*ADAMW, "--at", ""], 2, "--at ''", "--at 100,300,1000"),
        ([*ADAMW, "--dataset", "digit"], 2, "'digit'", "digits"),
        ([*ADAMW, "--task", "vitt"], 2, "'vitt'", "vit"),
        ([*ADAMW, "--batch-size", "99999"], 2, "larger than digits", "batch size"),
        ([*ADAMW, "--format", "csv"], 2, "csv", "--help"),
        ([*ADAMW, "--append"], 2, "--append", "--output"),
        ([*ADAMW, "--output", "rows.jsonl"], 2, "exists already", "--append"),
        ([*ADAMW, "--output", "folder"], 1, "is a folder", "name of a file"),
        ([*ADAMW, "--output", "folder", "--append"], 1, "cannot write 'folder'", "another place"),
        ([*ADAMW, "--output", "thesis.tex/rows"], 1, "thesis.tex", "another place"),
        ([*ADAMW, "--output", "thesis.tex"], 2, "exists already", "another name"),
        ([*ADAMW, "--output", "thesis.tex", "--append"], 1, "thesis.tex", "--output"),
        ([*ADAMW, "--output", "photo.png", "--append"], 1, "not rows", "a new name"),
        ([*ADAMW, "--plot", "curves.txt"], 2, "'curves.txt'", ".png"),
        ([*ADAMW, "sgd"], 2, "sgd", "--help"),
    ],
)
# Orbax leaves coroutines behind where it cannot read
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_wrong_word_gets_one_sentence_and_a_hint(place, arguments, code, said, hinted):
    before = contents(place)
    refused = inside("evaluate", *arguments, cwd=place)
    assert refused.returncode == code, refused.stderr
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: ")
    message, hint = refused.stderr.split("\n\nhint: ")
    assert said in message
    assert hinted in hint
    assert len(refused.stderr.strip().splitlines()) == 3, "the error, a blank line, the hint"
    assert "Traceback" not in refused.stderr
    assert "defect of mulo" not in refused.stderr
    assert contents(place) == before, "nothing is made, nothing is lost"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_refusal_of_a_process_is_the_same_as_inside(place):
    refused = mulo("evaluate", *ADAMW, "--output", "rows.jsonl", cwd=place)
    told = inside("evaluate", *ADAMW, "--output", "rows.jsonl", cwd=place)
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", told.stderr)
