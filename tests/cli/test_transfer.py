"""`mulo tune-adam --transfer` as a user meets it: rows, tables, a verdict, an exit code."""

import json
import signal

import pytest

from mulo_cli.cli.transfer import TransferOutput
from tests.cli.programs import inside

TINY = (
    "--transfer", "--optimizer", "adamw", "--task", "mlp", "--batch-size", "8", "--grid",
    "grid.toml", "--steps", "40", "--validate-every", "10", "--validation-batches", "2",
    "--patience", "20", "--window", "10", "--depth", "1",
)  # fmt: skip
SIZES = ("--widths", "4,8")
GRID = "learning_rate = [1e-4, 1e-2, 3e-2, 0.1, 10]\nb1 = 0.95\n"
MEASURED = 2 * 5 * 3
"""Widths, rates, seeds."""


def transfer(path, *arguments: str, **extra):
    (path / "grid.toml").write_text(GRID)
    return inside("tune-adam", *TINY, *arguments, cwd=path, **extra)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished study, for tests that only look at it."""
    path = tmp_path_factory.mktemp("transfer")
    done = transfer(path, *SIZES, "--out", "found")
    assert done.returncode == 0, done.stderr
    return path


def rows(path) -> list[dict]:
    lines = (path / "found" / "rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_rate_width_and_seed_is_a_row_and_the_verdicts_follow(folder):
    assert len(rows(folder)) == MEASURED
    assert {(row["width"], row["learning_rate"], row["seed"]) for row in rows(folder)} == {
        (width, rate, seed)
        for width in (4, 8)
        for rate in (1e-4, 1e-2, 3e-2, 0.1, 10)
        for seed in range(3)
    }
    assert {row["settings"]["b1"] for row in rows(folder)} == {0.95}
    assert {row["optimizer"] for row in rows(folder)} == {"adamw:b1=0.95"}
    assert max(row["stopped_at"] for row in rows(folder)) <= 40
    again = transfer(folder, *SIZES, "--out", "found")
    printed = [json.loads(line) for line in again.stdout.splitlines()]
    assert [of["kind"] for of in printed] == ["transfer"] * MEASURED + ["transfer-verdict"] * 2
    assert [of["measure"] for of in printed[-2:]] == ["validation", "training"]
    assert len(rows(folder)) == MEASURED, "nothing is trained again"


def test_a_person_sees_losses_best_rates_and_the_verdict(folder):
    shown = transfer(folder, *SIZES, "--out", "found", "--format", "table")
    assert "adamw:b1=0.95, sp: validation loss (nats)" in shown.stdout
    assert "adamw:b1=0.95, sp: training loss (nats)" in shown.stdout
    assert shown.stdout.count(" *") >= 4, "the best of each width, by both losses"
    assert "best learning rate, by validation loss" in shown.stdout
    assert "adamw:b1=0.95, sp: not enough data" in shown.stdout
    assert "±" in shown.stdout
    narrow = transfer(folder, *SIZES, "--out", "found", "--format", "table", COLUMNS="40")
    assert "± standard error" not in narrow.stdout


def test_expect_decides_about_the_exit_code(folder, monkeypatch):
    """Two widths are not enough data, which is neither of the words."""
    for word in ("transfers", "drifts"):
        assert transfer(folder, *SIZES, "--out", "found", "--expect", word).returncode == 1
    monkeypatch.setattr("mulo_cli.results.transfer.verdict_of", lambda low, high: "drifts")
    assert transfer(folder, *SIZES, "--out", "found", "--expect", "drifts").returncode == 0
    assert transfer(folder, *SIZES, "--out", "found", "--expect", "transfers").returncode == 1


def test_what_is_missing_is_trained_again_to_the_same_bits(folder, tmp_path):
    (tmp_path / "found").mkdir()
    written = (folder / "found" / "rows.jsonl").read_text().splitlines(keepends=True)
    cut = "".join(written[:20]) + written[20][:40]
    (tmp_path / "found" / "rows.jsonl").write_text(cut)
    (tmp_path / "found" / "search.json").write_text((folder / "found" / "search.json").read_text())
    done = transfer(tmp_path, *SIZES, "--out", "found")
    assert done.returncode == 0, done.stderr
    assert "was cut off" in done.stderr
    assert timeless(rows(tmp_path)) == timeless(rows(folder))


def test_ctrl_c_keeps_what_has_ended_and_tells_what_was_known(folder, tmp_path, monkeypatch):
    """Lanes of one wave that end together are kept; the second width's rows were there before."""
    (tmp_path / "found").mkdir()
    written = (folder / "found" / "rows.jsonl").read_text().splitlines(keepends=True)
    known = [line for line in written if json.loads(line)["width"] == 8]
    (tmp_path / "found" / "rows.jsonl").write_text("".join(known))
    first = min(row["stopped_at"] for row in rows(folder) if row["width"] == 4)
    interrupt_at_the_first_row(monkeypatch)
    stopped = transfer(tmp_path, *SIZES, "--out", "found")
    assert stopped.returncode == 130, stopped.stderr
    fresh = [row for row in rows(tmp_path) if row["width"] == 4]
    assert fresh
    assert {row["stopped_at"] for row in fresh} == {first}
    assert len({row["seed"] for row in fresh}) == 1
    assert {json.loads(line)["width"] for line in stopped.stdout.splitlines()[: len(known)]} == {8}
    assert f"stopped after {len(known) + len(fresh)} of {MEASURED} trainings" in stopped.stderr


