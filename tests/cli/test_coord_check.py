"""`mulo coord-check` as a user meets it."""

import io
import json
import signal
import sys

import jax
import pytest
from rich.console import Console

from mulo_cli.cli.app import run
from mulo_cli.cli.commands.coord_check import Bench, _end
from mulo_cli.cli.coordinate_tables import conclusions, coordinate_table
from mulo_cli.cli.interrupts import StopRequest
from mulo_cli.cli.memory import free_memory
from mulo_cli.cli.terminal import Terminal
from mulo_cli.results.coordinates import check_coordinates
from mulo_cli.studies.coord_check import CoordinateConfig
from tests.cli.programs import mulo, start
from tests.results.test_coordinates import record

WIDTHS = (16, 32, 64)
SHORT = ("--widths", "16..64", "--depth", "1", "--steps", "3", "--seeds", "8")
MUADAM = "muadam:learning_rate=0.1"
GENTLE = "muadam:learning_rate=1e-2"


def lines(text: str) -> list[dict]:
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def say(here, monkeypatch, capsys):
    """Return a function that runs the command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("NO_COLOR", "1")

    def run_here(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mulo", "coord-check", *arguments])
        code = run(Terminal())
        return code, *capsys.readouterr()

    return run_here


# --- Results --------------------------------------------------------------------------------------


def test_in_a_pipe_measurements_come_first_then_fits_then_the_verdict(tmp_path):
    """--parametrization overrides the optimizer's own: muAdam without muP is Adam, and grows."""
    asked = ("--optimizer", GENTLE, "--parametrization", "sp", *SHORT)
    done = mulo("coord-check", *asked, "--plot", "moves.svg", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = lines(done.stdout)
    kinds = [one["kind"] for one in found]
    assert kinds == ["coordinate"] * 24 + ["coordinate-fit"] * 2 + ["coordinate-verdict"]
    measured, fits, verdict = found[:24], found[24:26], found[26]
    assert [(one["width"], one["seed"]) for one in measured] == [
        (width, seed) for width in WIDTHS for seed in range(8)
    ]
    assert {one["parametrization"] for one in found} == {"sp"}
    assert [one["layer"] for one in fits] == ["input", "logits"]
    assert fits[1]["verdict"] == "grows"
    assert (verdict["optimizer"], verdict["verdict"]) == (GENTLE, "fail")
    assert verdict["layers"]["logits"] == "grows"
    assert "at width 64" in done.stderr
    assert "failed in" in done.stderr
    assert (tmp_path / "moves.svg").read_text("utf-8").startswith("<?xml")


def test_what_fails_is_named_in_words_and_in_the_exit_code(tmp_path):
    """The rate of the program just compiled, raised until numbers overflow."""
    wild = "muadam:learning_rate=1e30,parametrization=sp"
    done = mulo("coord-check", "--optimizer", wild, "--format", "table", *SHORT, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    (closing,) = [line for line in done.stdout.splitlines() if line.startswith("failed in")]
    assert f"{wild} (sp): " in closing
    assert "logits diverged" in closing
    assert "! diverged" in done.stdout
    assert "hint: a lower learning rate" in done.stdout
    assert "Traceback" not in done.stderr


def test_alone_it_checks_muadam_and_the_newest_run_on_synthetic_data(here, say):
    """The newest run here is unusable: it is named, which shows that it was chosen."""
    run = here / "runs" / "mine" / "artefact"
    run.mkdir(parents=True)
    (run / "card.json").write_text("{}")
    code, _, said = say("--widths", "128..8192")
    assert code == 1
    assert f"checking {MUADAM}, runs/mine on synthetic/imagenet32" in said
    assert "runs/mine" in said.split("error: ")[1]


def test_a_command_succeeds_if_every_layer_is_stable():
    """What `_end` is told here, a whole check of wide networks would tell it."""
    bench = Bench(Terminal(), CoordinateConfig(steps=2, seeds=3), StopRequest(), lines=False)
    still = check_coordinates(
        [record(w, s, {"logits": (1.0, 1.0)}) for w in WIDTHS for s in range(3)]
    )
    assert _end(bench, [still], 1, 2.0).exit_code == 0
    assert _end(bench, [still, judged(1.0)], 2, 2.0).exit_code == 1


def test_ctrl_c_ends_after_the_step_and_keeps_what_was_written(tmp_path):
    endless = (*SHORT, "--parametrization", "sp", "--seeds", "100000")
    running = start("coord-check", "--optimizer", GENTLE, *endless, cwd=tmp_path)
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
def test_a_wrong_word_gets_one_sentence_and_a_hint(say, arguments, code, said, hinted):
    refused, told, on_stderr = say(*arguments)
    assert refused == code, on_stderr
    assert told == ""
    message, hint = on_stderr.split("hint: ")
    assert said in message
    assert hinted in hint
    assert "Traceback" not in on_stderr
    assert "defect of mulo" not in on_stderr


def test_networks_that_do_not_fit_are_refused_before_anything_is_trained(say, monkeypatch):
    monkeypatch.setattr("mulo_cli.cli.memory.free_memory", lambda: 2_000)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        code, told, said = say("--optimizer", GENTLE, *SHORT)
    assert (code, told) == (2, "")
    assert "at width 64 needs" in said
    assert "2 kB are free" in said
    assert "end below 64" in said.split("hint: ")[1]


def test_free_memory_is_known_on_linux():
    free = free_memory()
    assert free is None or 10**7 < free < 10**15


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


def test_the_closing_line_counts_the_layers_of_deep_networks_and_names_a_few():
    layers = {f"blocks_{number}": 1.0 for number in range(30)}
    grown = [
        record(w, s, dict.fromkeys(layers, (w / WIDTHS[0], w / WIDTHS[0])))
        for w in WIDTHS
        for s in range(3)
    ]
    (failed, *_) = conclusions([check_coordinates(grown)], "3 s")
    assert "in 30 of 30 layers (blocks_0, blocks_1, blocks_2, blocks_3 ...)" in failed
    assert "blocks_4" not in failed


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
