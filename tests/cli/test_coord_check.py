"""`mulo coord-check` as a user meets it."""

import io
import json
import signal

import pytest
from rich.console import Console

from mulo_cli.cli.coordinate_tables import conclusions, coordinate_table
from mulo_cli.results.coordinates import check_coordinates
from tests.cli.programs import mulo, start
from tests.results.test_coordinates import record

WIDTHS = (16, 32, 64)
SHORT = ("--widths", "16..64", "--depth", "1", "--steps", "3", "--seeds", "3")
MUADAM = "muadam:learning_rate=0.1"


def lines(text: str) -> list[dict]:
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


# --- Results --------------------------------------------------------------------------------------


def test_in_a_pipe_measurements_come_first_then_fits_then_the_verdict(tmp_path):
    """The picture is drawn from the same numbers."""
    picture = tmp_path / "moves.svg"
    done = mulo("coord-check", "--optimizer", MUADAM, *SHORT, "--plot", str(picture), cwd=tmp_path)
    found = lines(done.stdout)
    kinds = [one["kind"] for one in found]
    assert kinds == ["coordinate"] * 9 + ["coordinate-fit"] * 2 + ["coordinate-verdict"]
    assert [(one["width"], one["seed"]) for one in found[:9]] == [
        (width, seed) for width in WIDTHS for seed in range(3)
    ]
    assert [one["layer"] for one in found[9:11]] == ["input", "logits"]
    assert found[9]["steps"] == [2, 3], "behind a zero readout nothing moves at the first"
    verdict = found[-1]
    assert (verdict["optimizer"], verdict["parametrization"]) == (MUADAM, "mup")
    passed = verdict["verdict"] == "pass"
    assert passed == all(one["verdict"] == "stable" for one in found[9:11])
    assert done.returncode == (0 if passed else 1)
    assert ("passed in" if passed else "failed in") in done.stderr
    assert "at width 64" in done.stderr
    assert picture.read_text("utf-8").startswith("<?xml")


