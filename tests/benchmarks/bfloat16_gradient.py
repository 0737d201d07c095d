"""What bfloat16 matrix products do to the meta-gradient, beside what changes it anyway.

    python -m tests.benchmarks.bfloat16_gradient --widths 32,128 --pairs 8 --optimizer mulo-m-desk

PES of a learned optimizer on three-layer MLPs, digits. All runs begin together and none restarts;
theta stays as it is. The same keys are given to estimators that differ in one thing each, and every
estimator trains its own runs from the beginning, so that differences grow with the runs' age:

bfloat16    matrix products of the network in bfloat16
rounding    one pair per block: float32, other roundings only
data        float32, another data order, the same perturbations and initial networks
redrawn     float32, everything drawn anew

Told are cosine and relative length of the meta-gradient, and the relative change of the meta-loss,
each against float32 (median over seeds, least, most). *one truncation* is bfloat16 on runs that
were trained in float32 up to there. The seconds of one estimate are told as a ratio to float32's.
"""

import argparse
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.learned import load_learned_optimizer
from mulo_cli.assembly.tasks import build_task
from mulo_cli.gradient_estimators.antithetic import EstimatorConfig
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.recipes.references import parse_steps, parse_widths
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.tasks.base import Task
from mulo_cli.types import Data, PRNGKey, Theta
from tests.benchmarks.measuring import (
    Program,
    Spread,
    ratio,
    spread,
    take_turns,
    tell,
    tell_environment,
)
from tests.worlds import small_optimizer

NEWBORN = "newborn"
"""small_fc_lopt with random weights, as meta-training begins."""

SIGMA = 0.01
STEPS, REDRAWN = 1_000, 10_000
"""Added to the number of a seed: randomness of all truncations, and of another draw."""


class Estimator(NamedTuple):
    """A compiled estimator: its first state, and its estimates."""

    init: Any
    estimate: Any


class Estimate(NamedTuple):
    """One estimate, as numbers."""

    gradient: np.ndarray
    meta_loss: float


def learned(name: str, hidden_size: int) -> tuple[LearnedOptimizer, Theta]:
    """Return a learned optimizer and its theta."""
    if name != NEWBORN:
        loaded = load_learned_optimizer(Path(name))
        return loaded.optimizer, loaded.theta
    optimizer = small_optimizer("mup", hidden_size)
    return optimizer, optimizer.init(jax.random.key(0))


def make_task(width: int, precision: str, batch_size: int) -> Task:
    """Return a three-layer MLP on the digits."""
    section = TaskSection("digits", "mlp", [width], 3, batch_size, matmul_precision=precision)
    return build_task(section, build_dataset("digits"), width, "mup")


def in_another_order(task: Task) -> Task:
    """Return the same task, whose data comes in another order under the same keys."""

    def batch(data: Data, key: PRNGKey, step: jax.Array) -> Any:
        return task.batch(data, jax.random.fold_in(key, 1), step)

    return task._replace(batch=batch)


def make_estimator(task: Task, optimizer: LearnedOptimizer, config: EstimatorConfig) -> Estimator:
    """Return PES whose runs all begin together."""
    made = pes(task, optimizer, config)

    def init(key: PRNGKey, theta: Theta) -> Any:
        state = made.init(key, theta)
        return state._replace(horizon=jnp.full_like(state.horizon, config.max_horizon))

    return Estimator(jax.jit(init), jax.jit(made.estimate))


def estimators_of(
    width: int, optimizer: LearnedOptimizer, options: argparse.Namespace
) -> Mapping[str, Estimator]:
    """Return estimators that differ in one thing from the first."""
    horizon = options.truncation * (max(options.ages) + 1)
    settings = (SIGMA, options.truncation, horizon, horizon)
    together, apart = (EstimatorConfig(options.pairs, n, *settings) for n in (options.pairs, 1))
    exact, low = (make_task(width, p, options.batch_size) for p in ("float32", "bfloat16"))
    make = functools.partial(make_estimator, optimizer=optimizer)
    return {
        "float32": make(exact, config=together),
        "bfloat16": make(low, config=together),
        "rounding": make(exact, config=apart),
        "data": make(in_another_order(exact), config=together),
    }


