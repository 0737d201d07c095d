"""Inner steps per second of PES beside a plain SGD unroll of the same tasks.

    python -m tests.benchmarks.pes_speed --widths 16,32,64 --hidden-size 4 --repetitions 9

Both sides train the same networks on the same kind of batches, as many runs side by side, for K
steps, in one compiled program each, on the digits. Repetitions are interleaved; the median of each
and of the ratio pair by pair is printed as a table, and one JSON line per width on stdout.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mulo_cli.gradient_estimators.antithetic import SIGNS, EstimatorConfig
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.inner_training.state import init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.recipes.references import parse_widths
from mulo_cli.results.environment import describe_environment
from tests.worlds import digits_task, small_optimizer


def compile_timed(function: Callable, *arguments: Any) -> tuple[Callable, float]:
    """Return the compiled program and the seconds that tracing and compiling it took."""
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - started


def timed(program: Callable, *arguments: Any) -> tuple[Any, float]:
    """Run to the end; return the result and the seconds."""
    started = time.perf_counter()
    result = jax.block_until_ready(program(*arguments))
    return result, time.perf_counter() - started


def measure(width: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one width."""
    task = digits_task(width, "mup", options.batch_size)
    optimizer = small_optimizer("mup", options.hidden_size)
    k, pairs = options.truncation, options.pairs
    estimator = pes(task, optimizer, EstimatorConfig(pairs, pairs, 0.01, k, 100, 1000))
    theta = optimizer.init(jax.random.key(0))
    state = jax.jit(estimator.init)(jax.random.key(1), theta)
    key = jax.random.key(2)

    def sgd_runs(key: jax.Array, data: Any) -> jax.Array:
        sgd = optax.with_extra_args_support(optax.sgd(1e-2))

        def one(key: jax.Array) -> jax.Array:
            start = init_inner_state(task, sgd, key)
            return unroll(task, sgd, start, data, key, jnp.arange(k))[1]

        return jax.vmap(one)(jax.random.split(key, len(SIGNS) * pairs))

    ours, compile_seconds = compile_timed(estimator.estimate, key, theta, state, task.data)
    floor, floor_compile_seconds = compile_timed(sgd_runs, key, task.data)
    times: list[tuple[float, float]] = []
    for repetition in range(options.repetitions + 1):  # the first warms up
        key = jax.random.key(repetition)
        (_, state, _), seconds = timed(ours, key, theta, state, task.data)
        times.append((seconds, timed(floor, key, task.data)[1]))
    pes_seconds, sgd_seconds = (
        statistics.median(column) for column in zip(*times[1:], strict=True)
    )
    steps = len(SIGNS) * pairs * k
    ratios = sorted(a / b for a, b in times[1:])
    return {
        "width": width,
        "hidden_size": options.hidden_size,
        "pes_inner_steps_per_second": steps / pes_seconds,
        "sgd_inner_steps_per_second": steps / sgd_seconds,
        "ratio_min_median_max": [ratios[0], statistics.median(ratios), ratios[-1]],
        "compile_seconds": compile_seconds,
        "sgd_compile_seconds": floor_compile_seconds,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "repetitions": options.repetitions,
    }


def main() -> None:
    """Measure every width; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=parse_widths, default=(16, 32, 64))
    parser.add_argument("--hidden-size", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--truncation", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    environment = describe_environment([device.device_kind for device in jax.devices()])
    print(json.dumps(environment), file=sys.stderr)
    print("width   PES steps/s   SGD steps/s   SGD/PES   compile s   peak MiB", file=sys.stderr)
    for width in options.widths:
        row = measure(width, options)
        print(json.dumps(row), flush=True)
        print(
            f"{width:5d} {row['pes_inner_steps_per_second']:13.0f}"
            f" {row['sgd_inner_steps_per_second']:13.0f}"
            f" {row['ratio_min_median_max'][1]:9.2f} {row['compile_seconds']:11.1f}"
            f" {row['peak_memory_mib']:10.0f}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