def test_what_fails_is_named_in_words_and_in_the_exit_code(tmp_path):
    """--parametrization overrides the optimizer's own: muAdam without muP is plain Adam."""
    gentle = "muadam:learning_rate=1e-2"
    asked = ("--optimizer", gentle, "--parametrization", "sp", "--format", "table")
    done = mulo("coord-check", *asked, *SHORT, "--seeds", "8", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    (closing,) = [line for line in done.stdout.splitlines() if line.startswith("failed in")]
    assert f"{gentle} (sp): " in closing
    assert "logits grows" in closing
    assert "↑ grows" in done.stdout
    assert "width" in done.stdout
    assert "Traceback" not in done.stderr


def test_alone_it_checks_muadam_and_the_newest_run_on_synthetic_data(tmp_path):
    """The newest run here is unusable: it is named, which shows that it was chosen."""
    run = tmp_path / "runs" / "mine" / "artefact"
    run.mkdir(parents=True)
    (run / "card.json").write_text("{}")
    done = mulo("coord-check", "--widths", "128..8192", cwd=tmp_path)
    assert done.returncode == 1
    assert f"checking {MUADAM}, runs/mine on synthetic/imagenet32" in done.stderr
    assert "runs/mine" in done.stderr.split("error: ")[1]


def test_ctrl_c_ends_after_the_step_and_keeps_what_was_written(tmp_path):
    endless = (*SHORT, "--seeds", "100000")
    running = start("coord-check", "--optimizer", MUADAM, *endless, cwd=tmp_path)
    assert running.stdout is not None
    first = running.stdout.readline()
    running.send_signal(signal.SIGINT)
    rest, said = running.communicate(timeout=60)
    assert running.returncode == 130
    found = lines(first + rest)
    assert {one["kind"] for one in found} == {"coordinate"}
    assert "stopped: 0 of 1 optimizers are checked" in said
    assert "Traceback" not in said


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        (["--optimizer", "muadan"], 2, "'muadan'", "muadam"),
        (["--optimizer", "sgd", "--parametrization", "mup"], 2, "'sgd'", "sp"),
        (["--optimizer", "muadam", "--parametrization", "ntk"], 2, "'ntk'", "--help"),
        (
            ["--optimizer", "muadam:parametrization=mup", "--parametrization", "sp"],
            2,
            "contradicts --parametrization sp",
            "leave one",
        ),
        (["--optimizer", "."], 1, "holds no artefact", "mulo meta-train"),
        (["--widths", "0.."], 2, "'0..'", "128..8192"),
        (["--widths", "8..4"], 2, "ascending", "128..8192"),
        (["--widths", "64,128"], 2, "at least 3 widths", "128..8192"),
        (["--seeds", "2"], 2, "--seeds 2", "at least 3"),
        (["--steps", "0"], 2, "--steps", "--help"),
        (["--optimizer", "adamw", "--dataset", "digit"], 2, "'digit'", "digits"),
        (["--optimizer", "adamw", "--batch-size", "99999"], 2, "larger than digits", "batch size"),
        (["--plot", "picture.pdf"], 2, "'picture.pdf'", ".svg"),
        (["--plot", "nowhere/picture.png"], 1, "nowhere/picture.png", "another place"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_a_hint(tmp_path, arguments, code, said, hinted):
    refused = mulo("coord-check", *arguments, cwd=tmp_path)
    assert refused.returncode == code, refused.stderr
    assert refused.stdout == ""
    message, hint = refused.stderr.split("hint: ")
    assert said in message
    assert hinted in hint
    assert "Traceback" not in refused.stderr
    assert "defect of mulo" not in refused.stderr


def test_networks_that_do_not_fit_are_refused_before_anything_is_trained(tmp_path):
    """Terabytes: the compiler tells, nothing is allocated."""
    done = mulo(
        "coord-check", "--optimizer", "adamw", "--widths", "16,32,262144", "--depth", "2",
        "--dataset", "digits", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert "TB of memory" in done.stderr
    assert "--widths" in done.stderr.split("hint: ")[1]


# --- Tables ---------------------------------------------------------------------------------------


def judged(exponent: float, widths=WIDTHS):
    """Return a check whose input layer never moves and whose logits go with width^exponent."""
    return check_coordinates(
        [
            record(
                width,
                seed,
                {"input": (0.0, 0.0), "logits": (float(width) ** exponent,) * 2},
            )
            for width in widths
            for seed in range(3)
        ]
    )


def shown(check, screen: int) -> list[str]:
    """Return the table's lines as a person without colours sees them."""
    text = io.StringIO()
    Console(file=text, width=screen, color_system=None).print(coordinate_table(check, screen))
    return text.getvalue().splitlines()


@pytest.mark.parametrize(
    ("exponent", "words"),
    [(0.0, "+0.000 ± 0.000   ✓ stable"), (1.0, "↑ grows"), (-1.0, "↓ vanishes")],
)
def test_every_layer_has_one_row_with_sizes_slope_and_verdict(exponent, words):
    table = shown(judged(exponent), 100)
    (of_logits,) = [line for line in table if "logits" in line]
    assert words in of_logits
    assert f"{16**exponent:.3g}" in of_logits
    (of_input,) = [line for line in table if "input" in line]
    assert "? not enough data" in of_input


def test_a_narrow_screen_leaves_out_widths_from_the_middle_and_says_so():
    widths = tuple(2**power for power in range(6, 14))
    wide, narrow = (shown(judged(0.0, widths), screen) for screen in (120, 80))
    for width in widths:
        assert any(str(width) in line.split() for line in wide)
    assert max(map(len, narrow)) <= 80
    assert any("no room for" in line for line in narrow)
    heading = next(line.split() for line in narrow if "layer" in line)
    assert heading[1] == "64"
    assert "8192" in heading
    assert not any("…" in line for line in narrow)


def test_the_closing_line_says_what_failed_and_what_may_help():
    still = [record(w, s, {"logits": (1.0, 1.0)}) for w in WIDTHS for s in range(3)]
    (passed,) = conclusions([check_coordinates(still)], "3 s")
    assert passed.startswith("passed in 3 s")
    failed, *hints = conclusions([judged(1.0), judged(-1.0)], "3 s")
    assert failed.count("input has not enough data") == 2
    assert "logits grows" in failed
    assert "logits vanishes" in failed
    assert any("--seeds" in hint for hint in hints)
    assert any("eps=1e-15" in hint for hint in hints)
