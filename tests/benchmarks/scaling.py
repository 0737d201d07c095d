"""What more devices and more processes give a meta-training on this machine, and what crosses.

    python -m tests.benchmarks.scaling --devices 1,2 --processes 1,2 --pairs-per-block 8

Meta-steps of the desk recipe on virtual devices of the processor, or on as many processes with one
device each, in processes of their own: seconds of a meta-step (least, median, most, of some that
follow the compilation), and the efficiency beside one device. Then the two parts that do not become
shorter with more devices, for theta of the paper's size: crediting N pairs and learning (compiled,
one device), and the all-gather of N pairs' reports between processes.

Virtual devices share the machine's cores: beyond their number nothing can be gained.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

from tests.benchmarks.measuring import spread, tell, tell_environment

STEPS, WARM_UP = 30, 3
CREDITED = (8, 64, 1024)
"""Pairs of one task."""


def run_layout(settings: dict[str, Any]) -> None:
    """Train in this process, one of several perhaps, and print seconds of meta-steps."""
    import jax

    if settings["processes"] > 1:
        jax.distributed.initialize(settings["address"], settings["processes"], settings["index"])
    from mulo_cli.assembly.meta_training import build_meta_training
    from mulo_cli.assembly.threefry import fuse_threefry
    from mulo_cli.meta_training.engine import Work, begin, compile_engine, state_shapes
    from mulo_cli.meta_training.programs import compiling_side_by_side
    from mulo_cli.meta_training.training import lay_out
    from mulo_cli.recipes.loading import load_recipe

    fuse_threefry()
    per_block = f"estimator.pairs_per_block={settings['pairs_per_block']}"
    training = build_meta_training(load_recipe("multi-width", None, None, [per_block]))
    work = Work(training, lay_out(training, jax.devices()))
    shapes, seconds = state_shapes(training), []
    with compiling_side_by_side(None) as compile_later:
        engine = compile_engine(work, shapes, compile_later)
        state = begin(work, shapes)
        for _ in range(WARM_UP + STEPS):
            started = time.perf_counter()
            state, info = engine.step(state)
            jax.device_get(info)
            seconds.append(time.perf_counter() - started)
    crossing = time_crossing() if settings["processes"] > 1 else {}
    if settings["index"] == 0:
        print(json.dumps({"seconds": seconds[WARM_UP:], "crossing": crossing}))


def time_crossing() -> dict[int, list[float]]:
    """Return the seconds of gathering reports of so many pairs from all processes."""
    import jax
    import numpy as np

    from mulo_cli.meta_training.crossing import everybodys

    found: dict[int, list[float]] = {}
    me, count = jax.process_index(), jax.process_count()
    for pairs in CREDITED:
        share = np.ones((4, pairs // count), np.float32)
        owners = {i: i for i in range(count)}
        for _ in range(WARM_UP + STEPS):
            started = time.perf_counter()
            everybodys({me: share}, owners, share.shape)
            found.setdefault(pairs, []).append(time.perf_counter() - started)
    return {pairs: seconds[WARM_UP:] for pairs, seconds in found.items()}


def measure_layout(devices: int, processes: int, pairs_per_block: int) -> dict[str, Any]:
    """Return what the first process of a layout prints."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        address = f"localhost:{server.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    settings = {"processes": processes, "address": address, "pairs_per_block": pairs_per_block}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.scaling", "--one",
             json.dumps({**settings, "index": index})],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE, text=True,
        )
        for index in range(processes)
    ]  # fmt: skip
    told = [process.communicate()[0] for process in started]
    return json.loads(told[0].splitlines()[-1])


def measure_learning() -> None:
    """Tell the seconds of crediting so many pairs and learning, for theta of muLO's size."""
    import dataclasses

    import jax
    import jax.numpy as jnp

    from mulo_cli.assembly.meta_training import build_meta_training
    from mulo_cli.gradient_estimators.base import PairReports
    from mulo_cli.meta_training.meta_step import make_init, make_learn
    from mulo_cli.recipes.loading import load_recipe

    settings = ["optimizer.hidden_size=32", "task.widths=[16]"]
    for pairs in CREDITED:
        recipe = load_recipe("multi-width", None, None, settings)
        estimator = dataclasses.replace(recipe.estimator, pairs=pairs, pairs_per_block=1)
        training = build_meta_training(dataclasses.replace(recipe, estimator=estimator))
        init = make_init(training.learned_optimizer, training.estimators, training.optimizer)
        shared = jax.jit(lambda root, init=init: init(root).shared)(jax.random.key(0))
        reports = (PairReports(*jnp.zeros((4, pairs))),)
        learn = jax.jit(make_learn(training.estimators, training.optimizer))
        seconds = []
        for _ in range(WARM_UP + STEPS):
            started = time.perf_counter()
            jax.block_until_ready(learn(shared, jax.random.key(0), reports))
            seconds.append(time.perf_counter() - started)
        found = spread(seconds[WARM_UP:])
        row = {"learn": pairs, "meta_parameters": 2_409, "seconds": found}
        tell(row, f"crediting {pairs:5d} pairs, learning {1e3 * found.median:9.2f} ms")


def main() -> None:
    """Measure every layout; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--devices", default="1,2")
    parser.add_argument("--processes", default="2")
    parser.add_argument("--pairs-per-block", type=int, default=8)
    options = parser.parse_args()
    if options.one:
        return run_layout(json.loads(options.one))
    tell_environment()
    layouts = [(int(n), 1) for n in options.devices.split(",")]
    layouts += [(1, int(n)) for n in options.processes.split(",") if n]
    alone = None
    for devices, processes in layouts:
        told = measure_layout(devices, processes, options.pairs_per_block)
        found = spread(told["seconds"])
        alone = alone or found.median
        efficiency = alone / found.median / (devices * processes)
        row = {"devices": devices, "processes": processes, "seconds": found}
        tell(
            {**row, "pairs_per_block": options.pairs_per_block, "efficiency": efficiency},
            f"{devices:3d} devices in each of {processes} processes: a meta-step takes "
            f"{1e3 * found.median:8.1f} ms ({1e3 * found.least:.1f}..{1e3 * found.most:.1f}), "
            f"efficiency {efficiency:.2f}",
        )
        for pairs, seconds in told["crossing"].items():
            of = spread(seconds)
            line = f"      reports of {pairs} pairs cross in {1e3 * of.median:.2f} ms"
            tell({"crossing": int(pairs), "processes": processes, "seconds": of}, line)
    measure_learning()
    return None


if __name__ == "__main__":
    main()
