"""The front door: help, versions, exit codes, pipes."""

import subprocess
import sys
from pathlib import Path

import pytest

import mulo_cli
from mulo_cli.cli.outcome import ExitCode
from tests.cli.programs import MULO, environment, mulo

COMMANDS = ("meta-train", "evaluate", "coord-check", "tune-adam", "rank", "roles", "doctor")


def test_help_lists_every_command(tmp_path):
    done = mulo("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(tmp_path, command):
    done = mulo(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"mulo {command}" in done.stdout.replace("python -m mulo_cli", "mulo")


@pytest.mark.parametrize("command", ["meta-train", "evaluate"])
def test_help_shows_examples_and_defaults(tmp_path, command):
    shown = mulo(command, "--help", cwd=tmp_path).stdout
    assert "Examples" in shown
    assert "default" in shown


def test_version_is_one_line(tmp_path):
    done = mulo("--version", cwd=tmp_path)
    assert done.stdout == f"mulo {mulo_cli.__version__}\n"


def test_the_shell_can_complete_a_command(tmp_path):
    """What the installed completion asks when somebody presses tab after `mulo meta`."""
    pressed_tab = {"_MULO_COMPLETE": "complete_bash", "COMP_WORDS": "mulo meta", "COMP_CWORD": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "mulo")],
        cwd=tmp_path,
        env=environment(**pressed_tab),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["meta-train"]


def test_an_unknown_command_names_the_nearest(tmp_path):
    done = mulo("meta-trian", cwd=tmp_path)
    assert done.returncode == 2
    assert "meta-trian" in done.stderr
    assert "hint: " in done.stderr


def test_a_closed_pipe_is_quiet(tmp_path):
    reader = [sys.executable, "-c", "import sys; sys.stdin.close()"]
    writer = subprocess.Popen(
        [*MULO, "meta-train", "--dry-run"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    subprocess.run(reader, stdin=writer.stdout, check=True)
    assert writer.stdout is not None
    writer.stdout.close()
    assert writer.stderr is not None
    said = writer.stderr.read()
    assert "Traceback" not in said
    assert "defect of mulo" not in said
    assert "BrokenPipe" not in said
    # 0 if all was written before the reader had gone
    assert writer.wait(timeout=60) in (0, ExitCode.READER_LEFT)
