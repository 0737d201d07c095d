"""`mulo evaluate --suite` and `--dry-run` as a user meets them; what `mulo rank` makes of it."""

import json
from pathlib import Path

import pytest

from tests.cli.programs import inside

SUITE = """
name = "tiny"
description = "two families at two sizes"
source = "a test"
steps = 30
at = [20, 30]
seeds = 1
window = 10

[families]
mlp = { title = "MLP", dataset = "digits", network = "mlp", batch_size = 16 }
lm = { title = "LM", dataset = "pydoc", network = "lm", batch_size = 4, length = 8 }

[tasks]
mlp-small = { family = "mlp", depth = 1, width = 4, sizes = ["base"] }
lm-small = { family = "lm", depth = 1, width = 4, sizes = ["base"] }
mlp-wide = { family = "mlp", depth = 1, width = 8, sizes = ["xl", "xxl"] }
mlp-deep = { family = "mlp", depth = 2, width = 4, axis = "depth" }
"""

SGD = ("--optimizer", "sgd")
OWN = ("evaluate", "--suite", "tiny.toml")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Return a folder with a suite, on a machine without any prepared data."""
    monkeypatch.setenv("MULO_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "tiny.toml").write_text(SUITE)
    return tmp_path


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """Return a folder in which the suite was evaluated."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tiny.toml").write_text(SUITE)
    done = inside(*OWN, *SGD, "--output", "rows.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stderr").write_text(done.stderr)
    return folder


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# --- Training a suite -----------------------------------------------------------------------------


def test_rows_say_their_place_in_the_suite(evaluated):
    found = rows((evaluated / "rows.jsonl").read_text())
    told = [row["suite_task"] for row in found]
    assert told == ["mlp-small", "mlp-wide", "mlp-deep", "lm-small"], "data set by data set"
    wide = found[1]
    assert (wide["suite"], wide["family"], wide["sizes"]) == ("tiny", "mlp", ["xl", "xxl"])
    assert (wide["task"], wide["dataset"], wide["width"]) == ("mlp", "digits", 8)
    text = found[-1]
    assert (text["task"], text["dataset"], text["batch_size"]) == ("lm:length=8", "pydoc", 4)
    assert 0 < text["test_accuracy"] < 1, "of next tokens"
    for row in found:
        assert (row["steps"], row["at"], row["window"]) == (30, [20, 30], 10)


def test_progress_names_tasks_and_counts_all_steps(evaluated):
    said = (evaluated / "stderr").read_text()
    assert "step 0/120 · sgd on mlp-small: compiling" in said
    assert "step 120/120 · sgd on lm-small: step 30, loss " in said


def test_the_same_again_trains_nothing_and_what_is_missing_alone_is_trained(evaluated, place):
    (place / "rows.jsonl").write_bytes((evaluated / "rows.jsonl").read_bytes())
    again = inside(*OWN, *SGD, "--output", "rows.jsonl", "--append", cwd=place)
    assert "4 rows, 0 of them new" in again.stderr
    more = inside(
        *OWN, *SGD, "--only", "mlp-wide", "--seeds", "2", "--output", "rows.jsonl", "--append",
        cwd=place,
    )  # fmt: skip
    assert "2 rows, 1 of them new" in more.stderr
    assert "mlp-small" not in more.stderr


def test_a_suite_can_be_piped_into_ranks(evaluated):
    """One optimizer ranks first everywhere: it is columns that are looked at."""
    piped = (evaluated / "rows.jsonl").name
    ranked = inside("rank", piped, cwd=evaluated)
    assert ranked.returncode == 0, ranked.stderr
    found = rows(ranked.stdout)
    assert [one["column"] for one in found] == [
        *(f"{size}, step {step}" for step in (20, 30) for size in ("base", "xl", "xxl")),
        "average",
    ]
    assert [(one["size"], one["width"], one["tasks"]) for one in found[:2]] == [
        ("base", None, 2),
        ("xl", None, 1),
    ]
    assert "of no size, and ranked only along width, depth and horizon (--by): mlp-deep" in (
        ranked.stderr
    )
    for axis in ("width", "depth", "horizon"):
        assert inside("rank", piped, "--by", axis, cwd=evaluated).returncode == 0


