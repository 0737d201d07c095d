"""Inner steps of PES beside a plain SGD unroll of the same networks.

    python -m tests.benchmarks.pes_speed --widths 32,128 --optimizers small_fc_lopt:4,velo:4

Both sides train the same networks (MLPs, random data of the digits' shape) on batches drawn in
the same way, as many side by side, for K steps, and take turns. PES is measured with all pairs in
one block and with one pair per block, each block a call of a program that is given its runs, and
with crediting. The floor, one program, does what nobody can do without: batches, gradients, and
`params - rate * grads`.
"""

import argparse
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.tasks import build_task
from mulo_cli.gradient_estimators.antithetic import SIGNS, EstimatorConfig
from mulo_cli.gradient_estimators.base import PairReports
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.inner_training.state import init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.mup.rules import adam_like
from mulo_cli.recipes.references import parse_widths
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.tasks.base import Task
from tests.benchmarks.measuring import (
    Program,
    compile_timed,
    ratio,
    spread,
    take_turns,
    tell,
    tell_environment,
)


class Sizes(NamedTuple):
    """What is the same on both sides."""

    width: int
    depth: int
    batch_size: int
    pairs: int
    truncation: int


def random_task(sizes: Sizes) -> Task:
    """Return an MLP on images of the digits' shape whose pixels and classes are random."""
    section = TaskSection("digits", "mlp", [sizes.width], sizes.depth, sizes.batch_size)
    task = build_task(section, build_dataset("digits"), sizes.width, "mup")
    generator = np.random.default_rng(0)

    def randomised(leaf: Any) -> np.ndarray:
        return generator.integers(0, int(leaf.max()) + 1, leaf.shape).astype(leaf.dtype)

    return task._replace(data=jax.tree.map(randomised, task.data))


def pes_program(
    task: Task, architecture: str, hidden_size: int, sizes: Sizes, pairs_per_block: int
) -> tuple[Program, float]:
    """Return one estimate after another, as a meta-training does them: blocks, then credit.

    Also returns the seconds of compiling it.
    """
    entry = LEARNED_OPTIMIZERS[architecture]
    optimizer = entry.make(entry.config(hidden_size=hidden_size), adam_like)
    config = EstimatorConfig(sizes.pairs, pairs_per_block, 0.01, sizes.truncation, 100, 1000)
    estimator = pes(task, optimizer, config)
    theta = optimizer.init(jax.random.key(0))
    state = estimator.init(theta)
    key, first = jax.random.key(2), np.arange(0, sizes.pairs, pairs_per_block, dtype=np.int32)
    blocks = [jax.tree.map(lambda x, i=i: x[i : i + pairs_per_block], state.runs) for i in first]
    unroll, seconds = compile_timed(
        estimator.unroll, key, theta, blocks[0], task.data, jnp.int32(0), donate_argnums=2
    )
    reports = jax.eval_shape(lambda: PairReports(*jnp.zeros((4, sizes.pairs))))
    credit, more = compile_timed(estimator.credit, key, theta, state.accumulated, reports)

    def run(state: Any) -> Any:
        blocks, accumulated = state
        done = [unroll(key, theta, b, task.data, i) for b, i in zip(blocks, first, strict=True)]
        told = np.concatenate([np.array(jax.device_get(reports)) for _, reports in done], axis=1)
        _, accumulated, _ = credit(key, theta, accumulated, PairReports(*told))
        return [runs for runs, _ in done], accumulated

    return Program(run, (blocks, state.accumulated)), seconds + more


def sgd_program(task: Task, sizes: Sizes) -> tuple[Program, float]:
    """Return the unroll of as many networks under SGD, and the seconds of compiling it.

    Two networks each share their batches, as both signs of a pair do.
    """
    sgd = optax.with_extra_args_support(optax.sgd(1e-2))
    keys = jax.random.split(jax.random.key(3), sizes.pairs)

    def begin(key: jax.Array) -> Any:
        both = jax.random.split(key, len(SIGNS))
        return jax.vmap(lambda key: init_inner_state(task, sgd, key))(both)

    def train(states: Any, keys: jax.Array, data: Any) -> Any:
        def one(state: Any, key: jax.Array) -> Any:
            return unroll(task, sgd, state, data, key, jnp.arange(sizes.truncation))

        return jax.vmap(jax.vmap(one, (0, None)))(states, keys)

    states = jax.jit(jax.vmap(begin))(keys)
    compiled, seconds = compile_timed(train, states, keys, task.data, donate_argnums=0)
    return Program(lambda states: compiled(states, keys, task.data)[0], states), seconds


def measure(sizes: Sizes, name: str, repetitions: int) -> tuple[dict[str, Any], str]:
    """Return the figures of one optimizer at one width, and their line of the table."""
    architecture, _, hidden_size = name.partition(":")
    task = random_task(sizes)
    programs, compile_seconds = {}, {}
    programs["sgd"], compile_seconds["sgd"] = sgd_program(task, sizes)
    for key, pairs_per_block in {"one block": sizes.pairs, "pair by pair": 1}.items():
        programs[key], compile_seconds[key] = pes_program(
            task, architecture, int(hidden_size), sizes, pairs_per_block
        )
    seconds = take_turns(programs, repetitions)
    steps = len(SIGNS) * sizes.pairs * sizes.truncation
    ratios = {key: ratio(seconds[key], seconds["sgd"]) for key in programs if key != "sgd"}
    row = {
        "optimizer": architecture,
        "hidden_size": int(hidden_size),
        **sizes._asdict(),
        "inner_steps_per_second": {k: steps / spread(v).median for k, v in seconds.items()},
        "times_sgd_min_median_max": ratios,
        "compile_seconds": compile_seconds,
        "repetitions": repetitions,
    }
    line = (
        f"{sizes.width:6d} {name:18s}{steps / spread(seconds['sgd']).median:12.0f}"
        + "".join(
            f"{steps / spread(seconds[key]).median:12.0f}{told!s:>22}"
            for key, told in ratios.items()
        )
        + f"{compile_seconds['one block']:9.1f}"
    )
    return row, line


def main() -> None:
    """Measure every optimizer at every width; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=parse_widths, default=(32, 128))
    parser.add_argument("--optimizers", default="small_fc_lopt:4,small_fc_lopt:32")
    parser.add_argument("--depth", type=int, default=3, help="hidden layers")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--truncation", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    tell_environment()
    print(
        f"{'width':>6} {'optimizer:H':18s}{'SGD steps/s':>12}{'one block':>12}{'times SGD':>22}"
        f"{'pair by pair':>12}{'times SGD':>22}{'compile':>9}",
        file=sys.stderr,
    )
    for width in options.widths:
        for name in options.optimizers.split(","):
            sizes = Sizes(
                width, options.depth, options.batch_size, options.pairs, options.truncation
            )
            tell(*measure(sizes, name, options.repetitions))


if __name__ == "__main__":
    main()
