"""`mulo coord-check` as a user meets it."""

import dataclasses
import io
import json
import signal
import sys

import jax
import pytest
from rich.console import Console

from mulo_cli.cli.app import run
from mulo_cli.cli.coordinate_checks import Finished
from mulo_cli.cli.coordinate_options import CheckOptions
from mulo_cli.cli.coordinate_plan import build_plans
from mulo_cli.cli.coordinate_tables import conclusions, coordinate_report
from mulo_cli.cli.memory import free_memory
from mulo_cli.cli.sparklines import ASCII, BLOCKS, sparkline
from mulo_cli.cli.terminal import Terminal
from mulo_cli.results.coordinates import check_coordinates
from mulo_cli.results.run_lock import locked_file
from mulo_cli.studies.coord_check import compile_check
from tests.cli.programs import mulo, start
from tests.results.coordinate_worlds import WIDTHS, deep, layer, lm, mlp, record, records_of

SHORT = ("--widths", "16..64", "--depth", "1", "--steps", "3", "--batch-size", "16")
MUADAM = "muadam:learning_rate=0.1"
GENTLE = "muadam:learning_rate=1e-2"
UNDER_SP = ("--optimizer", GENTLE, "--parametrization", "sp", *SHORT)


def lines(text: str) -> list[dict]:
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def of_kind(found: list[dict], kind: str) -> list[dict]:
    return [one for one in found if one["kind"] == kind]


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
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            code = run(Terminal())
        return code, *capsys.readouterr()

    return run_here


# --- Results --------------------------------------------------------------------------------------


def test_a_check_fails_names_the_layer_and_keeps_what_it_measured(say, here):
    """--parametrization overrides the optimizer's own: muAdam without muP is Adam, and grows.

    The same command again measures nothing; more seeds measure the new ones.
    """
    code, told, said = say(*UNDER_SP, "--plot", "moves.svg", "--out", "kept")
    assert code == 1, said
    found = lines(told)
    measured, fits = of_kind(found, "coordinate"), of_kind(found, "coordinate-fit")
    (verdict,) = of_kind(found, "coordinate-verdict")
    assert found == [*measured, *fits, verdict]
    assert [(one["width"], one["seed"]) for one in measured] == [
        (width, seed) for width in (16, 32, 64) for seed in range(3)
    ]
    assert {one["parametrization"] for one in found} == {"sp"}
    assert verdict["verdict"] == "fail"
    assert verdict["culprit"]["layer"] == "readout"
    assert "readout/kernel" in verdict["diagnosis"]
    assert "memory of one network" in said
    assert "at width 64" in said
    assert (here / "moves.svg").read_text("utf-8").startswith("<?xml")

    kept = (here / "kept" / "rows.jsonl").read_text()
    again = say(*UNDER_SP, "--out", "kept", "--expect", "fail")
    assert again[0] == 0
    assert lines(again[1]) == found
    assert "compiling" not in again[2]
    assert (here / "kept" / "rows.jsonl").read_text() == kept

    torn = kept.splitlines(keepends=True)
    (here / "kept" / "rows.jsonl").write_text("".join(torn[:-1]) + torn[-1][:99])
    code, told, said = say(*UNDER_SP, "--out", "kept", "--format", "table")
    assert code == 1
    assert "was cut off" in said
    assert said.count("compiling") == 1, "of the largest network only the last seed is missing"
    assert "readout" in told
    assert "◀" in told
    assert (here / "kept" / "rows.jsonl").read_text() == kept


def test_ctrl_c_ends_after_the_step_and_the_same_command_continues(tmp_path):
    endless = (*UNDER_SP, "--seeds", "500", "--format", "jsonl")
    running = start("coord-check", *endless, cwd=tmp_path)
    assert running.stdout is not None
    assert running.stderr is not None
    first = running.stdout.readline()
    running.send_signal(signal.SIGINT)
    # not communicate(): it forgets lines that were read along with the first
    rest, said = running.stdout.read(), running.stderr.read()
    running.wait(timeout=60)
    assert running.returncode == 130
    found = lines(first + rest)
    assert {one["kind"] for one in found} == {"coordinate"}
    assert "stopped: 0 of 1 optimizers are checked" in said
    assert "the same command continues" in said
    assert "Traceback" not in said
    (folder,) = (tmp_path / "runs").iterdir()
    assert lines((folder / "rows.jsonl").read_text()) == found


def test_alone_it_checks_muadam_and_the_newest_run_on_synthetic_data(here, say):
    """The newest run here is unusable: it is named, which shows that it was chosen."""
    run = here / "runs" / "mine" / "artefact"
    run.mkdir(parents=True)
    (run / "card.json").write_text("{}")
    code, _, said = say("--widths", "128..8192")
    assert code == 1
    assert f"checking {MUADAM}, runs/mine on synthetic/imagenet32" in said
    assert "runs/mine" in said.split("error: ")[1]


