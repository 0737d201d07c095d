"""How long `mulo meta-train` takes to its first meta-step, with and without compiled programs.

    python -m tests.benchmarks.cold_start --widths 16,32,64 --hidden-size 8 --repetitions 3

Each start is a process in an empty folder. *Cold* has an empty cache of compiled programs, *again*
is the same command with the cache that the cold start has filled. Seconds are from the start of the
process to the line of `metrics.jsonl` that tells the meta-step. The parts overlap (programs are
compiled side by side, while others are traced), so they do not add up to the whole.

A table on stderr, one JSON line per start on stdout, at last one line per kind of start.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import spread, tell, tell_environment

LIMIT_SECONDS = 600.0

POLL_SECONDS = 0.01

KINDS = ("cold", "again")

OWN_SETTINGS = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
"""What a caller's environment says of caches is not what a user has by default."""

WATCHED = """
import json, os, sys, time
from mulo_cli.cli.compiled_programs import keep_compiled_programs
keep_compiled_programs(os.environ)
import jax.monitoring
started, parts = float(sys.argv.pop(1)), open(sys.argv.pop(1), "a", buffering=1)
def note(part, seconds):
    parts.write(json.dumps([part, seconds]) + chr(10))
def heard(name, seconds, **told):
    if name.endswith(("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration")):
        note("tracing", seconds)
    elif name.endswith("backend_compile_duration"):
        note("compile " + told.get("fun_name", "?"), seconds)
jax.monitoring.register_event_duration_secs_listener(heard)
from mulo_cli.assembly import meta_training
from mulo_cli.cli.app import main
build = meta_training.build_meta_training
def timed(*arguments, **options):
    began = time.time()
    built = build(*arguments, **options)
    note("data and roles", time.time() - began)
    return built
meta_training.build_meta_training = timed
note("imports", time.time() - started)
main()
"""
"""The command, with an ear for what jax tells of its compilations."""


def start(command: list[str], folder: Path, caches: Path) -> dict[str, Any]:
    """Run the command until its first meta-step is told; return seconds, in all and of parts."""
    environment = {k: v for k, v in os.environ.items() if k not in OWN_SETTINGS}
    environment |= {"XDG_CACHE_HOME": str(caches), "PYTHONPATH": os.pathsep.join(sys.path)}
    parts, metrics = folder / "parts.jsonl", folder / "run" / "metrics.jsonl"
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(began), str(parts), *command, "--out", "run"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        seconds = {kind: wait_for(kind, metrics, process, began) for kind in ("validated", "step")}
    finally:
        process.kill()
        process.communicate()
    return {"seconds": seconds["step"], "validated": seconds["validated"], **add_up(parts)}


def wait_for(kind: str, metrics: Path, process: subprocess.Popen, began: float) -> float:
    """Return the seconds until the metrics tell a first validation or a first meta-step."""
    sign = {"validated": '"final_loss"', "step": '"gradient_norm"'}[kind]
    while time.time() - began < LIMIT_SECONDS:
        if metrics.exists() and sign in metrics.read_text("utf-8"):
            return time.time() - began
        if process.poll() is not None:
            raise RuntimeError(f"the command ended: {process.communicate()[1]}")
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"no {kind} within {LIMIT_SECONDS:.0f} s")


def add_up(parts: Path) -> dict[str, float]:
    """Return seconds by part; compilations of less than 0.1 s are one part."""
    seconds: dict[str, float] = {}
    for line in parts.read_text("utf-8").splitlines():
        part, took = json.loads(line)
        part = "compile little ones" if part.startswith("compile") and took < 0.1 else part
        seconds[part] = seconds.get(part, 0.0) + took
    return seconds


def main() -> None:
    """Start cold and again, as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="16,32,64")
    parser.add_argument("--hidden-size", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    case = {"widths": options.widths, "hidden_size": options.hidden_size}
    command = ["meta-train", "--recipe", "multi-width"]
    command += ["--set", f"task.widths=[{options.widths}]"]
    command += ["--set", f"optimizer.hidden_size={options.hidden_size}"]
    tell_environment()
    whole: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.repetitions):
        with tempfile.TemporaryDirectory() as name:
            caches = Path(name, "caches")
            for kind in KINDS:
                folder = Path(name, kind)
                folder.mkdir()
                figures = start(command, folder, caches)
                whole[kind].append(figures["seconds"])
                told = ", ".join(f"{part} {took:.1f}" for part, took in figures.items())
                tell({**case, "start": kind, **figures}, f"{kind:<6} {told}")
    for kind, seconds in whole.items():
        figures = spread(seconds)._asdict()
        tell({**case, "start": kind, **figures}, f"{kind:<6} {spread(seconds)} s")


if __name__ == "__main__":
    main()
