"""A run directory takes what is its own, and never touches what is somebody else's."""

import json
import os
from pathlib import Path

import pytest

from mulo_cli.errors import OutputError
from mulo_cli.results.records import MetaStepRecord, ValidationRecord
from mulo_cli.results.run_directory import RUNS, RunDirectory, newest_finished_run
from mulo_cli.results.store import read_lines


def meta_step(step: int) -> MetaStepRecord:
    return MetaStepRecord(step, {"a": 1.0}, float("inf"), {"a": 1.0}, {"a": 0.1}, {"a": 0}, 10.0)


def validation(step: int) -> ValidationRecord:
    return ValidationRecord(step, {"a": 1.0}, {"a": 1.0}, best=True)


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """Return a finished run with everything that a run has."""
    run = RunDirectory(tmp_path / "run")
    run.create()
    run.write_recipe("seed = 0\n")
    run.write_environment({"python": "3"})
    for step in range(4):
        if step % 2 == 0:
            run.append(validation(step))
        run.append(meta_step(step))
    (run.checkpoints / "3").mkdir(parents=True)
    (run.checkpoints / "3" / "state").write_text("numbers")
    run.artefact.mkdir()
    (run.artefact / "card.json").write_text("{}")
    return run


def everything(root) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_it_is_made_with_all_folders_above_it_and_may_be_there_already_when_empty(tmp_path):
    run = RunDirectory(tmp_path / "a" / "b")
    for _ in range(2):
        run.refuse_foreign()
        run.create()
    assert run.root.is_dir()
    assert not run.exists()
    assert not run.finished()


def test_a_run_begins_with_its_recipe_and_ends_with_its_artefact(tmp_path):
    run = RunDirectory(tmp_path)
    run.create()
    assert (run.exists(), run.finished()) == (False, False)
    run.write_environment({"python": "3"})
    assert not run.exists()
    run.refuse_foreign()
    run.write_recipe("seed = 0\n")
    assert (run.exists(), run.finished()) == (True, False)
    run.artefact.mkdir()
    assert not run.finished(), "a folder without its card is not finished"
    (run.artefact / "card.json").write_text("{}")
    assert (run.exists(), run.finished()) == (True, True)


def test_a_recipe_of_ones_own_is_no_run_and_is_left_alone(tmp_path):
    mine = tmp_path / "recipe.toml"
    mine.write_text("# mine\n")
    run = RunDirectory(tmp_path)
    assert not run.exists()
    with pytest.raises(OutputError):
        run.refuse_foreign()
    run.clear()
    assert mine.read_text() == "# mine\n"


def test_what_changed_since_the_run_was_begun_is_named_at_every_resumption_and_kept(run):
    before = run.environment.read_text()
    assert run.note_environment({"python": "3", "told_since": 1}) == []
    assert run.environment.read_text() == before
    for _ in range(2):
        assert run.note_environment({"python": "4"}) == ["python: 3 -> 4"]
        told = {"python": "3", "resumed_under": [{"python": "4"}]}
        assert json.loads(run.environment.read_text()) == told
    assert run.note_environment({"python": "3"}) == []
    assert run.note_environment({"python": "5"}) == ["python: 3 -> 5"]
    assert json.loads(run.environment.read_text())["resumed_under"] == [
        {"python": "4"},
        {"python": "5"},
    ]


def test_a_run_that_begins_has_its_own_environment_whatever_was_left_behind(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_environment({"python": "2"})  # of a run that was cut off before it had its recipe
    assert run.note_environment({"python": "3"}) == []
    assert json.loads(run.environment.read_text()) == {"python": "3"}


def test_a_damaged_environment_is_written_anew(run):
    for damaged in ("{", "[]"):
        run.environment.write_text(damaged)
        assert run.note_environment({"python": "3"}) == []
        assert json.loads(run.environment.read_text()) == {"python": "3"}


def test_what_is_written_can_be_read(run):
    assert run.recipe.read_text() == "seed = 0\n"
    assert json.loads(run.environment.read_text()) == {"python": "3"}
    assert len(list(read_lines(run.metrics))) == 6


def test_a_run_that_is_there_is_taken_up_as_it_is(run):
    before = everything(run.root)
    run.refuse_foreign()
    run.create()
    assert everything(run.root) == before


def test_a_folder_of_something_else_is_refused_and_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError) as caught:
        RunDirectory(tmp_path).refuse_foreign()
    assert "not a run directory" in caught.value.message
    assert "--out" in caught.value.hint
    assert everything(tmp_path) == {"thesis.tex": b"mine"}


