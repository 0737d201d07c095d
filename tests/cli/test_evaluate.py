"""`mulo evaluate` as a user meets it."""

import json
from pathlib import Path

import pytest

from tests.cli.programs import mulo

ARTEFACT = str(Path(__file__).parent.parent.parent / "assets" / "mulo-m-desk")
SHORT = ("--widths", "8", "--steps", "30", "--window", "10", "--seeds", "2")


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_in_a_pipe_every_network_is_one_line(tmp_path):
    optimizers = ("--optimizer", ARTEFACT, "--optimizer", "muadam:learning_rate=0.03")
    done = mulo("evaluate", *optimizers, *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert [(r["optimizer"], r["seed"]) for r in found] == [
        (ARTEFACT, 0),
        (ARTEFACT, 1),
        ("muadam:learning_rate=0.03", 0),
        ("muadam:learning_rate=0.03", 1),
    ]
    for row in found:
        assert row["parametrization"] == "mup"
        assert row["real"] is True
        assert row["status"] == "ok"
        assert 0 < row["smoothed_loss"] < 3
        assert row["seconds_per_step"] > 0


def test_a_diverged_run_has_no_nan_in_its_line(tmp_path):
    done = mulo("evaluate", "--optimizer", "adamw:learning_rate=1e30", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "NaN" not in done.stdout
    assert "Infinity" not in done.stdout
    for row in rows(done.stdout):
        assert row["status"] == "diverged"
        assert row["smoothed_loss"] is None
        assert 1 < row["diverged_at"] <= 30


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        ([], 2, "--optimizer", "--help"),
        (["--optimizer", "adamv"], 2, "'adamv'", "adamw"),
        (["--optimizer", "adamw:learning_rat=1"], 2, "'learning_rat'", "learning_rate"),
        (["--optimizer", "adamw:b1=high"], 2, "'b1=high'", "adamw:"),
        (["--optimizer", ARTEFACT + ":b1=0.9"], 2, "no settings", "leave"),
        (["--optimizer", "nowhere/artefact"], 2, "nowhere/artefact", "finished run"),
        (["--optimizer", "."], 1, "holds no artefact", "mulo meta-train"),
        (["--optimizer", "adamw", "--widths", "0.."], 2, "'0..'", "128..8192"),
        (["--optimizer", "adamw", "--widths", "8..4"], 2, "ascending", "128..8192"),
        (["--optimizer", "adamw", "--widths", "a..b"], 2, "'a'", "128..8192"),
        (["--optimizer", "adamw", "--seeds", "0"], 2, "--seeds", "--help"),
        (["--optimizer", "adamw", "--steps", "-3"], 2, "--steps", "--help"),
        (["--optimizer", "adamw", "--steps", "5"], 2, "--window 50", "--window"),
        (["--optimizer", "adamw", "--dataset", "digit"], 2, "'digit'", "digits"),
        (["--optimizer", "adamw", "--task", "vitt"], 2, "'vitt'", "mlp"),
        (["--optimizer", "adamw", "--batch-size", "99999"], 2, "larger than digits", "batch size"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_a_hint(tmp_path, arguments, code, said, hinted):
    refused = mulo("evaluate", *arguments, cwd=tmp_path)
    assert refused.returncode == code, refused.stderr
    assert refused.stdout == ""
    message, hint = refused.stderr.split("hint: ")
    assert said in message
    assert hinted in hint
    assert "Traceback" not in refused.stderr
    assert "defect of mulo" not in refused.stderr
