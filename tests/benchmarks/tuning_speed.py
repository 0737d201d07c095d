"""A whole grid in lanes beside the same configurations one at a time, and one process for each.

    python -m tests.benchmarks.tuning_speed --optimizers muadam,adamw --width 64 --steps 500

Data: the digits; grids: the papers'. The search is a process of its own, as users start it. One at
a time is `studies.tune` with a single lane on a sample of configurations that neither crawl nor
diverge, compilation not counted; it is held against the search's own training of as many steps,
compilation not counted either (a lane that diverges is free at the end of its segment). One process
each is `mulo evaluate --seeds 1` for a few of them, held against the whole search.
No process finds anything compiled. A table on stderr, JSON lines on stdout.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import jax

from mulo_cli.assembly.searches import build_task_for, build_trials
from mulo_cli.recipes.grids import load_grid
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.environment import describe_environment
from mulo_cli.results.records import EvaluationRow
from mulo_cli.studies.evaluate import EvaluationConfig
from mulo_cli.studies.lanes import segments
from mulo_cli.studies.seats import Trial
from mulo_cli.studies.tune import compile_tuning, tune

CACHE = "JAX_COMPILATION_CACHE_DIR"


def sampled(trials: tuple[Trial, ...], number: int) -> tuple[Trial, ...]:
    """Return so many trials around the middle of the grid, evenly spread."""
    quarter = len(trials) // 4
    return trials[quarter:-quarter:][:: max(1, 2 * quarter // number)][:number]


def trained_steps(row: dict) -> int:
    """Return the steps that a lane did for a row: whole segments, to the one that diverged."""
    segment = len(segments(row["steps"])[0])
    return segment * math.ceil((row["diverged_at"] or row["steps"]) / segment)


def seconds_of_a_step_alone(name: str, options: argparse.Namespace) -> float:
    """Return the mean seconds of a step of one training by itself, compilation not counted."""
    config = EvaluationConfig(options.steps, 1, 50, (options.steps,))
    trials = build_trials(name, "none", load_grid("paper", name), 1)
    section = TaskSection("digits", "mlp", [options.width], 3, options.batch_size)
    task = build_task_for(trials[0].optimizer, section)
    programs = compile_tuning(task, trials, config, 1)
    chosen = sampled(trials, options.sample)
    rows = [r for r in tune(task, chosen, config, programs, "") if isinstance(r, EvaluationRow)]
    return statistics.fmean(row.seconds_per_step for row in rows)


def run_alone(*arguments: str) -> tuple[float, list[dict]]:
    """Return the seconds of one process that finds nothing compiled, and the rows it prints."""
    environment = {key: value for key, value in os.environ.items() if key != CACHE}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "mulo_cli", *arguments],
            cwd=folder,
            env={**environment, "PYTHONPATH": os.getcwd()},
            check=True,
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - began
    return seconds, [json.loads(line) for line in done.stdout.splitlines()]


def measure(name: str, options: argparse.Namespace) -> dict:
    """Return the figures of one optimizer's grid."""
    trials = build_trials(name, "none", load_grid("paper", name), 1)
    size = ("--batch-size", str(options.batch_size), "--steps", str(options.steps))
    width = str(options.width)
    grid, rows = run_alone(
        "tune-adam", "--optimizer", name, "--grid", "paper", "--width", width, *size
    )  # fmt: skip
    steps = sum(map(trained_steps, rows))
    lanes = sum(row["seconds_per_step"] * trained_steps(row) for row in rows)
    each = [
        run_alone(
            "evaluate", "--optimizer", trial.optimizer.name, "--widths", width, "--seeds", "1",
            *size,
        )[0]
        for trial in sampled(trials, options.processes)
    ]  # fmt: skip
    alone = seconds_of_a_step_alone(name, options)
    process = statistics.fmean(each) if each else None
    return {
        "optimizer": name,
        "configurations": len(trials),
        "width": options.width,
        "steps": options.steps,
        "diverged": sum(row["diverged_at"] is not None for row in rows),
        "trained_steps": steps,
        "grid_seconds": grid,
        "lanes_seconds": lanes,
        "alone_seconds_each": alone * options.steps,
        "alone_ratio": alone * steps / lanes,
        "process_seconds_each": process,
        "process_ratio": process and process * len(trials) / grid,
    }


def main() -> None:
    """Measure every grid; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", default="muadam,adamw")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--sample", type=int, default=16)
    parser.add_argument("--processes", type=int, default=3)
    options = parser.parse_args()
    environment = describe_environment([device.device_kind for device in jax.devices()])
    print(json.dumps(environment), file=sys.stderr)
    print("grid       diverged    whole     training   alone   one process each", file=sys.stderr)
    for name in options.optimizers.split(","):
        row = measure(name, options)
        print(json.dumps(row), flush=True)
        processes = f"x{row['process_ratio']:.0f}" if row["process_ratio"] else "-"
        print(
            f"{name:8s} {row['configurations']:4d} {row['diverged']:6d}"
            f" {row['grid_seconds']:6.1f} s {row['lanes_seconds']:8.1f} s"
            f"  x{row['alone_ratio']:5.2f} {processes:>18s}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