@pytest.mark.slow
def test_the_users_own_network_and_optimizer_are_checked(here, say):
    (here / "mine.py").write_text(
        "import flax.linen as nn, optax\n"
        "class Net(nn.Module):\n"
        "    width: int\n"
        "    @nn.compact\n"
        "    def __call__(self, x):\n"
        "        x = nn.relu(nn.Dense(self.width, name='first')(x.reshape(x.shape[0], -1)))\n"
        "        return nn.Dense(10, name='last', kernel_init=nn.initializers.zeros)(x)\n"
        "def network(width):\n"
        "    return Net(width)\n"
        "def adam(width):\n"
        "    return optax.adam(1e-2)\n"
    )
    mine = ("--optimizee", "mine:network", "--optimizer", "mine:adam")
    code, told, said = say(*mine, "--widths", "16..64", "--steps", "3", "--batch-size", "16")
    assert code == 1, said
    (verdict,) = of_kind(lines(told), "coordinate-verdict")
    assert verdict["optimizer"] == "mine:adam"
    assert verdict["culprit"]["tensor"] == "last/kernel"
    assert {one["code"] for one in of_kind(lines(told), "coordinate")} != {""}


# --- Exit codes -----------------------------------------------------------------------------------

PASSING = check_coordinates(records_of())
FAILING = check_coordinates(records_of(powers={"hidden_0/kernel": {"change": 1.0}}))
UNCLEAR = check_coordinates([mlp(w, s, noise=0.2) for w in WIDTHS for s in range(3)])


@pytest.mark.parametrize(
    ("check", "expect", "expected"),
    [
        (PASSING, None, True),
        (PASSING, "pass", True),
        (PASSING, "fail", False),
        (FAILING, None, False),
        (FAILING, "pass", False),
        (FAILING, "fail", True),
        (UNCLEAR, None, False),
        (UNCLEAR, "pass", False),
        (UNCLEAR, "fail", False),
    ],
)
def test_not_enough_data_is_neither_a_pass_nor_a_failure(check, expect, expected):
    assert Finished(check, contrast=False).as_expected(expect) is expected


@pytest.mark.parametrize(("expect", "expected"), [(None, True), ("pass", False), ("fail", True)])
def test_a_contrast_decides_nothing_unless_it_is_asked(expect, expected):
    assert Finished(FAILING, contrast=True).as_expected(expect) is expected


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        (["--optimizer", "muadan"], 2, "'muadan'", "muadam"),
        (["--optimizer", "muadam", "--parametrization", "ntk"], 2, "'ntk'", "--help"),
        (
            ["--optimizer", "muadam:parametrization=mup", "--parametrization", "sp"],
            2,
            "contradicts --parametrization sp",
            "leave one",
        ),
        (["--optimizer", "muadam:parametrization=mup", "--both"], 2, "contradicts --both", "leave"),
        (["--both", "--parametrization", "sp"], 2, "--both shows SP", "leave one"),
        (["--optimizer", "."], 1, "holds no artefact", "mulo meta-train"),
        (["--optimizer", "nowhere:adam"], 2, "no module 'nowhere'", "looked for"),
        (["--optimizer", "adamw", "--optimizee", "mlb"], 2, "'mlb'", "mlp"),
        (["--widths", "0.."], 2, "'0..'", "128..8192"),
        (["--widths", "8..4"], 2, "ascending", "128..8192"),
        (["--widths", "64,128"], 2, "at least 3 widths", "128..8192"),
        (["--depths", "2,4"], 2, "at least 3 depths", "--depths"),
        (["--depths", "2..8", "--widths", "8..64"], 2, "both given", "one of them"),
        (["--depths", "2..8", "--depth", "3"], 2, "beside --depths", "leave"),
        (["--width", "64"], 2, "without --depths", "--depths 2..64"),
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


def test_two_commands_in_one_folder_are_refused(say, tmp_path):
    asked = ("--optimizer", GENTLE, *SHORT, "--out", "kept", "--fresh")
    with locked_file(tmp_path / "kept" / "rows.jsonl", print):
        code, told, said = say(*asked)
    assert (code, told) == (1, "")
    assert "rows.jsonl' is in use by process" in said
    assert not (tmp_path / "kept").exists(), "nothing was begun"


def test_networks_that_do_not_fit_are_refused_before_anything_is_trained(say, monkeypatch):
    monkeypatch.setattr("mulo_cli.cli.memory.free_memory", lambda: 2_000)
    code, told, said = say("--optimizer", GENTLE, *SHORT)
    assert (code, told) == (1, "")
    assert "at width 64 needs" in said
    assert "2 kB of memory are free" in said
    assert "end below 16" in said.split("hint: ")[1]
    assert "--skip-large" in said.split("hint: ")[1]
    code, told, said = say("--optimizer", GENTLE, *SHORT, "--skip-large")
    assert (code, told) == (1, "")
    assert "fewer than 3 widths are left" in said