def trained(
    estimator: Estimator, theta: Theta, data: Data, seed: int, ages: tuple[int, ...]
) -> Iterator[tuple[Any, Estimate]]:
    """Yield the state before the truncation of each age, and what was estimated in it."""
    state = estimator.init(theta)
    for age in range(max(ages) + 1):
        before = state
        key = jax.random.fold_in(jax.random.key(seed + STEPS), age)
        gradient, state, info = estimator.estimate(key, theta, state, data)
        if age in ages:
            yield before, as_numbers(gradient, info)


def as_numbers(gradient: Theta, info: Any) -> Estimate:
    """Return an estimate as numbers, summed up in double precision."""
    flat = np.asarray(ravel_pytree(gradient)[0], np.float64)
    return Estimate(flat, float(info.meta_loss))


def beside(other: Estimate, exact: Estimate) -> dict[str, float]:
    """Return how far an estimate is from that in float32."""
    lengths = np.linalg.norm(other.gradient), np.linalg.norm(exact.gradient)
    return {
        "cosine": float(other.gradient @ exact.gradient / (lengths[0] * lengths[1])),
        "length": float(lengths[0] / lengths[1]),
        "loss_change": other.meta_loss / exact.meta_loss - 1,
    }


def compare(
    made: Mapping[str, Estimator], theta: Theta, data: Data, seed: int, ages: tuple[int, ...]
) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Yield age, what differs, and how far the estimate of one seed is from float32's."""
    exact = list(trained(made["float32"], theta, data, seed, ages))
    others = {
        name: trained(made[name], theta, data, seed, ages) for name in made if name != "float32"
    }
    others["redrawn"] = trained(made["float32"], theta, data, seed + REDRAWN, ages)
    for name, found in others.items():
        for age, (_, ours), (_, other) in zip(ages, exact, found, strict=True):
            yield age, name, beside(other, ours)
    for age, (before, ours) in zip(ages, exact, strict=True):
        key = jax.random.fold_in(jax.random.key(seed + STEPS), age)
        gradient, _, info = made["bfloat16"].estimate(key, theta, before, data)
        yield age, "one truncation", beside(as_numbers(gradient, info), ours)


def measure(width: int, options: argparse.Namespace) -> None:
    """Compare estimates at one width, and tell them; then the seconds."""
    optimizer, theta = learned(options.optimizer, options.hidden_size)
    made = estimators_of(width, optimizer, options)
    data = build_dataset("digits").splits["train"]
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for age, name, distance in compare(made, theta, data, seed, options.ages):
            found.setdefault((age, name), []).append(distance)
    what = {"width": width, "optimizer": options.optimizer, "pairs": options.pairs}
    for (age, name), seeds in sorted(found.items()):
        told = {key: spread([one[key] for one in seeds]) for key in seeds[0]}
        steps = options.truncation * age
        line = f"{width:5} {steps:5} {name:<14} {in_words(told)}"
        tell({**what, "age": steps, "beside": name, **told}, line)
    seconds = take_turns(
        {name: timed(made[name], theta, data) for name in ("float32", "bfloat16")},
        options.repetitions,
    )
    slower = ratio(seconds["bfloat16"], seconds["float32"])
    tell({**what, "seconds": seconds, "ratio": slower}, f"{width:5} bfloat16 takes {slower} times")


def in_words(told: Mapping[str, Spread]) -> str:
    """Return the cells of a row."""
    shown = {"cosine": ".4f", "length": ".3f", "loss_change": "+.0e"}
    cells = (
        f"{told[key].median:{form}} ({told[key].least:{form}}..{told[key].most:{form}})"
        for key, form in shown.items()
    )
    return "".join(f"{cell:>28}" for cell in cells)


def timed(estimator: Estimator, theta: Theta, data: Data) -> Program:
    """Return the estimate as a program."""

    def run(state: Any) -> Any:
        return estimator.estimate(jax.random.key(9), theta, state, data)[1]

    return Program(run, estimator.init(theta))


def main() -> None:
    """Compare at every width; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", type=parse_widths, default=(32, 128))
    parser.add_argument("--optimizer", default=NEWBORN, help="or an artefact, as mulo-m-desk")
    parser.add_argument("--hidden-size", type=int, default=4, help="of the newborn")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--truncation", type=int, default=50)
    parser.add_argument("--ages", default="1,5,10,20", help="truncations, the first is 1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    options.ages = tuple(age - 1 for age in parse_steps(options.ages, "--ages"))
    tell_environment()
    print(
        "width   age beside                              cosine"
        "                length ratio         change of meta-loss",
        file=sys.stderr,
    )
    for width in options.widths:
        measure(width, options)


if __name__ == "__main__":
    main()
