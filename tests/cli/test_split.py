"""Work that processes share without talking: nothing is left out, nothing differs, nothing is lost.

Most of it runs here, one process' share after the other's: they do not know of each other anyway.
"""

import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from mulo_cli.cli.evaluation_run import dealt
from mulo_cli.cli.search_split import agreed_programs, own_trials
from mulo_cli.processes import Place
from mulo_cli.results.run_lock import locked_file
from mulo_cli.results.search_file import SearchFile
from mulo_cli.studies.evaluate import NamedOptimizer
from mulo_cli.studies.seats import Trial, waves_of
from tests.cli.programs import inside, mulo, start

SHORT = ("--widths", "8", "--steps", "30", "--window", "10", "--seeds", "2")
EVALUATE = (
    *("evaluate", *SHORT, "--output", "rows.jsonl", "--optimizer", "adamw", "--optimizer", "sgd"),
)
GRID = "learning_rate = [1e-3, 1e-2, 3e-2]\nb1 = [0.9, 0.95]\n"
TUNE = (
    *("tune-adam", "--grid", "grid.toml", "--width", "8", "--depth", "2", "--batch-size", "16"),
    *("--steps", "60", "--window", "10", "--out", "found"),
)
TRANSFER = (
    *("tune-adam", "--transfer", "--task", "mlp", "--dataset", "digits", "--grid", "grid.toml"),
    *("--widths", "8,16", "--steps", "50", "--window", "10", "--seeds", "2", "--out", "found"),
)


def at(place: str) -> tuple[str, ...]:
    """Return the options of a place: `1/4`."""
    index, count = place.split("/")
    return ("--process-id", index, "--num-processes", count)


def rows_of(*files: Path) -> list[str]:
    """Return rows without what the clock said, in an order of their own."""
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return sorted(json.dumps(row | {"seconds_per_step": 0}) for row in found)


def kept(folder: Path) -> list[str]:
    return rows_of(*folder.rglob("rows*.jsonl"))


# --- Whose is what --------------------------------------------------------------------------------

WORK = [9, 1, 1, 8, 2, 2, 30, 1, 5, 5, 5]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 11, 20])
def test_every_item_is_one_process_and_none_has_much_more_to_do(count):
    shares = [dealt(WORK, Place(index, count)) for index in range(count)]
    assert sorted(number for share in shares for number in share) == list(range(len(WORK)))
    loads = [sum(WORK[number] for number in share) for share in shares]
    assert max(loads) - min(loads) <= max(WORK)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_equal_work_is_dealt_in_turn():
    assert dealt([7] * 5, Place(1, 2)) == [1, 3]


TRIALS = [
    Trial(NamedOptimizer(f"adamw:{number}", "sp", print, {}, {}, None), seed)
    for number in range(7)
    for seed in range(2)
]


@pytest.mark.parametrize("lanes", [1, 3, 7, 16])
@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("first", [0, 1, 5])
def test_every_wave_is_one_process(lanes, count, first):
    shares = [own_trials(TRIALS, lanes, Place(index, count), first) for index in range(count)]
    named = [(trial.optimizer.name, trial.seed) for share in shares for trial in share]
    assert Counter(named) == Counter((trial.optimizer.name, trial.seed) for trial in TRIALS)
    waves = waves_of(TRIALS, lanes)
    owners = [{index for index in range(count) if wave[0] in shares[index]} for wave in waves]
    assert owners == [{(number + first) % count} for number in range(len(waves))]


class Compiled:
    """Stands for a program of so many lanes."""

    def __init__(self, lanes: int | None):
        self.lanes = lanes or 8


def test_of_processes_that_begin_at_once_the_first_to_compile_decides_on_the_lanes(tmp_path):
    """Another process has written its number down while this one was compiling."""
    kept, meanwhile, facts = SearchFile(tmp_path / "search.json"), [5, None], {"width": 8}

    def compile_lanes(lanes):
        if number := meanwhile.pop():
            SearchFile(tmp_path / "search.json").keep(facts, number)
        return Compiled(lanes)

    assert agreed_programs(kept, facts, None, compile_lanes, insisted=False).lanes == 8
    meanwhile += [None, 5]
    facts = {"width": 16}
    assert agreed_programs(kept, facts, None, compile_lanes, insisted=False).lanes == 5
    meanwhile += [None, 5]
    assert agreed_programs(kept, facts, 3, compile_lanes, insisted=True).lanes == 3
    assert SearchFile(tmp_path / "search.json").find(facts) == 3


