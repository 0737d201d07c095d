"""Running `mulo` as its users do, as a process of its own; or here, where that will do."""

import contextlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

MULO = (sys.executable, "-m", "mulo_cli")

LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a command that cannot write a file beyond some size; forking after JAX was imported might
hang."""

TINY = tuple(
    part
    for setting in (
        "optimizer.hidden_size=4",
        "task.widths=[8]",
        "task.batch_size=16",
        "estimator.pairs=2",
        "estimator.pairs_per_block=2",
        "estimator.truncation=10",
        "estimator.min_horizon=10",
        "estimator.max_horizon=40",
        "meta_optimizer.steps=12",
        "meta_optimizer.warmup_steps=2",
        "validation.every=5",
        "validation.seeds=1",
        "validation.steps=20",
        "validation.window=5",
        "checkpoint.every=4",
    )
    for part in ("--set", setting)
)
"""A recipe of seconds; each run compiles the same programs, which the tests' cache keeps."""


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without anything that changes how mulo looks or ends.

    Unbuffered, Python forgets what nobody has read; buffered, as users have it, it does not.
    """
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return inherited | {"NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"} | extra


def free_port() -> int:
    """Return a port of this machine on which nobody listens just now."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def mulo(
    *arguments: str,
    cwd: Path,
    timeout: float = 300,
    file_size: int | None = None,
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        arguments: of the command.
        cwd: where it runs.
        timeout: seconds.
        file_size: bytes beyond which it cannot write any file.
        extra: environment variables.
    """
    limited = () if file_size is None else (sys.executable, "-c", LIMITED, str(file_size))
    return subprocess.run(
        [*limited, *MULO, *arguments],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class _Screen(io.StringIO):
    """A stream that says that somebody is watching it."""

    def isatty(self) -> bool:
        return True


def inside(
    *arguments: str, cwd: Path, watched: bool = False, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process: for all that is not about processes.

    Args:
        arguments: of the command.
        cwd: where it runs.
        watched: whether stdout is a terminal.
        extra: environment variables.
    """
    import jax

    from mulo_cli.cli.app import run
    from mulo_cli.cli.terminal import Terminal

    out, err = _Screen() if watched else io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        jax.numpy_dtype_promotion("standard"),
    ):
        for name, value in environment(**extra).items():
            patch.setenv(name, value)
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["mulo", *arguments])
        code = run(Terminal())
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def start(*arguments: str, cwd: Path, **extra: str) -> subprocess.Popen[str]:
    """Start a command and leave it running."""
    return subprocess.Popen(
        [*MULO, *arguments],
        cwd=cwd,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
