"""One update of a learned optimizer beside AdamW's and beside its own matrix products.

    python -m tests.benchmarks.update_speed --sizes 512,1448 --optimizers small_fc_lopt:4,velo:4

Four square matrices, random parameters and gradients, float32; every program is jitted, and
parameters and state are donated. *AdamW* is `optax.adamw` and `apply_updates` on the same tree.
*Products* is the three products 28 -> H -> H -> 2 of the per-parameter network over all parameters,
nothing else: the floor of a network that is too large to be elementwise arithmetic; once over a
whole tensor, and once in blocks that stay in the cache, which is the harder floor.
Programs take turns. Temporary memory is the compiled program's, in floats per parameter.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.learned_optimizers.small_fc_lopt import TENSOR_FEATURES
from mulo_cli.mup.roles import ParamRole, RoleKind
from mulo_cli.mup.rules import adam_like
from tests.benchmarks.measuring import (
    Program,
    compile_timed,
    ratio,
    spread,
    take_turns,
    tell,
    tell_environment,
)

TENSORS = 4

BLOCK = 16_384
"""Elements of a block of the products."""


def make_tree(key: jax.Array, size: int, scale: float) -> dict[str, jax.Array]:
    """Draw four square matrices."""
    keys = jax.random.split(key, TENSORS)
    return {f"w{i}": scale * jax.random.normal(k, (size, size)) for i, k in enumerate(keys)}


def updating(
    build: Callable[[Any], Any], hyper: Any, size: int
) -> tuple[Program, jax.stages.Compiled, float]:
    """Return an update as a program, compiled, and the seconds that took.

    Args:
        build: makes an optax transformation of its traced hyper-parameters.
        hyper: learning rate, or theta.
        size: of the matrices.
    """
    params = make_tree(jax.random.key(0), size, 0.02)
    gradients = make_tree(jax.random.key(1), size, 0.01)

    def step(hyper: Any, gradients: Any, state: Any, params: Any) -> Any:
        loss = jnp.float32(1)
        updates, state = build(hyper).update(gradients, state, params, loss=loss)
        return optax.apply_updates(params, updates), state

    state = jax.jit(lambda params: build(hyper).init(params))(params)
    compiled, seconds = compile_timed(step, hyper, gradients, state, params, donate_argnums=(2, 3))

    def run(carried: Any) -> Any:
        params, state = carried
        return compiled(hyper, gradients, state, params)

    return Program(run, (params, state)), compiled, seconds


def adamw(size: int) -> Program:
    """Return AdamW's update of four matrices."""
    return updating(
        lambda rate: optax.with_extra_args_support(optax.adamw(rate)), jnp.float32(1e-3), size
    )[0]


def learned(name: str, hidden_size: int, size: int) -> tuple[Program, jax.stages.Compiled, float]:
    """Return a learned optimizer's update of four hidden matrices; theta is all random."""
    entry = LEARNED_OPTIMIZERS[name]
    made = entry.make(entry.config(hidden_size=hidden_size), adam_like)
    role = ParamRole(RoleKind.HIDDEN, (0,), (1,), size, size)
    roles = {f"w{i}": role for i in range(TENSORS)}
    theta, unravel = ravel_pytree(made.init(jax.random.key(2)))
    theta = unravel(theta + 0.01 * jax.random.normal(jax.random.key(4), theta.shape))
    return updating(lambda theta: made.build(theta, roles, jnp.int32(1_000)), theta, size)


def products(hidden_size: int, size: int, *, blocks: bool) -> Program:
    """Return the three products of the network over all parameters.

    Args:
        hidden_size: units of its two hidden layers.
        size: of the square matrices.
        blocks: one block of elements after another; else each matrix at once.
    """
    shapes = [(TENSOR_FEATURES, hidden_size), (hidden_size, hidden_size), (hidden_size, 2)]
    weights = [
        jax.random.normal(jax.random.key(i), shape) / shape[0] ** 0.5
        for i, shape in enumerate(shapes)
    ]
    elements = size * size
    shape = (
        (-(-elements // BLOCK), TENSOR_FEATURES, BLOCK)
        if blocks
        else (1, TENSOR_FEATURES, elements)
    )
    features = jax.random.normal(jax.random.key(3), shape)

    def multiply(features: jax.Array, weights: list[jax.Array]) -> jax.Array:
        def network(block: jax.Array) -> jax.Array:
            return functools.reduce(lambda x, w: w.T @ x, weights, block)

        return jax.lax.map(network, features) if blocks else network(features[0])

    compiled, _ = compile_timed(multiply, features, weights)

    def run(_: Any) -> Any:
        return [compiled(features, weights) for _ in range(TENSORS)]

    return Program(run, None)


def measure(name: str, hidden_size: int, size: int, repetitions: int) -> tuple[dict, str]:
    """Return the figures of one optimizer on four matrices, and their line of the table."""
    ours, compiled, compile_seconds = learned(name, hidden_size, size)
    programs = {
        "adamw": adamw(size),
        "ours": ours,
        "products": products(hidden_size, size, blocks=False),
        "products in blocks": products(hidden_size, size, blocks=True),
    }
    seconds = take_turns(programs, repetitions)
    parameters = TENSORS * size * size
    ratios = {floor: ratio(seconds["ours"], seconds[floor]) for floor in seconds}
    temporaries = compiled.memory_analysis().temp_size_in_bytes / 4 / parameters
    row = {
        "optimizer": name,
        "hidden_size": hidden_size,
        "matrices": [size, size],
        "milliseconds": {k: [1e3 * x for x in spread(v)] for k, v in seconds.items()},
        "times_min_median_max": ratios,
        "temporary_floats_per_parameter": temporaries,
        "compile_seconds": compile_seconds,
        "repetitions": repetitions,
    }
    line = (
        f"{name:14s}{hidden_size:4d}{size:6d}{1e3 * spread(seconds['ours']).median:10.1f}"
        f"{1e3 * spread(seconds['adamw']).median:10.1f}"
        + "".join(f"{told!s:>22}" for floor, told in ratios.items() if floor != "ours")
        + f"{temporaries:8.2f}{compile_seconds:8.1f}"
    )
    return row, line


def main() -> None:
    """Measure every optimizer at every size; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="512,1448")
    parser.add_argument("--optimizers", default="small_fc_lopt:4,small_fc_lopt:32,velo:4")
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    tell_environment()
    print(
        f"{'optimizer':14s}{'H':>4}{'size':>6}{'ms':>10}{'AdamW ms':>10}{'times AdamW':>22}"
        f"{'times products':>22}{'times blocks of them':>22}{'temp':>8}{'compile':>8}",
        file=sys.stderr,
    )
    for size in map(int, options.sizes.split(",")):
        for name in options.optimizers.split(","):
            architecture, _, hidden_size = name.partition(":")
            tell(*measure(architecture, int(hidden_size), size, options.repetitions))


if __name__ == "__main__":
    main()
