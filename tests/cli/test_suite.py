"""`mulo evaluate --suite` and `--dry-run` as a user meets them; what `mulo rank` makes of it."""

import dataclasses
import io
import json
import weakref
from pathlib import Path

import numpy as np
import pytest

from mulo_cli.errors import DataError
from tests.cli.programs import inside
from tests.datasets.prepared_sets import prepare_images, some_images

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

ON_CIFAR = """
c10-wide = { family = "c10", depth = 1, width = 8, sizes = ["xl"] }

[families.c10]
title = "CIFAR"
dataset = "cifar10"
network = "mlp"
batch_size = 16
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
    (folder / "stdout").write_text(done.stdout)
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


def test_sizes_that_were_changed_are_told_of_what_is_trained_already(evaluated, place):
    (place / "rows.jsonl").write_bytes((evaluated / "rows.jsonl").read_bytes())
    (place / "tiny.toml").write_text(SUITE.replace('["xl", "xxl"]', '["large"]'))
    for written in (5, 5):
        asked = (*SGD, "--only", "mlp-wide", "--output", "rows.jsonl", "--append")
        again = inside(*OWN, *asked, cwd=place)
        assert "1 rows, 0 of them new" in again.stderr
        assert "compiling" not in again.stderr
        assert [row["sizes"] for row in rows(again.stdout)] == [["large"]]
        assert len(rows((place / "rows.jsonl").read_text())) == written, "one is told again"
    ranked = inside("rank", "rows.jsonl", cwd=place)
    assert {row["size"] for row in rows(ranked.stdout)} == {"base", "large", None}
    assert "mlp-wide" in ranked.stderr, "that its sizes were changed is said"


def test_a_suite_can_be_piped_into_ranks(evaluated, monkeypatch):
    """One optimizer ranks first everywhere: it is columns that are looked at."""
    piped = (evaluated / "rows.jsonl").name
    stream = io.BytesIO((evaluated / "stdout").read_bytes())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
    ranked = inside("rank", cwd=evaluated)
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


@pytest.mark.parametrize("name", ["adamw", "muadam"])
def test_baselines_have_the_papers_values_for_each_family(name):
    from mulo_cli.assembly.suites import Workbench, plan_task
    from mulo_cli.optimizers.presets import PRESETS
    from mulo_cli.recipes.references import parse_optimizer
    from mulo_cli.recipes.suites import load_suite

    paper = load_suite("paper")
    plans = [plan_task(task, 1, 50) for task in paper.tasks if task.width in (128, 192)]
    jobs = Workbench().jobs(plans, [parse_optimizer(f"{name}:preset=paper")])
    assert [job.plan.place.family for job in jobs] == list(paper.families)
    for job in jobs:
        values = PRESETS[name][f"paper/{job.plan.preset}"]
        assert values.items() <= job.optimizer.settings.items()
        assert job.optimizer.name == f"{name}:preset=paper"
    rates = {job.optimizer.settings["learning_rate"] for job in jobs}
    assert len(rates) == len(
        {v["learning_rate"] for k, v in PRESETS[name].items() if "v2" not in k}
    )


def test_published_values_are_refused_where_a_family_has_none(place):
    refused = inside(*OWN, "--optimizer", "adamw:preset=paper", cwd=place)
    assert refused.returncode == 2
    assert "unknown preset 'paper'" in refused.stderr


@pytest.mark.parametrize(
    ("dataset", "kept", "values"),
    [
        ("synthetic/cifar10", "mlp-c10-3-128", "cifar10-mlp"),
        ("imagenet64:augment=flip", "mlp-in64-3-128", "imagenet64-mlp"),
        ("synthetic/fashion_mnist", "mlp-in32-3-128", "imagenet32-mlp"),
    ],
)
def test_of_tasks_that_are_the_same_on_another_set_the_one_of_this_set_is_kept(
    capsys, dataset, kept, values
):
    from mulo_cli.cli.suite_evaluation import Asked, plan_suite
    from mulo_cli.cli.terminal import Terminal

    nothing = dict.fromkeys(field.name for field in dataclasses.fields(Asked))
    said = {"suite": "paper", "only": ("mlp-*-3-128",), "dataset": dataset, "skip_missing": False}
    asked = Asked(**nothing | said)
    (plan,) = plan_suite(Terminal(), asked)
    assert (plan.place.suite_task, plan.preset) == (kept, values)
    told = " ".join(capsys.readouterr().err.split())
    assert told.count(f"(as {kept})") == 2
    assert f"preset=paper means paper/{values} there" in told


# --- Data -----------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path) -> str:
    """Return the path of images: 20 to train on, 10 to test on, 8 x 8 each."""
    draw = np.random.default_rng(0).integers
    np.savez(
        tmp_path / "pictures.npz",
        x_train=draw(0, 255, (20, 8, 8), np.uint8), y_train=np.arange(20) % 2,
        x_test=draw(0, 255, (10, 8, 8), np.uint8), y_test=np.arange(10) % 2,
    )  # fmt: skip
    return str(tmp_path / "pictures.npz")


def of_datasets(*names: str):
    """Return a workbench and its jobs, two widths on each data set."""
    from mulo_cli.assembly.suites import PlannedTask, Workbench
    from mulo_cli.recipes.references import parse_optimizer
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.studies.evaluate import EvaluationConfig

    bench, config = Workbench(), EvaluationConfig(2, 1, 1, (2,))
    plans = [
        PlannedTask(TaskSection(name, "mlp", [width], 1, 4), config)
        for name in names
        for width in (4, 8)
    ]
    return bench, bench.jobs(plans, [parse_optimizer("sgd")])


def test_arrays_of_one_data_set_at_a_time_are_kept(pictures):
    import jax

    bench, jobs = of_datasets(pictures, "digits")
    for job in jobs:
        shapes = jax.tree.leaves((job.task.task.data, job.task.test_data))
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in shapes)
    kept = weakref.ref(bench.with_data(jobs[0]).task.data["inputs"])
    assert kept() is bench.with_data(jobs[1]).task.data["inputs"], "not loaded again"
    assert bench.with_data(jobs[2]).dataset == "digits"
    assert kept() is None


def test_a_path_is_looked_at_once_and_read_once_for_all_of_its_trainings(pictures, monkeypatch):
    from mulo_cli.assembly import suites

    calls = []
    for name in ("find_dataset", "build_dataset"):
        true = getattr(suites, name)
        monkeypatch.setattr(
            suites,
            name,
            lambda *a, name=name, true=true, **k: (calls.append(name), true(*a, **k))[1],
        )
    bench, jobs = of_datasets(pictures)
    for job in jobs:
        bench.costs(job)
        bench.with_data(job)
    assert sorted(calls) == ["build_dataset", "find_dataset"]


def test_what_a_training_costs_is_traced_once(pictures, monkeypatch):
    from mulo_cli.assembly import suites

    traced, true = [], suites.training_costs
    monkeypatch.setattr(suites, "training_costs", lambda *a: (traced.append(0), true(*a))[1])
    bench, jobs = of_datasets(pictures)
    for job in (*jobs, *jobs):
        bench.costs(job)
    assert len(traced) == len(jobs)


def test_only_pixels_that_may_stay_in_a_file_do_not_rest_on_the_device(pictures, monkeypatch):
    monkeypatch.setattr("mulo_cli.assembly.suites.RESIDENT_LIMIT", 10)
    bench, _ = of_datasets(pictures)
    assert bench.resting_bytes(pictures) >= 30 * 8 * 8
    assert bench.resting_bytes("imagenet32") == 4 * (1_281_167 + 50_000), "labels alone"
    assert bench.resting_bytes("imagenet32:feed=never") > 3.9e9


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


def test_hosts_that_differ_in_data_deal_alike(place, monkeypatch):
    (place / "tiny.toml").write_text(SUITE + ON_CIFAR)
    pixels = some_images(shape=(32, 32, 3))
    prepare_images(place / "rich", "cifar10", dataclasses.replace(pixels, num_classes=10))
    monkeypatch.setattr(
        "mulo_cli.cli.evaluation_run.run_jobs",
        lambda terminal, bench, jobs, *_: shares.append([j.plan.place.suite_task for j in jobs]),
    )
    shares: list[list[str]] = []
    for index, host in enumerate(("rich", "poor")):
        at = ("--process-id", str(index), "--num-processes", "2", "--skip-missing")
        chosen = ("--only", "mlp-wide,mlp-small,c10*")
        done = inside(*OWN, *SGD, *chosen, *at, cwd=place, MULO_DATA_DIR=str(place / host))
        assert done.returncode == 0, done.stderr
    assert shares == [["mlp-small", "c10-wide"], ["mlp-wide"]]


def test_a_process_needs_the_data_of_its_own_share_alone(place, capsys):
    from mulo_cli.cli.suite_evaluation import Asked, plan_suite, with_data_here
    from mulo_cli.cli.terminal import Terminal

    (place / "tiny.toml").write_text(SUITE + ON_CIFAR)
    said = {"suite": str(place / "tiny.toml"), "only": ("mlp-small", "c10*"), "skip_missing": False}
    asked = Asked(**dict.fromkeys(field.name for field in dataclasses.fields(Asked)) | said)
    skipping, terminal = dataclasses.replace(asked, skip_missing=True), Terminal()
    plans = plan_suite(terminal, asked)
    digits, cifar = ([plan] for plan in plans)
    assert with_data_here(terminal, plans, digits, asked) == plans
    assert with_data_here(terminal, plans, digits, skipping) == digits
    assert "left out" not in capsys.readouterr().err
    assert with_data_here(terminal, plans, cifar, skipping) == digits
    assert "left out, their data is not here: cifar10: c10-wide" in capsys.readouterr().err
    with pytest.raises(DataError, match="c10-wide"):
        with_data_here(terminal, plans, cifar, asked)
    with pytest.raises(DataError, match="c10-wide"):
        with_data_here(terminal, cifar, cifar, skipping)


def test_several_processes_are_told_what_to_compare(place):
    refused = inside(*OWN, "--process-id", "0", "--num-processes", "2", cwd=place)
    assert refused.returncode == 2
    assert "no --optimizer says" in refused.stderr
    assert "--optimizer adamw" in refused.stderr.split("hint: ")[1]


# --- What it would cost ---------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Return a function that says how much memory is free."""

    def of(number: int | None) -> None:
        monkeypatch.setattr("mulo_cli.cli.memory.free_memory", lambda: number)

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
    hint = done.stderr.split("hint: ")[1]
    assert "--widths up to 8 leaves out what is too wide; a smaller --batch-size takes less" in hint


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


