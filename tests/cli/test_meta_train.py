"""`mulo meta-train` as a user meets it: run, watch, kill, resume, and be told what is wrong."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.cli.programs import TINY, inside, mulo, start


def train(cwd: Path, out: str, *more: str, run=inside, **settings):
    return run("meta-train", *TINY, "--out", out, *more, cwd=cwd, **settings)


def checksums(run: Path) -> tuple[str, str]:
    card = json.loads((run / "artefact" / "card.json").read_text())
    return card["checksum"], card["last_checksum"]


def metrics(run: Path) -> list[dict]:
    """Return the records without what the clock said."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "inner_steps_per_second"} for r in records]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return the directory of an uninterrupted run."""
    cwd = tmp_path_factory.mktemp("finished")
    done = train(cwd, "run")
    assert done.returncode == 0, done.stderr
    return cwd / "run"


def test_a_run_directory_holds_all_there_is_to_know(finished):
    kinds = [record["kind"] for record in metrics(finished)]
    assert kinds.count("meta-step") == 12
    assert [r["step"] for r in metrics(finished) if r["kind"] == "validation"] == [0, 5, 10, 12]
    environment = json.loads((finished / "environment.json").read_text())
    assert {"jax", "python", "devices", "mulo"} <= environment.keys()
    assert "estimator" in (finished / "recipe.toml").read_text()
    for record in metrics(finished):
        if record["kind"] == "meta-step":
            assert set(record["meta_loss"]) == {"mlp-digits-w8"}
            assert record["gradient_norm"] > 0


def test_the_artefact_says_which_theta_was_kept_and_keeps_the_last_one_too(finished):
    card = json.loads((finished / "artefact" / "card.json").read_text())
    best = min(
        (sum(r["mean_loss"].values()), r["step"])
        for r in metrics(finished)
        if r["kind"] == "validation"
    )
    assert card["training"]["selected_at_meta_step"] == best[1]
    assert card["training"]["meta_validation_loss"] == pytest.approx(best[0])
    assert (finished / "artefact" / "theta_last").is_dir()
    assert card["checksum"] != card["last_checksum"] or best[1] == 12


def test_the_summary_line_says_what_to_run_next(tmp_path, finished):
    again = train(finished.parent, "run")
    assert again.returncode == 0
    assert "finished already" in again.stdout
    assert "mulo evaluate --optimizer run" in again.stdout
    assert len(again.stdout.splitlines()) == 1
    del tmp_path


