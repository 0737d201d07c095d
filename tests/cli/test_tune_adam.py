"""`mulo tune-adam` as a user meets it: a grid, a table, a file, and the same again after Ctrl-C."""

import dataclasses
import json
import re
import signal

import pytest

from mulo_cli.cli.row_output import RowOutput
from mulo_cli.cli.tuning_options import TuningOptions
from mulo_cli.errors import MuloError
from mulo_cli.processes import ALONE
from tests.cli.programs import inside, mulo, start

TINY = ("--width", "8", "--depth", "2", "--batch-size", "16", "--steps", "60", "--window", "10")
GRID = "learning_rate = [1e-3, 1e-2, 3e-2]\nb1 = [0.9, 0.95]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished search, for tests that only look at it."""
    path = tmp_path_factory.mktemp("tuned")
    (path / "grid.toml").write_text(GRID)
    done = tune(path)
    assert done.returncode == 0, done.stderr
    return path


def tune(path, *arguments: str, program=inside, **extra):
    return program("tune-adam", "--grid", "grid.toml", *TINY, *arguments, cwd=path, **extra)


def rows(path) -> list[dict]:
    lines = (path / "runs" / "tune-adamw-mlp-digits-w8" / "rows.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "seconds_per_step"} for row in found]


def best(path) -> dict:
    return json.loads((path / "runs" / "tune-adamw-mlp-digits-w8" / "best.json").read_text())


def test_the_best_is_the_lowest_final_loss_and_evaluate_takes_its_file(folder):
    found = best(folder)
    losses = {row["optimizer"]: row["smoothed_loss"]["60"] for row in rows(folder)}
    assert len(losses) == found["configurations"] == 6
    assert found["smoothed_loss"] == min(losses.values())
    name = min(losses, key=losses.get)
    assert f"learning_rate={found['settings']['learning_rate']}" in name
    tuned = "adamw:tuned=runs/tune-adamw-mlp-digits-w8/best.json"
    short = ("--widths", "8", "--steps", "30", "--window", "10", "--seeds", "1")
    done = inside("evaluate", "--optimizer", tuned, *short, cwd=folder)
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["settings"]["learning_rate"] == found["settings"]["learning_rate"]
    assert row["settings"]["b1"] == found["settings"]["b1"]


def test_the_same_command_again_computes_nothing_and_says_the_same(folder):
    before = rows(folder)
    again = tune(folder)
    assert again.returncode == 0
    assert rows(folder) == before
    printed = [json.loads(line) for line in again.stdout.splitlines()]
    assert len(printed) == 6
    assert "step" not in re.sub("first or last.*", "", again.stderr), "no progress: nothing is done"


def test_a_person_sees_the_best_ten_and_what_to_run_next(folder):
    shown = tune(folder, "--format", "table").stdout
    assert "best 6 of 6 configurations" in shown
    assert shown.count(" *") >= 1
    assert "next: mulo evaluate --optimizer adamw:tuned=" in shown


def test_a_best_value_at_the_border_of_the_grid_is_pointed_out(folder):
    rate = best(folder)["settings"]["learning_rate"]
    assert rate == 3e-2, "in sixty steps the highest rate wins"
    assert best(folder)["on_border"] == ["learning_rate"]
    assert "best learning_rate, 0.03, is the first or last" in tune(folder).stderr


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_an_interrupted_search_goes_on_to_the_same_rows(folder, tmp_path, how):
    """One lane: trials end one after another, so that there is something to interrupt."""
    (tmp_path / "grid.toml").write_text(GRID)
    one_lane = ("--lanes", "1")
    running = start("tune-adam", "--grid", "grid.toml", *TINY, *one_lane, cwd=tmp_path)
    assert running.stdout is not None
    running.stdout.readline()  # the first row
    running.send_signal(how)
    running.communicate(timeout=120)
    assert running.returncode in (130, -signal.SIGKILL)
    assert 1 <= len(rows(tmp_path)) < 6
    finished = tune(tmp_path, *one_lane, program=mulo)
    assert finished.returncode == 0, finished.stderr
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "grid.toml").write_text(GRID)
    assert tune(whole, *one_lane, program=mulo).returncode == 0
    assert rows(tmp_path) == rows(whole), "no row is lost, doubled or different"
    assert best(tmp_path) == best(whole)


def search(path) -> dict:
    return json.loads((path / "runs" / "tune-adamw-mlp-digits-w8" / "search.json").read_text())