def interrupt_at_the_first_row(monkeypatch):
    take, taken = TransferOutput.take, []

    def interrupted(self, row):
        if not taken:
            signal.raise_signal(signal.SIGINT)
        taken.append(row)
        take(self, row)

    monkeypatch.setattr(TransferOutput, "take", interrupted)


def timeless(found: list[dict]) -> list[str]:
    return sorted(json.dumps({**row, "seconds_per_step": 0}) for row in found)


def test_the_picture_has_a_line_for_every_size(folder):
    pytest.importorskip("matplotlib")
    done = transfer(folder, *SIZES, "--out", "found", "--plot", "rates.svg")
    assert done.returncode == 0, done.stderr
    assert (folder / "rates.svg").read_text().startswith("<?xml")


def test_depth_is_an_axis_as_well(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    without_depth = TINY[: TINY.index("--depth")]
    done = inside(
        "tune-adam", *without_depth, "--depths", "1,2", "--width", "4", "--format", "table",
        "--out", "found", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {(row["width"], row["depth"]) for row in rows(tmp_path)} == {(4, 1), (4, 2)}
    assert "sizes that tell a best rate; here are" in done.stdout


@pytest.mark.slow
def test_parametrizations_are_compared_in_one_study(tmp_path):
    done = transfer(
        tmp_path, *SIZES, "--parametrization", "mup,sp", "--format", "table", "--out", "found"
    )
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path)) == 2 * MEASURED
    assert {row["parametrization"] for row in rows(tmp_path)} == {"mup", "sp"}
    assert "adamw:b1=0.95, mup: not enough data" in done.stdout
    assert "adamw:b1=0.95, sp: not enough data" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        ([], 2, "needs sizes", "--widths 32..256"),
        (["--depths", "2,4"], 2, "--depth is given beside --depths", "leave it away"),
        (["--width", "4", *SIZES], 2, "--width is given beside --widths", "leave it away"),
        (["--depths", "2,4", *SIZES], 2, "both", "one of them"),
        (["--widths", "16..4"], 2, "ascending", "128..8192"),
        (["--validate-every", "7", *SIZES], 2, "no multiple", "--steps 42"),
        (["--window", "41", *SIZES], 2, "longer than --steps", "--window"),
        (["--grid", "small", *SIZES], 2, "varies b2, weight_decay", "learning rates"),
        (["--grid", "b1.toml", *SIZES], 2, "no learning_rate", "list"),
        (["--parametrization", "mup,ntk", *SIZES], 2, "'ntk'", "mup"),
        (["--plot", "rates.doc", *SIZES], 2, "rates.doc", ".png"),
        (["--out", "foreign", *SIZES], 1, "rows.jsonl", "--transfer"),
        (["--expect", "hope", *SIZES], 2, "hope", "--help"),
        (
            ["--expect", "drifts", "--parametrization", "mup,sp", *SIZES],
            2,
            "each of several parametrizations",
            "--parametrization mup",
        ),
        (["--optimizer", "sgd", "--grid", "paper", *SIZES], 2, "of sgd over widths", "rates"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_a_hint(tmp_path, arguments, code, said, hinted):
    (tmp_path / "b1.toml").write_text("b1 = 0.9")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "rows.jsonl").write_text("my shopping list\n")
    refused = transfer(tmp_path, *arguments)
    assert refused.returncode == code, refused.stderr
    assert refused.stdout == ""
    message, hint = refused.stderr.split("hint: ")
    assert said in message
    assert hinted in hint
    assert "Traceback" not in refused.stderr
    assert (tmp_path / "foreign" / "rows.jsonl").read_text() == "my shopping list\n"