FOUR = ("--widths", "16,32,64,512", *SHORT[2:], "--out", "kept")


def test_sizes_that_do_not_fit_are_not_trained_and_with_skip_large_the_others_judged(
    say, monkeypatch
):
    """The compiler knows it, or the estimate does; what has been measured by then is kept."""
    programs = []

    def compiled(task, *others):
        if task.width == 512:  # the compiler's word counts, whatever was estimated
            return programs[-1]._replace(memory=10**18)
        programs.append(compile_check(task, *others))
        return programs[-1]

    monkeypatch.setattr("mulo_cli.studies.coord_check.compile_check", compiled)
    code, told, said = say("--optimizer", GENTLE, *FOUR)
    measured = lines(told)
    assert code == 1
    assert [(one["kind"], one["width"]) for one in measured] == [
        ("coordinate", width) for width in (16, 32, 64) for _ in range(3)
    ]
    message, hint = said.split("error: ")[1].split("hint: ")
    assert "at width 512 needs" in message
    assert "kept/rows.jsonl" in " ".join(hint.split())
    assert "--skip-large" in hint
    assert "Traceback" not in said

    by_compiler = say("--optimizer", GENTLE, *FOUR, "--skip-large")
    # digits take 0.4 MB at every width, and a network of width 512 more than twice as much
    monkeypatch.setattr("mulo_cli.cli.memory.free_memory", lambda: 900_000)
    by_estimate = say("--optimizer", GENTLE, *FOUR, "--skip-large")
    assert ["at width 512: compiling" in one[2] for one in (by_compiler, by_estimate)] == [
        True, False
    ]  # fmt: skip
    for code, told, said in (by_compiler, by_estimate):
        assert of_kind(lines(told), "coordinate") == measured, said
        assert {tuple(one["values"]) for one in of_kind(lines(told), "coordinate-fit")} == {
            ("16", "32", "64")
        }
        (verdict,) = of_kind(lines(told), "coordinate-verdict")
        assert "left out because of memory: width 512" in verdict["notes"]
        assert (code == 0) is (verdict["verdict"] == "pass")


def test_transformers_of_all_widths_have_as_many_heads_and_the_plan_says_so():
    options = CheckOptions(
        widths="64,128,192", depths=None, optimizers=(GENTLE,), optimizee="vit",
        parametrization=None, both=False, dataset="digits", width=None, depth=1, batch_size=16,
        steps=1, seeds=3, readout="auto", expect=None, out=None, fresh=False, skip_large=False,
        plot=None, plot_measure="change_std", everything=False, format=None,
        shard=False,
    )  # fmt: skip
    (plan,) = build_plans(options, options.contestants(options.optimizers), "digits")
    assert {cell.task.optimizee for cell in plan.cells} == {"vit:heads=1"}
    assert any("vit:heads=1 at every width" in note for note in plan.notes)


def test_a_file_of_something_else_is_refused_and_not_touched(say, here):
    (here / "kept").mkdir()
    (here / "kept" / "rows.jsonl").write_text("my thesis\n")
    for fresh in ([], ["--fresh"]):
        code, told, said = say(*UNDER_SP, "--out", "kept", *fresh)
        assert (code, told) == (1, "")
        assert "is not JSON" in said
        assert (here / "kept" / "rows.jsonl").read_text() == "my thesis\n"


def test_free_memory_is_known_on_linux():
    free = free_memory()
    assert free is None or 10**7 < free < 10**15


# --- Tables ---------------------------------------------------------------------------------------


def shown(check, screen: int = 120, **kwargs) -> list[str]:
    """Return the lines as a person without colours sees them."""
    console = Console(file=io.StringIO(), width=screen, color_system=None)
    for part in coordinate_report(check, console, **kwargs):
        console.print(part)
    return console.file.getvalue().splitlines()


def test_every_layer_of_a_small_network_has_a_line_with_slope_and_verdict():
    told = shown(PASSING)
    for name in ("input", "hidden_0", "hidden_1", "readout", "logits"):
        (line,) = [line for line in told if line.split()[:1] == [name]]
        assert "+0.00 ± 0.00" in line
        assert "✓ stable" in line
        assert "▄▄▄▄▄" in line


def test_what_fails_has_its_measure_the_sign_of_the_culprit_and_a_sentence():
    told = shown(FAILING)
    (line,) = [line for line in told if line.rstrip().endswith("◀")]
    assert line.split()[:3] == ["hidden_0", "kernel", "moves"]
    assert "↑ grows" in line
    assert "▁▂▄▆▇" in line
    assert any(line.startswith("◀ hidden_0: hidden_0/kernel moves like n^1.0") for line in told)
    assert any("constant factor" in line for line in told)


