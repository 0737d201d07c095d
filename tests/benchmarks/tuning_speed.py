"""A whole grid in lanes beside the same configurations one at a time, and one process for each.

    python -m tests.benchmarks.tuning_speed --optimizers muadam,adamw --width 64 --steps 500

Data: the digits; grids: the papers'. The search is a process of its own, as users start it. One at
a time is `studies.tune` with a single lane and no second training beside it, on a sample of
configurations that neither crawl nor diverge: a segment is one program, compiled once and not
counted; it is held against the search's own training of as many steps, compilation not counted
either (one that diverges ends with its segment on both sides). One process each is `mulo evaluate
--seeds 1` for a few of them, held against the whole search. No process finds anything compiled.

The roof is a product of two matrices of 2048 on all cores; a step's operations are those of
`studies.costs`. Every figure of training is taken so many times; minimum, median and maximum are
told. A table on stderr, JSON lines on stdout.
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
from mulo_cli.results.records import EvaluationRow
from mulo_cli.studies.costs import training_costs
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask
from mulo_cli.studies.lanes import segments
from mulo_cli.studies.seats import Trial
from mulo_cli.studies.tune import compile_tuning, tune
from tests.benchmarks.measuring import Program, Spread, spread, take_turns, tell, tell_environment

CACHE = "JAX_COMPILATION_CACHE_DIR"


def sampled(trials: tuple[Trial, ...], number: int) -> tuple[Trial, ...]:
    """Return so many trials around the middle of the grid, evenly spread."""
    quarter = len(trials) // 4
    return trials[quarter:-quarter:][:: max(1, 2 * quarter // number)][:number]


def trained_steps(row: dict) -> int:
    """Return the steps that a lane did for a row: whole segments, to the one that diverged."""
    segment = len(segments(row["steps"])[0])
    return segment * math.ceil((row["diverged_at"] or row["steps"]) / segment)


def task_and_trials(
    name: str, options: argparse.Namespace
) -> tuple[EvaluationTask, tuple[Trial, ...], EvaluationConfig]:
    """Return what is trained, by which optimizers, and how."""
    trials = build_trials(name, "none", load_grid("paper", name), 1)
    section = TaskSection("digits", "mlp", [options.width], 3, options.batch_size)
    config = EvaluationConfig(options.steps, 1, 50, (options.steps,))
    return build_task_for(trials[0].optimizer, section), trials, config


def seconds_of_a_step_alone(name: str, options: argparse.Namespace) -> Spread:
    """Return the seconds of a step of one training by itself, compilation not counted."""
    task, trials, config = task_and_trials(name, options)
    programs = compile_tuning(task, trials, config, 1)._replace(at_once=1)
    chosen = sampled(trials, options.sample)
    rows = [r for r in tune(task, chosen, config, programs, "") if isinstance(r, EvaluationRow)]
    return spread([row.seconds_per_step for row in rows])


def flops_of_a_step(name: str, options: argparse.Namespace) -> int:
    """Return the floating-point operations of one step of one network."""
    task, trials, config = task_and_trials(name, options)
    return training_costs(task, trials[0].optimizer, config, 0).flops


def roof(size: int = 2048, repetitions: int = 9) -> float:
    """Return the operations per second of a large matrix product, the best of some."""
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    program = Program(jax.jit(lambda x: x @ x / size), matrix)
    return 2 * size**3 / min(take_turns({"product": program}, repetitions)["product"])


def run_alone(*arguments: str) -> tuple[float, list[dict]]:
    """Return the seconds of one process that finds nothing compiled, and the rows it prints."""
    environment = {key: value for key, value in os.environ.items() if key != CACHE}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "mulo_cli", *arguments],
            cwd=folder,
            env={**environment, "PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": folder},
            check=True,
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - began
    return seconds, [json.loads(line) for line in done.stdout.splitlines()]


def searched(name: str, options: argparse.Namespace) -> tuple[float, list[dict]]:
    """Return the seconds of a whole search as a process, and its rows."""
    return run_alone(
        "tune-adam", "--optimizer", name, "--grid", "paper", "--width", str(options.width),
        "--batch-size", str(options.batch_size), "--steps", str(options.steps),
    )  # fmt: skip


def seconds_of_a_process(trial: Trial, options: argparse.Namespace) -> float:
    """Return the seconds of one training that is a process of its own."""
    return run_alone(
        "evaluate", "--optimizer", trial.optimizer.name, "--widths", str(options.width),
        "--seeds", "1", "--batch-size", str(options.batch_size), "--steps", str(options.steps),
    )[0]  # fmt: skip


def measure(name: str, options: argparse.Namespace) -> dict:
    """Return the figures of one optimizer's grid."""
    trials = task_and_trials(name, options)[1]
    searches = [searched(name, options) for _ in range(options.repetitions)]
    rows = searches[0][1]
    steps = sum(map(trained_steps, rows))
    lanes = spread(
        [sum(r["seconds_per_step"] * trained_steps(r) for r in of) for _, of in searches]
    )
    grid = spread([seconds for seconds, _ in searches])
    each = [seconds_of_a_process(trial, options) for trial in sampled(trials, options.processes)]
    alone, flops, most = (
        seconds_of_a_step_alone(name, options),
        flops_of_a_step(name, options),
        roof(),
    )
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
        "lanes_step_seconds": lanes.median / steps,
        "alone_step_seconds": alone,
        "alone_ratio": alone.median * steps / lanes.median,
        "flops_of_a_step": flops,
        "roof": most,
        "alone_of_roof": flops / alone.median / most,
        "lanes_of_roof": flops * steps / lanes.median / most,
        "process_seconds_each": process,
        "process_ratio": process and process * len(trials) / grid.median,
    }


def line_of(row: dict) -> str:
    """Return a row's line of the table."""
    processes = f"x{row['process_ratio']:.0f}" if row["process_ratio"] else "-"
    return (
        f"{row['optimizer']:8s} {row['configurations']:4d} {row['diverged']:6d}"
        f" {row['grid_seconds'].median:6.1f} s {row['lanes_seconds'].median:8.1f} s"
        f" {1e6 * row['lanes_step_seconds']:6.1f} us ({row['lanes_of_roof']:3.0%})"
        f" {1e6 * row['alone_step_seconds'].median:6.1f} us ({row['alone_of_roof']:3.0%})"
        f" x{row['alone_ratio']:5.2f} {processes:>10s}"
    )


def main() -> None:
    """Measure every grid; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", default="muadam,adamw")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--sample", type=int, default=16)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    tell_environment()
    print(
        "grid       diverged    whole   training  a step in lanes   a step alone"
        "    alone  one process each",
        file=sys.stderr,
    )
    for name in options.optimizers.split(","):
        row = measure(name, options)
        tell(row, line_of(row))


if __name__ == "__main__":
    main()
