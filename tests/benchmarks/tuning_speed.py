"""A whole grid in lanes beside the same configurations one at a time, and one process for each.

    python -m tests.benchmarks.tuning_speed --optimizers muadam,adamw --width 64 --steps 500

Data: the digits; grids: the papers'. In each turn:

- whole: the search as a process of its own, as users start it;
- training: the same search in this process, by the clock on the wall around `studies.tune`,
  compilation not counted;
- alone: `studies.tune` with a single lane and no second training beside it, on a sample of
  configurations around the middle of the grid, one after another, compilation not counted; held
  against training as the time of a step (a training that diverges ends with its segment in both);
- process: `mulo evaluate --seeds 1` as a process, one other configuration of the sample in each
  turn; as many times as there are configurations it is held against the whole search.

No process finds or keeps anything compiled. Ratios are those of one turn; median, minimum and
maximum over turns are told. The roof is a product of two matrices of 2048 on all cores, the best of
some; a step's operations are those of `studies.costs`. A table on stderr, JSON lines on stdout.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import jax

from mulo_cli.assembly.searches import build_task_for, build_trials
from mulo_cli.recipes.grids import load_grid
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.records import EvaluationRow
from mulo_cli.studies.costs import training_costs
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask
from mulo_cli.studies.lanes import segments
from mulo_cli.studies.seats import SeatPrograms, Trial
from mulo_cli.studies.tune import compile_tuning, tune
from tests.benchmarks.measuring import Program, ratio, spread, take_turns, tell, tell_environment

CACHE = "JAX_COMPILATION_CACHE_DIR"
"""Where this process may find what is compiled; its children may not."""

UNCACHED = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


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


def seconds_of_a_step(
    task: EvaluationTask,
    trials: Sequence[Trial],
    config: EvaluationConfig,
    programs: SeatPrograms,
) -> float:
    """Return the seconds of a step of one network, by the clock around the training of all."""
    began = time.perf_counter()
    told = list(tune(task, trials, config, programs, ""))
    seconds = time.perf_counter() - began
    return seconds / sum(trained_steps(vars(r)) for r in told if isinstance(r, EvaluationRow))


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
            env={**environment, "PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": folder, **UNCACHED},
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
    task, trials, config = task_and_trials(name, options)
    sample = sampled(trials, options.sample)
    lanes = compile_tuning(task, trials, config, None)
    one_lane = compile_tuning(task, sample, config, 1)._replace(at_once=1)
    for programs in (lanes, one_lane):
        seconds_of_a_step(task, sample[:1], config, programs)  # warms up
    seconds: dict[str, list[float]] = {key: [] for key in ("whole", "lanes", "alone", "process")}
    rows: list[dict] = []
    for turn in range(options.repetitions):
        whole, rows = searched(name, options)
        seconds["whole"].append(whole)
        seconds["lanes"].append(seconds_of_a_step(task, trials, config, lanes))
        seconds["alone"].append(seconds_of_a_step(task, sample, config, one_lane))
        process = seconds_of_a_process(sample[turn % len(sample)], options)
        seconds["process"].append(process)
    flops, most = training_costs(task, trials[0].optimizer, config, 0).flops, roof()
    steps, times = sum(map(trained_steps, rows)), {k: spread(v) for k, v in seconds.items()}
    return {
        "optimizer": name,
        "configurations": len(trials),
        "lanes": lanes.lanes,
        "at_once": lanes.at_once,
        "width": options.width,
        "steps": options.steps,
        "diverged": sum(row["diverged_at"] is not None for row in rows),
        "trained_steps": steps,
        "whole_seconds": times["whole"],
        "training_seconds": spread([steps * of for of in seconds["lanes"]]),
        "lanes_step_seconds": times["lanes"],
        "alone_step_seconds": times["alone"],
        "alone_ratio": ratio(seconds["alone"], seconds["lanes"]),
        "flops_of_a_step": flops,
        "roof": most,
        "alone_of_roof": flops / times["alone"].median / most,
        "lanes_of_roof": flops / times["lanes"].median / most,
        "process_seconds": times["process"],
        "processes_ratio": ratio([len(trials) * s for s in seconds["process"]], seconds["whole"]),
    }


def line_of(row: dict) -> str:
    """Return a row's line of the table."""
    alone, lanes = row["alone_step_seconds"].median, row["lanes_step_seconds"].median
    ratios = row["alone_ratio"], row["processes_ratio"]
    return (
        f"{row['optimizer']:8s} {row['configurations']:4d} {row['diverged']:6d}"
        f" {row['whole_seconds'].median:6.1f} s {row['training_seconds'].median:8.1f} s"
        f" {1e6 * lanes:6.1f} us ({row['lanes_of_roof']:3.0%})"
        f" {1e6 * alone:6.1f} us ({row['alone_of_roof']:3.0%})"
        + "".join(f"  {told.median:6.2f} ({told.least:.2f}..{told.most:.2f})" for told in ratios)
    )


def main() -> None:
    """Measure every grid; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", default="muadam,adamw")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--sample", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    tell_environment()
    print(
        "grid       diverged    whole   training  a step in lanes   a step alone"
        "  alone / lanes (turns)  processes / whole (turns)",
        file=sys.stderr,
    )
    for name in options.optimizers.split(","):
        row = measure(name, options)
        tell(row, line_of(row))


if __name__ == "__main__":
    main()
