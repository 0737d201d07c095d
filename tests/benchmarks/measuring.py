"""What benchmarks share: programs compiled once, run in turn, and told as ratios to one of them.

Programs take turns, so that whatever else the machine does falls upon all of them alike; a ratio is
that of two runs of the same turn. Medians are quoted, with minimum and maximum.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from mulo_cli.results.environment import describe_environment


class Program(NamedTuple):
    """A compiled program and what it is run on: `run(carried)` returns what the next run takes."""

    run: Callable[[Any], Any]
    start: Any


class Spread(NamedTuple):
    """Smallest, middle and largest of repeated measurements."""

    least: float
    median: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}..{self.most:.2f})"


def spread(values: list[float]) -> Spread:
    """Return the smallest, the middle and the largest."""
    return Spread(min(values), statistics.median(values), max(values))


def compile_timed(function: Callable, *arguments: Any, **options: Any) -> tuple[Any, float]:
    """Return the compiled program and the seconds that tracing and compiling it took."""
    started = time.perf_counter()
    compiled = jax.jit(function, **options).lower(*arguments).compile()
    return compiled, time.perf_counter() - started


def take_turns(programs: Mapping[str, Program], repetitions: int) -> dict[str, list[float]]:
    """Run all programs one after another, over and over; return the seconds of each run.

    A first round, which warms up, is not counted.
    """
    carried = {name: program.start for name, program in programs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repetitions + 1):
        for name, program in programs.items():
            started = time.perf_counter()
            carried[name] = jax.block_until_ready(program.run(carried[name]))
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(ours: list[float], floor: list[float]) -> Spread:
    """Return how many times as long as the floor something takes, turn by turn."""
    return spread([a / b for a, b in zip(ours, floor, strict=True)])


def tell_environment() -> None:
    """Say on stderr what the figures were measured on."""
    environment = describe_environment([device.device_kind for device in jax.devices()])
    print(json.dumps(environment), file=sys.stderr)


def tell(row: Mapping[str, Any], line: str) -> None:
    """Print a row: JSON on stdout, its line of the table on stderr."""
    print(json.dumps(row), flush=True)
    print(line, file=sys.stderr, flush=True)