def test_wide_tasks_can_be_left_out(place):
    asked = (*OWN, *SGD, "--only", "mlp-*", "--limit-width", "4", "--dry-run")
    done = inside(*asked, cwd=place)
    assert done.returncode == 0, done.stderr
    assert [row["suite_task"] for row in rows(done.stdout)] == ["mlp-small", "mlp-deep"]
    assert "left out, wider than 4: mlp-wide" in done.stderr


def test_what_has_no_size_is_not_ranked_by_size(place, evaluated):
    kept = [r for r in rows((evaluated / "rows.jsonl").read_text()) if not r["sizes"]]
    (place / "deep").write_text("".join(json.dumps(row) + "\n" for row in kept))
    refused = inside("rank", "deep", cwd=place)
    assert refused.returncode == 1
    assert "none of these tasks has a size" in refused.stderr
    assert "--by depth" in refused.stderr


def test_on_a_terminal_tasks_stand_beside_optimizers(evaluated, place):
    (place / "rows.jsonl").write_bytes((evaluated / "rows.jsonl").read_bytes())
    shown = inside(*OWN, *SGD, "--output", "rows.jsonl", "--append", cwd=place, watched=True)
    assert shown.returncode == 0, shown.stderr
    line = next(line for line in shown.stdout.splitlines() if "mlp-wide" in line)
    assert "xl, xxl" in line
    assert line.count("*") == 1, "one is best"


def test_pictures_are_drawn_family_by_family(evaluated, place):
    pytest.importorskip("matplotlib")
    (place / "rows.jsonl").write_bytes((evaluated / "rows.jsonl").read_bytes())
    drawn = inside(
        *OWN, *SGD, "--output", "rows.jsonl", "--append", "--plot", "curves.png", cwd=place
    )
    assert drawn.returncode == 0, drawn.stderr
    pictures = sorted(path.name for path in place.glob("*.png"))
    assert pictures == ["curves-lm-1-30.png", "curves-mlp-1-30.png", "curves-mlp-2-30.png"]