def test_a_file_in_its_place_is_refused_and_not_touched(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OutputError):
        RunDirectory(tmp_path / "run").refuse_foreign()
    with pytest.raises(OutputError):
        RunDirectory(tmp_path / "run").create()
    assert everything(tmp_path) == {"run": b"mine"}


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        RunDirectory(tmp_path / "file" / "run").create()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"):
        RunDirectory(tmp_path / "run").create()


def test_clearing_removes_the_run_and_nothing_that_lies_beside_it(run):
    (run.root / "notes.txt").write_text("mine")
    (run.root / "plots").mkdir()
    (run.root / "plots" / "loss.png").write_text("mine too")
    run.clear()
    assert not run.exists()
    assert everything(run.root) == {"notes.txt": b"mine", "plots/loss.png": b"mine too"}
    assert not run.checkpoints.exists()
    assert not run.artefact.exists()


@pytest.mark.parametrize("number", range(3))
def test_a_run_that_was_half_cleared_can_be_used_again(run, monkeypatch, number):
    unlink, left = Path.unlink, iter(range(number))

    def killed(path, **how):
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            run.clear()
    run.refuse_foreign()
    run.clear()
    assert not run.exists()
    assert set(everything(run.root)) <= {"environment.json"}


def test_clearing_what_is_not_a_run_removes_nothing(run):
    run.recipe.unlink()
    before = everything(run.root)
    run.clear()
    assert everything(run.root) == before


def test_after_clearing_the_folder_can_be_used_again(run):
    run.clear()
    run.create()
    run.write_recipe("seed = 1\n")
    run.append(meta_step(0))
    assert [r["step"] for r in read_lines(run.metrics)] == [0]


@pytest.mark.parametrize("step", range(6))
def test_rewinding_drops_what_will_be_done_again(run, step):
    before = run.metrics.read_text().splitlines()
    run.rewind_metrics(step)
    after = run.metrics.read_text().splitlines()
    assert after == [line for line in before if json.loads(line)["step"] < step]


def test_rewinding_mends_a_torn_line_so_that_the_next_record_stands_alone(run):
    with run.metrics.open("a") as file:
        file.write('{"step": 3, "kind": "met')
    run.rewind_metrics(3)
    run.append(meta_step(3))
    kinds = [(r["step"], r["kind"]) for r in read_lines(run.metrics)]
    assert kinds[-2:] == [(2, "meta-step"), (3, "meta-step")]


def test_rewinding_a_run_without_metrics_is_nothing(tmp_path):
    RunDirectory(tmp_path).rewind_metrics(3)
    assert not list(tmp_path.iterdir())


def finished_run(root, finished_at: int) -> RunDirectory:
    """Return a run whose artefact was put in place at a certain second."""
    run = RunDirectory(root)
    run.artefact.mkdir(parents=True)
    (run.artefact / "card.json").write_text("{}")
    os.utime(run.artefact, (finished_at, finished_at))
    return run


def test_the_newest_finished_run_is_the_one_that_was_finished_last(tmp_path):
    for name, finished_at in (("b", 100), ("c", 300), ("a", 200)):
        finished_run(tmp_path / name, finished_at)
    (tmp_path / "unfinished").mkdir()
    RunDirectory(tmp_path / "unfinished").write_recipe("seed = 0\n")
    (tmp_path / "torn" / "artefact").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("not a folder")
    assert newest_finished_run(tmp_path) == tmp_path / "c"
    os.utime(tmp_path / "a" / "artefact", (400, 400))
    assert newest_finished_run(tmp_path) == tmp_path / "a"


def test_runs_of_the_same_second_have_an_order_all_the_same(tmp_path):
    for name in ("b", "c", "a"):
        finished_run(tmp_path / name, 100)
    assert newest_finished_run(tmp_path) == tmp_path / "c"


def test_without_a_finished_run_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").write_text("")
    for place in ("nowhere", "runs", "file"):
        assert newest_finished_run(tmp_path / place) is None
    monkeypatch.chdir(tmp_path)
    assert newest_finished_run() is None
    finished_run(RUNS / "mine", 100)
    assert newest_finished_run() == RUNS / "mine", "a name that can be given to --optimizer"
