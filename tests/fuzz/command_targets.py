"""The command line as a target: words by chance behind every command; nothing is ever trained."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from hypothesis import strategies as st

from mulo_cli.cli import app as front
from mulo_cli.cli import distributed
from mulo_cli.cli.outcome import ExitCode
from mulo_cli.cli.terminal import Terminal
from mulo_cli.errors import MuloError
from tests.fuzz.harness import Finding, Target
from tests.fuzz.mutations import TEXTS

WORKING = (
    ("mulo_cli.studies.tune", ("compile_tuning", "tune")),
    ("mulo_cli.studies.coord_check", ("compile_check", "measure", "estimate_memory")),
    ("mulo_cli.studies.transfer", ("compile_transfer", "measure_transfer")),
    ("mulo_cli.studies.evaluate", ("evaluate",)),
    ("mulo_cli.studies.costs", ("training_costs",)),
    ("mulo_cli.meta_training.meta_loop", ("meta_train",)),
    ("mulo_cli.meta_training.budget", ("estimate_budget",)),
    ("mulo_cli.cli.distributed", ("_meet",)),
    ("mulo_cli.assembly.doctor", ("examine",)),
    ("mulo_cli.assembly.data_reports", ("list_datasets",)),
)
"""Functions that would work for long: it is enough to get there."""

CODES = {int(code) for code in ExitCode}


class _GotThere(MuloError):
    """All was read, and the work would begin."""


def _works(*_: object, **__: object) -> None:
    raise _GotThere("the work would begin", "nothing is to be done")


class _Ended(BaseException):
    """One of several processes would end, without a word to Python.

    Args:
        code: its exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _end(code: int) -> None:
    raise _Ended(code)


def _crash(_terminal: Terminal, error: Exception) -> int:
    raise error


FILES = {
    "rows.jsonl": b"",
    "recipe.toml": b"name = 3",
    "grid.toml": b"learning_rate = [1e-3]",
    "words.txt": b"a b\n" * 99,
    "x.zip": b"PK\x05\x06" + bytes(18),
    "best.json": b"{}",
    "suite.toml": b"",
    "theta.state": b"\x81\xa1a\x01",
    "models.py": b"def net(width): return 3\ndef raises(width): 1 / 0\n",
}

COMMANDS = (
    ("meta-train", "--dry-run"),
    ("meta-train",),
    ("meta-train", "--num-processes", "4", "--process-id", "1", "--coordinator"),
    ("evaluate", "--dry-run"),
    ("evaluate",),
    ("coord-check",),
    ("tune-adam",),
    ("rank",),
    ("roles",),
    ("data", "list"),
    ("data", "show"),
    ("data", "prepare"),
    ("tasks", "list"),
    ("weights", "inspect"),
    ("weights", "import"),
    ("weights", "export"),
    ("doctor",),
    (),
    ("data",),
    ("weights",),
)


def _options(command: tuple[str, ...]) -> list[str]:
    """Return the options that a command has."""
    found = typer.main.get_command(front.app)
    for word in command:
        if word.startswith("-"):
            break
        found = getattr(found, "commands", {}).get(word, found)
    return [name for parameter in found.params for name in parameter.opts if name.startswith("--")]


WORDS = (
    *FILES,
    "adamw",
    "adamw:learning_rate=0.1",
    "muadam",
    "digits",
    "mlp",
    "vit:heads=4",
    "16..64",
    "8",
    "0",
    "-1",
    "1",
    "16,32",
    "99999999999",
    "9" * 400,
    "1e3",
    "nan",
    "jsonl",
    "table",
    "mup",
    "sp",
    "desk",
    "paper",
    "multi-width",
    "models:net",
    "models:raises",
    "nowhere:none",
    "mulo-m-desk",
    "pydoc",
    "out",
    "out.svg",
    "out.safetensors",
    "x.exe",
    "seed=3",
    "task.widths=[8]",
    'task.dataset="\\u0000"',
    "seed=0x" + "f" * 5_000,
    "adamw:tuned=best.json",
    ".",
    "/",
    "/dev/null",
    "a" * 300,
    "small",
    "transfers",
    "pass",
    "synthetic/cifar10",
    "gpt:length=0",
    "mlp-*",
    "[",
    "~nobody-has-this/x",
    "csv",
    "adamw:preset=paper",
    "gpt",
    "input",
    "bias=in",
    "*=hidden",
    "words.txt:tokens=bytes",
    "x.zip:resize=0",
    "words.txt:unit=word",
    "localhost:1234",
    "[::1]:99999",
    "nowhere",
    ":",
    "a:b:c",
)


@st.composite
def vectors(draw: st.DrawFn) -> list[str]:
    """Draw what somebody might type: a command, some of its options, words."""
    command = draw(st.sampled_from(COMMANDS))
    words = list(command)
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.integers(0, 7))
        word = st.one_of(
            st.sampled_from(WORDS),
            st.sampled_from(WORDS),
            st.sampled_from(TEXTS),
            st.text(max_size=6),
        )
        if kind < 5 and (options := _options(command)):
            words.append(draw(st.sampled_from(options)))
        if kind != 4:
            words.append(draw(word))
    # no shell can hand on a NUL; completion is installed into the home of whoever runs this
    return [word.replace("\0", "") for word in words if "-completion" not in word]


@contextlib.contextmanager
def _world(folder: Path) -> Iterator[None]:
    """A folder with a few files, where nothing is trained and a crash is not rendered."""
    import importlib

    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    here = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for module, names in WORKING:
            for name in names:
                patch.setattr(importlib.import_module(module), name, _works, raising=False)
        patch.setattr(front, "render_crash", _crash)
        patch.setattr(distributed, "render_crash", _crash)
        patch.setattr(distributed, "_end_at_once", _end)
        patch.setenv("MULO_DATA_DIR", str(folder / "data"))
        patch.setenv("COLUMNS", "100")
        patch.setenv("HOME", str(folder))
        patch.setattr(sys, "path", list(sys.path))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)
            sys.modules.pop("models", None)


def command(arguments: list[str], folder: Path) -> None:
    """Run a command; its exit code is one of those that are documented."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8"),
        io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace"),
    )
    with (
        _world(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["mulo", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        try:
            code = front.run(Terminal())
        except _Ended as ended:
            code = ended.code
        except SystemExit as error:
            raise Finding("command line: it ended the process") from error
    if code not in CODES:
        raise Finding(f"command line: exit code {code!r}")
    err.seek(0)
    if "Traceback" in err.read():
        raise Finding("command line: a traceback on stderr")


TARGETS = (Target("command line", vectors(), command, 0.05),)