@pytest.mark.parametrize(
    ("number", "code"),
    [
        # of SIGKILL tests/faults makes certain
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        (signal.SIGINT, 130),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, finished, number, code):
    process = start("meta-train", *TINY, "--out", "run", cwd=tmp_path)
    file = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (file.exists() and file.read_text().count("meta-step") >= 5):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert not (tmp_path / "run" / "artefact").exists()
    if number != signal.SIGKILL:
        assert "the same command resumes it" in out
    resumed = train(tmp_path, "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after meta-step" in resumed.stderr
    assert checksums(tmp_path / "run") == checksums(finished)
    assert metrics(tmp_path / "run") == metrics(finished)


@pytest.mark.slow  # tests/meta_training/test_velo.py asks the same of the engine, in less time
def test_velo_is_meta_trained_and_a_killed_run_resumes_to_the_same_bits(tmp_path):
    """Its state, the LSTM's and the averages of the loss included, is part of what is saved."""
    whole = velo(tmp_path, "whole", mulo)
    assert whole.returncode == 0, whole.stderr
    process = velo(tmp_path, "run", start)
    file = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (file.exists() and file.read_text().count("meta-step") >= 5):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    resumed = velo(tmp_path, "run", mulo)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after meta-step" in resumed.stderr
    assert checksums(tmp_path / "run") == checksums(tmp_path / "whole")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    card = json.loads((tmp_path / "run" / "artefact" / "card.json").read_text())
    assert (card["architecture"], card["settings"]["fraction_left"]) == ("velo", "offset")


def velo(cwd: Path, out: str, run):
    """Meta-train a VeLO for seconds, on the smallest network, by `mulo` or `start`."""
    settings = [word for word in TINY if word != "--set"]
    settings += ["task.depth=1", "optimizer.lstm_size=4", "optimizer.bank_size=2"]
    words = [word for setting in settings for word in ("--set", setting)]
    return run("meta-train", "--recipe", "velo-multi-width", *words, "--out", out, cwd=cwd)


def test_a_changed_recipe_is_refused_with_the_difference(finished):
    other = train(finished.parent, "run", "--set", "estimator.sigma=0.02")
    assert other.returncode == 2
    assert "estimator.sigma: 0.01 -> 0.02" in other.stderr
    assert "hint: " in other.stderr
    assert checksums(finished)


def test_how_often_to_save_may_change(finished):
    other = train(finished.parent, "run", "--set", "checkpoint.every=2")
    assert other.returncode == 0, other.stderr


def copy_unfinished(finished: Path, cwd: Path) -> Path:
    shutil.copytree(finished, cwd / "run")
    shutil.rmtree(cwd / "run" / "artefact")
    return cwd / "run"


def test_a_damaged_checkpoint_is_put_aside_for_the_one_before(tmp_path, finished):
    run = copy_unfinished(finished, tmp_path)
    newest = run / "checkpoints" / "12"
    for file in (newest / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    resumed = train(tmp_path, "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "checkpoint 12 is damaged" in resumed.stderr
    assert "resuming after meta-step 8" in resumed.stderr
    assert checksums(run) == checksums(finished)
    assert (run / "checkpoints" / "damaged-12").is_dir()


def test_when_no_checkpoint_can_be_read_nothing_is_deleted(tmp_path, finished):
    run = copy_unfinished(finished, tmp_path)
    for step in (run / "checkpoints").iterdir():
        shutil.rmtree(step / "state")
    before = sorted(p.name for p in (run / "checkpoints").iterdir())
    refused = train(tmp_path, "run")
    assert refused.returncode == 1
    assert "can be read" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "defect of mulo" not in refused.stderr
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == before


def test_overwrite_deletes_nothing_before_the_new_run_is_possible(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "run")
    for slip in ("task.dataset=digit", "task.batch_size=100000", "optimizer.architecture=velo2"):
        refused = train(tmp_path, "run", "--overwrite", "--set", slip)
        assert refused.returncode == 2
        assert checksums(tmp_path / "run") == checksums(finished)


def test_a_reader_that_leaves_does_not_keep_a_run_from_being_saved(tmp_path, finished):
    """As in `mulo meta-train 2>&1 | tee log`, where Ctrl-C ends tee as well."""
    process = start("meta-train", *TINY, "--out", "run", cwd=tmp_path)
    assert process.stderr is not None
    assert process.stdout is not None
    process.stderr.close()
    process.stdout.close()
    file = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (file.exists() and file.read_text().count("meta-step") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert train(tmp_path, "run").returncode == 0
    assert checksums(tmp_path / "run") == checksums(finished)


def test_overwrite_starts_anew(tmp_path, finished):
    run = copy_unfinished(finished, tmp_path)
    anew = train(tmp_path, "run", "--overwrite")
    assert anew.returncode == 0, anew.stderr
    assert "resuming" not in anew.stderr
    assert checksums(run) == checksums(finished)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("do not lose me")
    for more in ((), ("--overwrite",)):
        refused = train(tmp_path, "thesis", *more)
        assert refused.returncode == 1
        assert "is not a run directory" in refused.stderr
        assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize(
    ("arguments", "said", "hinted"),
    [
        (["--recipe", "multi-widht"], "no recipe 'multi-widht'", "multi-width"),
        (["--recipe", "nowhere/recipe.toml"], "cannot be read", "multi-width"),
        (["--set", "estimator.pair=4"], "unknown recipe key 'estimator.pair'", "estimator.pairs"),
        (["--set", "estimator.pairs"], "section.key=value", "--set"),
        (["--set", "estimator.pairs=three"], "estimator.pairs = 'three'", "estimator.pairs"),
        (["--set", "estimator.pairs=-1"], "estimator.pairs = -1", "estimator.pairs"),
        (["--set", "estimator.pairs_per_block=3"], "does not divide", "estimator"),
        (["--set", "task.dataset=digit"], "unknown data set 'digit'", "digits"),
        (["--set", "task.optimizee=mpl"], "unknown optimizee 'mpl'", "mlp"),
        (["--set", "optimizer.architecture=velo2"], "unknown architecture 'velo2'", "'velo'"),
        (["--set", "estimator.name=pez"], "unknown gradient estimator 'pez'", "pes"),
        (["--set", "task.batch_size=100000"], "larger than digits", "batch size"),
        (["--set", "meta_optimizer.learning_rate=nan"], "learning_rate", "learning_rate"),
        (["--scale", "huge"], "--scale", "--help"),
        (["--parametrisation", "mup"], "--parametrisation", "--help"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_a_hint(tmp_path, arguments, said, hinted):
    refused = inside("meta-train", *arguments, "--out", "run", cwd=tmp_path)
    assert refused.returncode == 2
    message, hint = refused.stderr.split("hint: ")
    assert "error: " in message
    assert said in message
    assert hinted in hint
    assert "Traceback" not in refused.stderr
    assert "defect of mulo" not in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_data_set_is_an_error_with_its_folder(tmp_path):
    refused = mulo(
        "meta-train", "--scale", "paper", "--out", "run", cwd=tmp_path, MULO_DATA_DIR=str(tmp_path)
    )
    assert refused.returncode == 1
    assert str(tmp_path / "imagenet32") in refused.stderr
    assert "mulo data prepare imagenet32" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused = train(tmp_path, "file/run")
    assert refused.returncode == 1
    assert "cannot write" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "defect of mulo" not in refused.stderr
    debugged = train(tmp_path, "file/run", run=mulo, MULO_DEBUG="1")
    assert "Traceback" in debugged.stderr


def test_a_disk_that_refuses_a_checkpoint_loses_nothing(tmp_path, finished):
    """A limit on file sizes stands in for a full disk: small files fit, a checkpoint does not."""
    refused = train(tmp_path, "run", run=mulo, file_size=20_000)
    assert refused.returncode == 1, refused.stderr
    assert "cannot write a checkpoint" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "defect of mulo" not in refused.stderr
    resumed = train(tmp_path, "run")
    assert resumed.returncode == 0, resumed.stderr
    assert checksums(tmp_path / "run") == checksums(finished)


@pytest.mark.parametrize("scale", ["desk", "paper"])
@pytest.mark.parametrize(
    ("recipe", "numbers"),
    [
        ("multi-width", {"desk": 417, "paper": 2_409}),
        ("single-width", {"desk": 417, "paper": 2_409}),
        ("velo-multi-width", {"desk": 5_057, "paper": 5_057}),
    ],
)
def test_a_dry_run_tells_the_cost_without_data_and_runs_nothing(tmp_path, recipe, numbers, scale):
    done = inside("meta-train", "--recipe", recipe, "--scale", scale, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["recipe"]["scale"] == scale
    assert told["budget"]["meta_training_flops"] > 0
    assert told["budget"]["meta_parameters"] == numbers[scale]
    assert list(tmp_path.iterdir()) == []