def test_another_data_set_takes_the_place_of_those_of_its_kind(place):
    done = inside(
        *OWN, *SGD, "--dataset", "synthetic/fashion_mnist", "--only", "*-small", "--steps", "15",
        cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = rows(done.stdout)
    assert (row["dataset"], row["real"], row["suite_task"]) == (
        "synthetic/fashion_mnist",
        False,
        "mlp-small",
    )
    assert row["at"] == [15], "steps beyond the end fall away, the end is told"
    assert "left out, synthetic/fashion_mnist is not what they read: lm-small" in done.stderr


def test_baselines_have_the_papers_values_for_each_family(place):
    done = inside(
        "evaluate", "--suite", "paper", "--only", "mlp-*-3-128", "--dry-run",
        "--optimizer", "adamw:preset=paper", cwd=place,
    )  # fmt: skip
    assert {r["optimizer"] for r in rows(done.stdout)} == {"adamw:preset=paper"}
    refused = inside(*OWN, "--optimizer", "adamw:preset=paper", cwd=place)
    assert refused.returncode == 2
    assert "unknown preset 'paper'" in refused.stderr


# --- What is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        (["--suite", "papers"], 2, "there is no suite 'papers'", "'paper'"),
        (["--suite", "tiny.toml", "--task", "vit"], 2, "--task does not go with", "--only"),
        (["--suite", "tiny.toml", "--widths", "8"], 2, "--widths does not go with", "--only"),
        (["--suite", "tiny.toml", "--depth", "8"], 2, "--depth does not go with", "--only"),
        (["--only", "mlp-*"], 2, "--only is about tasks of a suite", "--suite"),
        (["--limit-width", "9"], 2, "--limit-width is about tasks", "--suite"),
        (["--skip-missing"], 2, "--skip-missing is about tasks", "--suite"),
        (["--suite", "tiny.toml", "--only", "vit*"], 2, "'vit*' names no task", "mlp-deep"),
        (["--suite", "tiny.toml", "--limit-width", "3"], 2, "no task is left", "mulo tasks"),
        (["--suite", "tiny.toml", "--only", "lm*", "--dataset", "digits"], 2, "no task", "tasks"),
        (["--suite", "tiny.toml", "--dataset", "digit"], 2, "'digit'", "digits"),
        (["--suite", "tiny.toml", "--steps", "5"], 2, "--window 10 is longer than", "--steps"),
        (["--suite", "tiny.toml", "--at", "40"], 2, "--at 40 is beyond the 30 steps", "--steps"),
        (["--suite", "tiny.toml", "--batch-size", "9999"], 2, "mlp-small: a batch size", "lower"),
        (["--suite", "paper"], 1, "imagenet32: mlp-in32-3-128", "mulo data prepare imagenet32"),
        (["--suite", "paper", "--only", "lm*", "--skip-missing"], 1, "lm1b", "prepare lm1b"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_a_hint(place, arguments, code, said, hinted):
    refused = inside("evaluate", *SGD, *arguments, "--output", "rows.jsonl", cwd=place)
    assert refused.returncode == code, refused.stderr
    assert refused.stdout == ""
    message, hint = refused.stderr.split("\n\nhint: ")
    assert said in message
    assert hinted in hint
    assert "Traceback" not in refused.stderr
    assert not (place / "rows.jsonl").exists(), "nothing is made"


def test_tasks_whose_data_is_not_here_can_be_left_out(place):
    (place / "tiny.toml").write_text(SUITE.replace('"pydoc"', '"lm1b"'))
    refused = inside(*OWN, *SGD, cwd=place)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--skip-missing" in refused.stderr
    done = inside(*OWN, *SGD, "--skip-missing", "--only", "*small", cwd=place)
    assert done.returncode == 0, done.stderr
    assert [r["suite_task"] for r in rows(done.stdout)] == ["mlp-small"]
    assert "left out, their data is not here: lm1b: lm-small" in done.stderr


# --- What it would cost ---------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Return a function that says how much memory is free."""

    def of(number: int | None) -> None:
        monkeypatch.setattr("mulo_cli.cli.memory.free_memory", lambda: number)
        monkeypatch.setattr("mulo_cli.cli.cost_tables.free_memory", lambda: number)

    return of


def test_a_dry_run_tells_every_training_and_needs_no_data(place, free):
    free(10**15)
    done = inside(
        "evaluate", "--suite", "paper", "--dry-run", *SGD, "--limit-width", "200", cwd=place
    )
    assert done.returncode == 0, done.stderr
    found = {row["suite_task"]: row for row in rows(done.stdout)}
    assert len(found) == 5, "one of each family"
    mlp = found["mlp-in32-3-128"]
    assert mlp["kind"] == "cost"
    assert mlp["parameters"] == 3072 * 128 + 2 * 128**2 + 128 * 1000 + 3 * 128 + 1000
    assert mlp["training_flops"] == 5 * 5_000 * mlp["flops"]
    assert mlp["data_bytes"] > 3.9e9
    assert found["mlp-in64-3-128"]["data_bytes"] < 1e9, "its training images stay in their file"
    assert all(row["fits"] for row in found.values())
    assert not (place / "data").exists()


def test_a_dry_run_shows_people_all_of_it_before_it_refuses(place, free):
    free(40_000_000)
    asked = ("--widths", "8,2048", "--depth", "2", "--dry-run", "--seeds", "1")
    done = inside("evaluate", *SGD, *asked, cwd=place, watched=True)
    assert done.returncode == 1
    small, large = (line for line in done.stdout.splitlines() if line.startswith("width"))
    assert "!" in large
    assert "!" not in small
    assert "1 of 2 trainings do not fit into the 40 MB" in done.stderr
    assert "sgd at width 2048 needs" in done.stderr
    assert "too much" in done.stderr
    for way in ("--widths up to 8", "--seeds", "--batch-size"):
        assert way in done.stderr.split("hint: ")[1]


def test_a_suite_that_does_not_fit_is_refused_before_anything_is_trained(place, free):
    free(100_000)
    refused = inside(*OWN, *SGD, "--only", "mlp*", "--output", "rows.jsonl", cwd=place)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "sgd on mlp-small needs" in refused.stderr
    assert "compiling" not in refused.stderr
    assert not (place / "rows.jsonl").exists()


def test_nobody_is_refused_where_nobody_tells_how_much_is_free(place, free):
    free(None)
    done = inside(*OWN, *SGD, "--dry-run", cwd=place)
    assert done.returncode == 0, done.stderr
    assert {row["free_memory"] for row in rows(done.stdout)} == {None}
