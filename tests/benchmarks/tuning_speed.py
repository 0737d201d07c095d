"""A grid in lanes beside the same configurations one at a time.

    python -m tests.benchmarks.tuning_speed --widths 32,128 --repetitions 5

Both sides are `studies.tune` on the digits and the paper's AdamW grid, with all lanes or with one;
compilation is not counted on either side. Repetitions are interleaved; medians are printed as a
table, and one JSON line per width on stdout.
"""

import argparse
import json
import statistics
import sys

import jax

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_trials
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.recipes.grids import load_grid
from mulo_cli.recipes.references import parse_widths
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.environment import describe_environment
from mulo_cli.results.records import EvaluationRow
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask
from mulo_cli.studies.tune import Trial, choose_lanes, tune
from mulo_cli.tasks.base import count_parameters


def seconds_per_step(
    task: EvaluationTask, trials: tuple[Trial, ...], config: EvaluationConfig, lanes: int
) -> float:
    """Return the mean seconds of one step of one network."""
    rows = [r for r in tune(task, trials, config, lanes, "") if isinstance(r, EvaluationRow)]
    return statistics.fmean(row.seconds_per_step for row in rows)


def measure(width: int, options: argparse.Namespace) -> dict:
    """Return the figures of one width."""
    grid = load_grid("paper", "adamw")
    trials = build_trials("adamw", "constant", grid, 1)
    section = TaskSection("digits", "mlp", [width], 3, options.batch_size)
    task = build_evaluation_task(section, build_dataset("digits"), width, "sp")
    config = EvaluationConfig(options.steps, 1, 50, (options.steps,))
    lanes = choose_lanes(len(trials), count_parameters(task.task))
    middle = len(trials) // 2  # rates that neither crawl nor diverge
    pairs = [
        (
            seconds_per_step(task, trials[middle : middle + lanes], config, lanes),
            seconds_per_step(task, trials[middle : middle + options.sample], config, 1),
        )
        for _ in range(options.repetitions)
    ]
    ratios = sorted(alone / side_by_side for side_by_side, alone in pairs)
    return {
        "width": width,
        "lanes": lanes,
        "lanes_steps_per_second": 1 / statistics.median(pair[0] for pair in pairs),
        "one_at_a_time_steps_per_second": 1 / statistics.median(pair[1] for pair in pairs),
        "ratio_min_median_max": [ratios[0], statistics.median(ratios), ratios[-1]],
        "repetitions": options.repetitions,
    }


def main() -> None:
    """Measure every width; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=parse_widths, default=(32, 128))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--sample", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    environment = describe_environment([device.device_kind for device in jax.devices()])
    print(json.dumps(environment), file=sys.stderr)
    print("width  lanes   lanes steps/s   alone steps/s   ratio (min..max)", file=sys.stderr)
    for width in options.widths:
        row = measure(width, options)
        print(json.dumps(row), flush=True)
        low, middle, high = row["ratio_min_median_max"]
        print(
            f"{width:5d} {row['lanes']:6d} {row['lanes_steps_per_second']:15.0f}"
            f" {row['one_at_a_time_steps_per_second']:15.0f}"
            f"   {middle:.1f} ({low:.1f}..{high:.1f})",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
