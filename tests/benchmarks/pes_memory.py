"""Memory of PES: its state beside the accumulators and networks in it, and what an estimate adds.

    python -m tests.benchmarks.pes_memory --widths 32,128,512 --optimizers small_fc_lopt:4,velo:4

Three-layer MLPs on the digits, batch 128, K = 50. Parts of the state are told in bytes per
parameter of one run (a pair has two); a float32 has four. *network* and *accumulators* are the
parameters and the running averages of a run; *rest* is what else is kept: counters, the
perturbations since the start, what an LSTM remembers. *state* is the whole beside network and
accumulators. *temporary* is what unrolling a compiled block takes beyond its arguments and results
(its runs are donated), from the program's memory analysis, in sizes of the whole state. Nothing is
run.
"""

import argparse
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mulo_cli.gradient_estimators.antithetic import SIGNS, EstimatorConfig
from mulo_cli.gradient_estimators.base import GradientEstimator
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.inner_training.traced import size_in_bytes
from mulo_cli.learned_optimizers.accumulators import Accumulators
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.mup.rules import adam_like
from mulo_cli.recipes.references import parse_widths
from mulo_cli.tasks.base import Task, count_parameters
from tests.benchmarks.measuring import tell, tell_environment
from tests.worlds import digits_task

BATCH, TRUNCATION = 128, 50


class Parts(NamedTuple):
    """Bytes of an estimator's state."""

    network: int
    accumulators: int
    rest: int

    @property
    def excess(self) -> float:
        """The whole state beside its networks and accumulators."""
        return sum(self) / (self.network + self.accumulators)


def parts_of(state: Any) -> Parts:
    """Return what an estimator's state is made of, from its shapes."""
    found = jax.tree.leaves(
        state.runs.inner.optimizer_state, is_leaf=lambda x: isinstance(x, Accumulators)
    )
    accumulators = sum(size_in_bytes(x) for x in found if isinstance(x, Accumulators))
    network = size_in_bytes(state.runs.inner.params)
    return Parts(network, accumulators, size_in_bytes(state) - network - accumulators)


def shapes_of(estimator: GradientEstimator, optimizer: LearnedOptimizer) -> tuple[Any, Any, Any]:
    """Return the shapes of a key, of theta and of the estimator's state."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    theta = jax.eval_shape(optimizer.init, key)
    return key, theta, jax.eval_shape(estimator.init, theta)


def temporary_bytes(estimator: GradientEstimator, optimizer: LearnedOptimizer, task: Task) -> int:
    """Return what unrolling one compiled block takes beyond its arguments and results."""
    key, theta, state = shapes_of(estimator, optimizer)
    data, first = jax.eval_shape(lambda: (task.data, jnp.int32(0)))
    runs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((estimator.pairs_per_block, *x.shape[1:]), x.dtype),
        state.runs,
    )
    compiled = jax.jit(estimator.unroll, donate_argnums=2).lower(key, theta, runs, data, first)
    analysis = compiled.compile().memory_analysis()
    return analysis.temp_size_in_bytes


def make_optimizer(name: str) -> LearnedOptimizer:
    """Return a learned optimizer, `small_fc_lopt:4`: architecture and units H."""
    architecture, _, hidden_size = name.partition(":")
    entry = LEARNED_OPTIMIZERS[architecture]
    return entry.make(entry.config(hidden_size=int(hidden_size)), adam_like)


def measure(name: str, width: int, pairs: int, per_block: int) -> None:
    """Tell the memory of one estimator."""
    task, optimizer = digits_task(width, "mup", BATCH), make_optimizer(name)
    config = EstimatorConfig(pairs, per_block, 0.01, TRUNCATION, 100, 1_000)
    estimator = pes(task, optimizer, config)
    parts = parts_of(shapes_of(estimator, optimizer)[2])
    temporary = temporary_bytes(estimator, optimizer, task)
    numbers = len(SIGNS) * pairs * count_parameters(task)
    row = {
        "optimizer": name, "width": width, "pairs": pairs, "pairs_per_block": per_block,
        **{part: size / numbers for part, size in parts._asdict().items()},
        "state": parts.excess, "temporary": temporary / sum(parts),
    }  # fmt: skip
    tell(
        row,
        f"{name:<17} {width:5} {pairs:5} {per_block:5} {row['network']:8.2f}"
        f" {row['accumulators']:12.2f} {row['rest']:6.2f} {row['state']:6.3f}"
        f" {row['temporary']:9.2f}",
    )


def main() -> None:
    """Measure every combination; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", type=parse_widths, default=(32, 128, 512, 1024))
    parser.add_argument("--optimizers", default="small_fc_lopt:4,small_fc_lopt:32,velo:4")
    parser.add_argument("--pairs", type=int, default=8)
    options = parser.parse_args()
    tell_environment()
    print("optimizer         width pairs block  network accumulators   rest  state temporary",
          file=sys.stderr)  # fmt: skip
    for name in options.optimizers.split(","):
        for width in options.widths:
            for per_block in (1, options.pairs):
                measure(name, width, options.pairs, per_block)


if __name__ == "__main__":
    main()