def test_many_stable_layers_share_a_line_and_all_shows_every_measure():
    failing = check_coordinates(
        records_of(lm, powers={"blocks_1/attention/scores": {"change_std": 0.5}})
    )
    told = shown(failing)
    assert any("18 of 19 layers" in line and "✓ stable" in line for line in told)
    assert len(told) < 20
    everything = shown(failing, everything=True)
    assert sum("kernel moves, spectral norm" in line for line in everything) == 9
    assert len(everything) > 100


def test_many_failing_layers_are_counted_and_the_named_one_is_always_shown():
    names = [f"layer_{number}" for number in range(40)]
    grown = {name: layer(1, {}) for name in names}
    records = [
        record(w, s, {**{n: layer(w, {"change_std": 1.0}) for n in grown}, "logits": layer(w, {})})
        for w in WIDTHS
        for s in range(3)
    ]
    told = shown(check_coordinates(records))
    assert any("28 more layers" in line for line in told)
    assert len(told) < 30
    (line,) = conclusions([check_coordinates(records)], "3 s", "here")[:1]
    assert "layer_0" in line


@pytest.mark.parametrize("screen", [80, 100, 160])
def test_the_table_fits_the_screen(screen):
    told = shown(check_coordinates(records_of(lm)), screen)
    assert max(map(len, told)) <= screen
    assert not any("…" in line for line in told)


def test_depths_are_told_as_such():
    told = shown(check_coordinates(records_of(deep, (2, 4, 8))))
    assert any("depths 2, 4, 8" in line for line in told)
    assert any("blocks[last]" in line for line in told)


def test_the_closing_lines_say_what_came_out_what_may_help_and_where_it_is():
    told = conclusions([PASSING, FAILING, UNCLEAR], "3 s", "runs/x/rows.jsonl")
    assert told[0] == "muadam (mup): pass"
    assert told[1].startswith("muadam (mup): fail: hidden_0: hidden_0/kernel moves like n^1.0")
    assert told[2].startswith("muadam (mup): not enough data: input")
    assert any("more --seeds" in line for line in told)
    assert told[-1] == "3 s; measurements are in runs/x/rows.jsonl"


def test_a_failure_that_is_decided_asks_for_no_more_data():
    powers = {"hidden_0/kernel": {"change": 3.0}}
    records = [mlp(w, s, powers, noise=0.2) for w in WIDTHS for s in range(3)]
    failed = check_coordinates(records)
    assert "not enough data" in [fit.verdict for fit in failed.fits if fit.judged]
    assert not [line for line in conclusions([failed], "3 s", "rows.jsonl") if "hint" in line]


def test_what_has_not_moved_yet_needs_more_steps():
    still = []
    for one in records_of(steps=1):
        kernel = dataclasses.replace(one.tensors["hidden_0/kernel"], change=(0.0,))
        tensors = {**one.tensors, "hidden_0/kernel": kernel}
        still.append(dataclasses.replace(one, tensors=tensors))
    hints = [x for x in conclusions([check_coordinates(still)], "3 s", "r") if "hint" in x]
    assert len(hints) == 1
    assert "--steps" in hints[0]


# --- Lines of characters --------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "drawn"), [(0.0, "▄▄▄▄▄"), (1.0, "▁▂▄▆▇"), (-1.0, "▇▆▄▂▁")])
def test_a_power_of_one_goes_from_floor_to_ceiling(power, drawn):
    assert sparkline([(width, 3.0 * width**power) for width in WIDTHS]) == drawn


def test_half_a_power_takes_half_the_height():
    line = sparkline([(width, float(width) ** 0.5) for width in WIDTHS])
    heights = [BLOCKS.index(one) for one in line]
    assert heights == sorted(heights)
    assert heights[-1] - heights[0] in (3, 4)


def test_what_is_not_known_is_a_gap_and_what_is_beyond_stays_within():
    assert sparkline([(1, None), (2, 1.0), (4, 0.0)]) == " ▄ "
    assert sparkline([(1, None), (2, None)]) == "  "
    assert set(sparkline([(1, 1e-30), (2, 1.0), (4, 1e30)])) <= set(BLOCKS)


def test_screens_without_unicode_get_ascii():
    line = sparkline([(width, float(width)) for width in WIDTHS], blocks=False)
    assert line.isascii()
    assert (line[0], line[-1]) == (ASCII[0], ASCII[-1])


def test_help_lists_the_options_that_decide(tmp_path):
    shown_help = mulo("coord-check", "--help", cwd=tmp_path, COLUMNS="200").stdout
    for option in ("--depths", "--both", "--expect", "--skip-large", "--fresh", "--optimizee"):
        assert option in shown_help