def test_a_search_goes_on_with_as_many_lanes_as_it_began_with(folder, tmp_path):
    """Six trials are two waves of three; begun with two lanes, two stay, and so do the bits."""
    assert search(folder)["programs"][0]["lanes"] == 3
    (tmp_path / "grid.toml").write_text(GRID)
    begun = tmp_path / "runs" / "tune-adamw-mlp-digits-w8"
    assert tune(tmp_path, "--lanes", "2").returncode == 0
    by_two = rows(tmp_path)
    written = (begun / "rows.jsonl").read_text().splitlines(keepends=True)
    (begun / "rows.jsonl").write_text("".join(written[:3]))
    again = tune(tmp_path)
    assert search(tmp_path)["programs"][0]["lanes"] == 2
    assert sorted(map(str, rows(tmp_path))) == sorted(map(str, by_two))
    assert "last digits" not in again.stderr
    assert "2 networks in a program, as" in again.stderr
    (begun / "rows.jsonl").write_text("".join(written[:3]))
    assert "the last digits differ" in tune(tmp_path, "--lanes", "3").stderr


def test_a_larger_grid_has_lanes_of_its_own_and_keeps_the_rows(folder, tmp_path, monkeypatch):
    """Nothing is compiled: six of eight trainings are known, and no six lanes are asked for."""
    asked = []

    def compile_tuning(task, trials, config, lanes, budget):
        asked.append((len(trials), lanes))
        raise MuloError("this is enough", "")

    monkeypatch.setattr("mulo_cli.studies.tune.compile_tuning", compile_tuning)
    begun = tmp_path / "runs" / "tune-adamw-mlp-digits-w8"
    begun.mkdir(parents=True)
    for name in ("rows.jsonl", "search.json"):
        kept = (folder / "runs" / "tune-adamw-mlp-digits-w8" / name).read_text()
        (begun / name).write_text(kept)
    (tmp_path / "grid.toml").write_text(GRID.replace("3e-2]", "3e-2, 4e-2]"))
    told = tune(tmp_path)
    assert len(told.stdout.splitlines()) == 6, told.stderr
    assert asked == [(8, None)]
    assert rows(tmp_path) == rows(folder)


def test_ctrl_c_keeps_every_training_that_has_ended(tmp_path, monkeypatch):
    """Three lanes end together, and the signal comes with the first of them."""
    take, taken = RowOutput.take, []

    def interrupted(self, row):
        if not taken:
            signal.raise_signal(signal.SIGINT)
        taken.append(row)
        return take(self, row)

    monkeypatch.setattr(RowOutput, "take", interrupted)
    (tmp_path / "grid.toml").write_text(GRID)
    stopped = tune(tmp_path, "--lanes", "3")
    assert stopped.returncode == 130, stopped.stderr
    assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize(
    ("optimizer", "parametrization", "named"),
    [
        ("adamw", None, "adamw-mlp"),
        ("adamw", "sp", "adamw-mlp"),
        ("adamw", "mup", "adamw-mup-mlp"),
        ("muadam", "mup", "muadam-mlp"),
        ("muadam", "spectral", "muadam-spectral-mlp"),
    ],
)
def test_every_parametrization_has_its_folder(optimizer, parametrization, named):
    nothing = dict.fromkeys(field.name for field in dataclasses.fields(TuningOptions))
    given = {"schedule": "none", "steps": 500, "window": 50, "task": "mlp", "place": ALONE}
    options = TuningOptions(
        **{**nothing, **given, "optimizer": optimizer, "parametrization": parametrization}
    )
    assert options.of_search().folder.name == f"tune-{named}-digits-w32"
    study = dataclasses.replace(options, widths="8,16")
    assert study.of_transfer().folder.name == f"transfer-{named}-digits-widths"
    both = dataclasses.replace(study, parametrization="mup,sp").of_transfer()
    assert both.folder.name == f"transfer-{optimizer}-mup-sp-mlp-digits-widths"


def test_progress_tells_the_best_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr("mulo_cli.cli.progress.PLAIN_SECONDS", 0.0)
    (tmp_path / "grid.toml").write_text(GRID)
    told = tune(tmp_path, "--lanes", "1").stderr
    assert re.search(r"trainings done, best so far \d\.\d+: adamw:learning_rate=", told)


