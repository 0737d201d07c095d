"""Compile time of one training step against depth: blocks stacked beside blocks apart.

    python -m tests.benchmarks.compile_time --depths 3,16,64 --optimizers muadam,small_fc_lopt

Each figure is the tracing and compilation of one inner step (batch, gradient, update), without any
compilation cache; blocks apart are compiled up to `--deepest-apart` only. A table on stderr, one
JSON line per figure on stdout.
"""

import argparse
import json
import sys
import time

import jax
import jax.numpy as jnp

from mulo_cli.inner_training.state import init_inner_state
from mulo_cli.inner_training.step import inner_step
from mulo_cli.mup.roles import infer_roles
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.recipes.references import parse_steps
from mulo_cli.results.environment import describe_environment
from mulo_cli.tasks.base import LOSSES, network_init
from mulo_cli.types import Batch
from tests.learned_optimizers.architectures import make

CLASSES, BATCH, WIDTH, LENGTH = 65, 8, 128, 64


def compile_seconds(name: str, depth: int, optimizer: str, *, stacked: bool) -> float:
    """Return the seconds that one step takes to be traced and compiled."""
    entry = OPTIMIZEES[name]
    images = entry.reads == "images"
    shape = (32, 32, 3) if images else (LENGTH,)
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32 if images else jnp.int32)

    def network(width: int):
        settings = {**entry.usual_options(WIDTH), "stacked": stacked}
        return entry.make(width=width, depth=depth, num_classes=CLASSES, **settings)

    inits = [network_init(network(width), example) for width in (2 * WIDTH, WIDTH)]
    roles = infer_roles(*inits, readout="forward")
    if optimizer in OPTIMIZERS:
        made = OPTIMIZERS[optimizer]
        hyper = {**made.defaults, "learning_rate": 0.01}
        built = made.under("mup")(hyper, roles, jnp.int32(100))
    else:
        learned = make(optimizer)
        built = learned.build(learned.init(jax.random.key(0)), roles, jnp.int32(100))

    class OneTask:
        init = staticmethod(inits[1])

        @staticmethod
        def loss(params, batch):
            logits = network(WIDTH).apply({"params": params}, batch.inputs)
            return LOSSES[entry.reads](logits, batch.targets), logits

    state = jax.eval_shape(lambda key: init_inner_state(OneTask, built, key), jax.random.key(0))
    targets = (BATCH,) if images else (BATCH, LENGTH)
    batch = Batch(
        jax.ShapeDtypeStruct((BATCH, *shape), example.dtype),
        jax.ShapeDtypeStruct(targets, jnp.int32),
    )
    began = time.perf_counter()
    jax.jit(lambda s, b: inner_step(OneTask, built, s, b)).lower(state, batch).compile()
    return time.perf_counter() - began


def main() -> None:
    """Measure every combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", default="3,16,64")
    parser.add_argument("--networks", default="mlp,vit,lm,gpt")
    parser.add_argument("--optimizers", default="muadam,small_fc_lopt")
    parser.add_argument("--deepest-apart", type=int, default=16)
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    environment = describe_environment([device.device_kind for device in jax.devices()])
    print(json.dumps(environment), file=sys.stderr)
    print("network  optimizer      depth  stacked, s  apart, s", file=sys.stderr)
    for name in options.networks.split(","):
        for optimizer in options.optimizers.split(","):
            for depth in parse_steps(options.depths, "--depths"):
                jax.clear_caches()
                stacked = compile_seconds(name, depth, optimizer, stacked=True)
                apart = None
                if depth <= options.deepest_apart:
                    apart = compile_seconds(name, depth, optimizer, stacked=False)
                figures = {"network": name, "optimizer": optimizer, "depth": depth}
                print(json.dumps({**figures, "stacked_s": stacked, "apart_s": apart}), flush=True)
                beside = "-" if apart is None else f"{apart:.1f}"
                print(
                    f"{name:<8} {optimizer:<14} {depth:>5} {stacked:>10.1f} {beside:>9}",
                    file=sys.stderr,
                )


if __name__ == "__main__":
    main()