def test_memory_is_asked_for_once_before_there_is_any_data(place, monkeypatch):
    answers = iter([10**15])
    monkeypatch.setattr("mulo_cli.cli.memory.free_memory", lambda: next(answers))
    done = inside(*OWN, *SGD, "--only", "mlp*", "--dry-run", cwd=place)
    assert done.returncode == 0, done.stderr
    assert {row["free_memory"] for row in rows(done.stdout)} == {10**15}


def test_what_is_trained_already_needs_no_memory(evaluated, place, free):
    free(100)
    (place / "rows.jsonl").write_bytes((evaluated / "rows.jsonl").read_bytes())
    asked = (*OWN, *SGD, "--output", "rows.jsonl", "--append")
    again = inside(*asked, cwd=place)
    assert again.returncode == 0, again.stderr
    more = inside(*asked, "--seeds", "2", "--only", "mlp-wide,mlp-deep", cwd=place)
    assert more.returncode == 1
    assert "2 of 2 trainings do not fit" in more.stderr


def test_an_optimizer_is_readable_in_a_table_of_eighty_columns(place, free):
    free(10**15)
    asked = ("--widths", "8", "--dry-run", "--optimizer", "adamw:learning_rate=0.01")
    done = inside("evaluate", *asked, *SGD, cwd=place, watched=True, COLUMNS="80")
    assert "adamw:learning_r" in done.stdout