def test_multipliers_are_tuned_and_evaluate_takes_them(tmp_path):
    """v2's muAdam: rate, multipliers of input and output, and of the hidden rate."""
    (tmp_path / "grid.toml").write_text(
        "learning_rate = 0.1\ninput_mult = [1, 4]\noutput_mult = [0.25, 1]\nhidden_lr_mult = 4\n"
    )
    done = tune(tmp_path, "--optimizer", "muadam", "--out", "found")
    assert done.returncode == 0, done.stderr
    best = json.loads((tmp_path / "found" / "best.json").read_text())
    assert best["configurations"] == 4
    tuned = "muadam:tuned=found/best.json"
    short = ("--widths", "8", "--depth", "2", "--batch-size", "16", "--steps", "60")
    shown = inside(
        "evaluate", "--optimizer", tuned, *short, "--window", "10", "--seeds", "1", cwd=tmp_path
    )
    (row,) = [json.loads(line) for line in shown.stdout.splitlines()]
    assert row["settings"]["input_mult"] == best["settings"]["input_mult"]
    assert row["smoothed_loss"]["60"] == pytest.approx(best["smoothed_loss"], rel=1e-3)


def test_a_tuned_file_brings_its_parametrization(tmp_path):
    (tmp_path / "grid.toml").write_text("learning_rate = [0.01, 0.02, 0.03]")
    done = tune(tmp_path, "--parametrization", "mup", "--out", "found")
    assert done.returncode == 0, done.stderr
    assert "parametrization=mup" in json.loads(done.stdout.splitlines()[0])["optimizer"]
    shown = inside(
        "evaluate", "--optimizer", "adamw:tuned=found/best.json", "--widths", "8", "--steps", "30",
        "--window", "10", "--seeds", "1", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(shown.stdout)["parametrization"] == "mup"


def test_a_grid_that_diverges_everywhere_is_an_error_that_keeps_its_rows(tmp_path):
    (tmp_path / "grid.toml").write_text("learning_rate = [1e20]")
    done = tune(tmp_path)
    assert done.returncode == 1
    assert "every configuration of the grid diverged" in done.stderr
    assert [row["status"] for row in rows(tmp_path)] == ["diverged"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        (["--optimizer", "adamm"], 2, "'adamm'", "adam"),
        (["--optimizer", "adamw:b1=0.8"], 2, "sets b1, and the grid varies it", "leave"),
        (["--optimizer", "adamw:momentum=0.8"], 2, "'momentum'", "known are"),
        (["--parametrization", "ntk"], 2, "'ntk'", "mup"),
        (["--optimizer", "adamw:parametrization=sp", "--parametrization", "mup"], 2, "mup", "one"),
        (["--widths", "8..32"], 2, "--widths needs --transfer", "add it"),
        (["--expect", "drifts"], 2, "--expect needs --transfer", "add it"),
        (["--width", "0"], 2, "--width", "--help"),
        (["--width", "wide"], 2, "--width", "--help"),
        (["--steps", "0"], 2, "--steps", "--help"),
        (["--lanes", "0"], 2, "--lanes", "--help"),
        (["--window", "61"], 2, "--window 61", "--window"),
        (["--grid", "large"], 2, "'large' for adamw", "small"),
        (["--optimizer", "muadam", "--grid", "paper-widths"], 2, "for muadam", "paper-v2"),
        (["--grid", "nowhere.toml"], 2, "nowhere.toml", "TOML"),
        (["--grid", "momentum.toml"], 2, "'momentum'", "known are"),
        (["--schedule", "linear"], 2, "'linear'", "warmup-cosine"),
        (["--dataset", "digit"], 2, "'digit'", "digits"),
        (["--task", "vitt"], 2, "'vitt'", "vit"),
        (["--task", "mlp:input_mult=nan"], 2, "input_mult=nan", "finite"),
        (["--optimizer", "sophia:update_interval=2.5"], 2, "2.5", "a whole number"),
        (["--optimizer", "sophia", "--grid", "often.toml"], 2, "update_interval=0", "1 or more"),
        (["--batch-size", "9999"], 2, "larger than digits", "batch size"),
        (["--out", "grid.toml"], 1, "cannot write", "choose another place"),
        (["--out", "foreign"], 1, "rows.jsonl", "mulo evaluate"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_a_hint(tmp_path, arguments, code, said, hinted):
    (tmp_path / "grid.toml").write_text(GRID)
    (tmp_path / "momentum.toml").write_text("momentum = [0.9]")
    (tmp_path / "often.toml").write_text("update_interval = [0, 10]")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "rows.jsonl").write_text("my shopping list\n")
    refused = tune(tmp_path, *arguments)
    assert refused.returncode == code, refused.stderr
    assert refused.stdout == ""
    message, hint = refused.stderr.split("hint: ")
    assert said in message
    assert hinted in hint
    assert "Traceback" not in refused.stderr
    assert (tmp_path / "foreign" / "rows.jsonl").read_text() == "my shopping list\n"