# --- mulo evaluate --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Return the folder of an evaluation by a single process."""
    folder = tmp_path_factory.mktemp("whole")
    done = inside(*EVALUATE, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return the folder of the same evaluation by two processes, and what became of these."""
    folder = tmp_path_factory.mktemp("shared")
    return folder, [inside(*EVALUATE, *at(place), cwd=folder) for place in ("0/2", "1/2")]


@pytest.fixture
def ended(tmp_path, shared) -> Path:
    """Return a folder with a copy of what two processes left."""
    for file in shared[0].iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path


@pytest.fixture
def died(ended) -> Path:
    """Return a folder where process 0 of 2 has ended, and 1 has died while it wrote a row."""
    theirs = ended / "rows.1-of-2.jsonl"
    theirs.write_text(theirs.read_text()[:-300])
    return ended


def test_two_processes_give_the_rows_of_one(shared, whole):
    folder, told = shared
    assert [done.returncode for done in told] == [0, 0], told[0].stderr + told[1].stderr
    assert kept(folder) == kept(whole)
    files = [folder / f"rows.{index}-of-2.jsonl" for index in (0, 1)]
    assert [file.read_text() for file in files] == [done.stdout for done in told]
    assert [len(rows_of(file)) for file in files] == [2, 2]
    assert "process 0 of 2: 1 of 2 trainings" in told[0].stderr
    assert "2 of 4 rows are in by now" in told[0].stderr
    assert "all 4 rows are in: `mulo rank rows.jsonl` reads them" in told[1].stderr
    assert sorted(folder.iterdir()) == files


def complete_rows(folder: Path) -> list[str]:
    """Return the rows of all files, but for a last line that was not written to its end."""
    for file in folder.rglob("rows*.jsonl"):
        text = file.read_text()
        file.write_text(text[: text.rfind("\n") + 1])
    return kept(folder)


@pytest.mark.parametrize("places", [["1/2"], ["0/3", "1/3", "2/3"], ["0/1"]])
def test_what_a_dead_process_left_is_done_by_whoever_runs_again(died, whole, places):
    """The same place, other processes, or one alone."""
    finished = (died / "rows.0-of-2.jsonl").read_bytes()
    again = [inside(*EVALUATE, "--append", *at(place), cwd=died) for place in places]
    assert [done.returncode for done in again] == [0] * len(places), again[0].stderr
    assert "of them new" in again[-1].stderr
    assert ("was cut off" in again[0].stderr) == (places == ["1/2"]), "by its own process"
    assert (died / "rows.0-of-2.jsonl").read_bytes() == finished
    assert complete_rows(died) == kept(whole), "no row is lost, doubled or different"


def test_a_launcher_tells_the_place_unless_one_wants_to_be_alone(ended):
    slurm = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    told = inside(*EVALUATE, "--append", cwd=ended, **slurm)
    assert told.returncode == 0, told.stderr
    assert "process 0 of 2, says Slurm (--alone does everything): 1 of 2" in told.stderr
    assert len(told.stdout.splitlines()) == 2
    alone = inside(*EVALUATE, "--append", "--alone", cwd=ended, **slurm)
    assert len(alone.stdout.splitlines()) == 4
    assert "4 rows, 0 of them new, are in rows.jsonl and 2 files beside it" in alone.stderr


def test_what_another_process_has_done_meanwhile_is_not_trained_again(tmp_path, whole, monkeypatch):
    trained = []

    def train(_bench, job, *_):
        trained.append(job.optimizer.name)
        shutil.copy(whole / "rows.jsonl", tmp_path / "rows.0-of-2.jsonl")

    monkeypatch.setattr("mulo_cli.cli.evaluation_run._train", train)
    done = inside(*EVALUATE, "--append", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert trained == ["adamw"]


def test_only_who_finds_the_rows_of_all_shows_and_draws_them(died, monkeypatch):
    drawn = []
    monkeypatch.setattr("mulo_cli.results.plots.prepare_plot", lambda path: None)
    monkeypatch.setattr(
        "mulo_cli.cli.suite_evaluation.draw_rows", lambda terminal, rows, plot: drawn.append(rows)
    )
    asked = (*EVALUATE, "--append", "--format", "table", "--plot", "curves.png")
    first = inside(*asked, *at("0/2"), cwd=died)
    assert first.stdout.count("±") == 2, "its own optimizer, and the heading"
    assert drawn == [], "of a part, nobody could see that it is one"
    last = inside(*asked, *at("1/2"), cwd=died)
    assert last.stdout.count("±") == 3
    assert [len(rows) for rows in drawn] == [4]


def test_two_commands_at_one_place_are_refused_and_neighbours_are_not(ended):
    with locked_file(ended / "rows.1-of-2.jsonl", print):
        refused = inside(*EVALUATE, "--append", *at("1/2"), cwd=ended)
        assert refused.returncode == 1
        assert "rows.1-of-2.jsonl' is in use" in refused.stderr
        neighbour = inside(*EVALUATE, "--append", *at("0/2"), cwd=ended)
        assert neighbour.returncode == 0, neighbour.stderr


@pytest.mark.parametrize(
    ("lock", "places"),
    [
        ("rows.jsonl", [at("0/2"), at("2/3")]),
        ("rows.1-of-2.jsonl", [("--alone",), at("1/3")]),
        ("rows.4-of-5.jsonl", [("--alone",), at("1/2")]),
    ],
    ids=["one", "two", "five that have no file yet"],
)
def test_another_number_of_processes_is_refused_while_commands_are_at_work(ended, lock, places):
    with locked_file(ended / lock, print):
        for place in places:
            refused = inside(*EVALUATE, "--append", *place, cwd=ended)
            assert refused.returncode == 1
            assert f"{lock}' is in use by process" in refused.stderr
    assert not list(ended.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        (at("1/2"), 2, "'rows.1-of-2.jsonl' exists already", "--append"),
        (at("0/3"), 2, "'rows.0-of-2.jsonl' exists already", "--append"),
        (("--alone",), 2, "'rows.0-of-2.jsonl' exists already", "--append"),
        (at("2/2"), 2, "process 2 is not one of 2", "numbered from 0"),
        (("--process-id", "1"), 2, "--process-id and --num-processes", "both"),
        (("--num-processes", "0"), 2, "--num-processes", "--help"),
        (("--process-id", "-1", "--num-processes", "2"), 2, "--process-id", "--help"),
    ],
)
def test_a_place_that_cannot_be_gets_one_sentence_and_a_hint(died, arguments, code, said, hinted):
    before = {file: file.read_bytes() for file in died.iterdir()}
    refused = inside(*EVALUATE, *arguments, cwd=died)
    assert (refused.returncode, refused.stdout) == (code, "")
    message, hint = refused.stderr.split("hint: ")
    assert said in message
    assert hinted in hint
    assert {file: file.read_bytes() for file in died.iterdir()} == before


def test_without_an_output_no_process_can_draw_the_rows_of_all(tmp_path):
    pytest.importorskip("matplotlib")
    refused = inside(
        "evaluate", *SHORT, "--optimizer", "sgd", "--plot", "curves.png", *at("0/2"), cwd=tmp_path
    )
    assert refused.returncode == 2
    assert "each of 2 processes knows its own rows" in refused.stderr


# --- mulo tune-adam -------------------------------------------------------------------------------


SEARCHES = [
    pytest.param(TUNE, id="grid"),
    pytest.param(TRANSFER, id="transfer", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=SEARCHES)
def search(request, tmp_path_factory) -> tuple[tuple[str, ...], Path, str]:
    """Return a search, the folder where a single process made it, and what that wrote on stdout."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "grid.toml").write_text(GRID if request.param is TUNE else GRID.splitlines()[0])
    done = inside(*request.param, cwd=folder)
    assert done.returncode == 0, done.stderr
    return request.param, folder, done.stdout


def test_processes_share_a_search_and_the_last_one_tells_its_outcome(tmp_path, search):
    asked, whole, said = search
    (tmp_path / "grid.toml").write_text((whole / "grid.toml").read_text())
    first = inside(*asked, *at("0/2"), cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    total = len(kept(whole))
    told = f"{len(first.stdout.splitlines())} of {total} trainings are in by now"
    assert told in first.stderr
    assert not (tmp_path / "found" / "best.json").exists()
    last = inside(*asked, *at("1/2"), cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert kept(tmp_path) == kept(whole)
    for name in ("best.json", "search.json"):
        if (whole / "found" / name).exists():
            assert (tmp_path / "found" / name).read_bytes() == (whole / "found" / name).read_bytes()
    verdicts = [line for line in said.splitlines() if "verdict" in line]
    assert [line for line in last.stdout.splitlines() if "verdict" in line] == verdicts


def test_a_process_of_another_number_does_what_is_missing_of_a_search(tmp_path, search):
    asked, whole, _ = search
    (tmp_path / "grid.toml").write_text((whole / "grid.toml").read_text())
    (tmp_path / "found").mkdir()
    lines = (whole / "found" / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "found" / "rows.0-of-5.jsonl").write_text("".join(lines[:2]) + lines[2][:50])
    (tmp_path / "found" / "search.json").write_text((whole / "found" / "search.json").read_text())
    for place in ("2/3", "0/3", "1/3"):
        done = inside(*asked, *at(place), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert complete_rows(tmp_path) == kept(whole)


# --- Processes that run at once -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("asked", [(*EVALUATE, "--append"), TUNE], ids=["evaluate", "tune-adam"])
def test_processes_at_once_one_of_them_killed_leave_the_rows_of_one(tmp_path, asked):
    whole, split = tmp_path / "whole", tmp_path / "split"
    for folder in (whole, split):
        folder.mkdir()
        (folder / "grid.toml").write_text(GRID)
    assert mulo(*asked, cwd=whole).returncode == 0
    running = [start(*asked, *at(f"{index}/2"), cwd=split) for index in range(2)]
    deadline = time.monotonic() + 200
    while not any(file.stat().st_size for file in split.rglob("rows.1-of-2.jsonl")):
        assert running[1].poll() is None, running[1].communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running[1].send_signal(signal.SIGKILL)
    for process in running:
        process.communicate(timeout=200)
    assert running[0].returncode == 0
    again = [start(*asked, *at(f"{index}/2"), cwd=split) for index in range(2)]
    told = [process.communicate(timeout=200)[1] for process in again]
    assert [process.returncode for process in again] == [0, 0], told
    assert kept(split) == kept(whole), "no row is lost, doubled or different"
    assert any("rows are in" in said or "best of" in said for said in told)
    if asked is TUNE:
        best = [(folder / "found" / "best.json").read_bytes() for folder in (whole, split)]
        assert best[0] == best[1]
