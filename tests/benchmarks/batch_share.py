"""What a batch costs beside the inner step that it is for.

    python -m tests.benchmarks.batch_share --batch-size 128

K steps of plain SGD (three hidden layers) in one compiled program, with a batch drawn in every step
and with one batch, an argument, for all steps of an order of the data; and the batches of K steps
alone. Every run goes on with the networks of the last. One network, and 16 that share the order of
their data by pairs, as PES has them. Digits are moved and get noise, 64 normal numbers an image;
stored images (random ones of ImageNet-32's shape) are gathered and standardised alone. Programs
take turns. A table on stderr, JSON lines on stdout.
"""

import argparse
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.tasks import build_task
from mulo_cli.datasets.base import Dataset
from mulo_cli.datasets.images import channel_statistics, image_dataset
from mulo_cli.inner_training.state import InnerState, init_inner_state
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.tasks.base import Task
from mulo_cli.types import Batch, Data, PRNGKey
from tests.benchmarks.measuring import (
    Program,
    compile_timed,
    ratio,
    spread,
    take_turns,
    tell,
    tell_environment,
)

HIDDEN_LAYERS = 3
NETWORKS = {"one": (1, 1), "eight pairs": (8, 2)}
"""Orders of data, and networks that share one."""

TASKS = (("digits", 32), ("digits", 128), ("stored 32x32x3", 128))

STORED = 20_000
"""Images, 61 MB: more than caches hold."""


def stored_images() -> Dataset:
    """Return images of ImageNet-32's shape as they are stored: random pixels, random classes."""
    generator = np.random.default_rng(0)
    split = {
        "inputs": generator.integers(0, 256, (STORED, 32, 32, 3), np.uint8),
        "targets": generator.integers(0, 1_000, STORED, np.int32),
    }
    statistics = channel_statistics(split["inputs"])
    return image_dataset(
        "stored 32x32x3", {"train": split, "test": split}, 1_000,
        statistics=statistics, source="random", licence="none", real=False,
    )  # fmt: skip


def batches_program(task: Task, steps: int) -> Callable:
    """Return a function of keys that makes the batches of all steps, and looks at all of them."""

    def make(keys: PRNGKey, data: Data) -> jax.Array:
        def one(key: PRNGKey) -> jax.Array:
            def step(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
                inputs = task.batch(data, key, number).inputs
                rows = inputs.reshape(inputs.shape[0], -1)
                return total + rows @ jnp.ones(rows.shape[1]), None

            shape = jax.eval_shape(task.batch, data, key, jnp.int32(0)).inputs.shape
            return jax.lax.scan(step, jnp.zeros(shape[0]), jnp.arange(steps))[0]

        return jax.vmap(one)(keys)

    return make


def sgd() -> optax.GradientTransformationExtraArgs:
    """Return what trains the networks: an update that costs next to nothing."""
    return optax.with_extra_args_support(optax.sgd(1e-2))


def beginnings(task: Task, keys: PRNGKey, sharing: int) -> InnerState:
    """Return networks to begin with, so many on each order of the data."""

    def one(key: PRNGKey) -> InnerState:
        return init_inner_state(task, sgd(), key)

    return jax.jit(jax.vmap(lambda key: jax.vmap(one)(jax.random.split(key, sharing))))(keys)


def training_program(task: Task, steps: int, data_axis: int | None) -> Callable:
    """Return a function of networks, keys and data that trains the networks.

    Args:
        task: of all of them.
        steps: of each.
        data_axis: 0, each order of the data has arrays of its own; None, all share them.
    """

    def train(states: InnerState, keys: PRNGKey, data: Data) -> tuple[InnerState, jax.Array]:
        def one(state: InnerState, key: PRNGKey, data: Data) -> tuple[InnerState, jax.Array]:
            return unroll(task, sgd(), state, data, key, jnp.arange(steps))

        of_one_order = jax.vmap(one, (0, None, None))
        return jax.vmap(of_one_order, (0, 0, data_axis))(states, keys, data)

    return train


def trained(task: Task, sharing: int, keys: PRNGKey, steps: int, batch: Batch | None) -> Program:
    """Return the training of all networks: on batches of each step, or on one for every order."""
    data, axis = (task.data, None) if batch is None else (batch, 0)
    states = beginnings(task, keys, sharing)
    train = training_program(task, steps, axis)
    compiled, _ = compile_timed(train, states, keys, data, donate_argnums=0)
    return Program(lambda states: compiled(states, keys, data)[0], states)


def measure(dataset: str, width: int, networks: str, options: argparse.Namespace) -> dict:
    """Return the figures of one task; microseconds are those of a step of all networks."""
    section = TaskSection("digits", "mlp", [width], HIDDEN_LAYERS, options.batch_size)
    data = build_dataset("digits") if dataset == "digits" else stored_images()
    task = build_task(section, data, width, "mup")
    task = task._replace(data=jax.device_put(task.data))
    orders, sharing = NETWORKS[networks]
    keys = jax.random.split(jax.random.key(0), orders)
    still = jax.jit(jax.vmap(task.batch, (None, 0, None)))(task.data, keys, jnp.int32(0))
    fixed = task._replace(batch=lambda data, key, step: data)
    steps = options.steps
    batches, _ = compile_timed(batches_program(task, steps), keys, task.data)
    programs = {
        "step": trained(task, sharing, keys, steps, None),
        "fixed": trained(fixed, sharing, keys, steps, still),
        "batch": Program(lambda _: batches(keys, task.data), None),
    }
    seconds = take_turns(programs, options.repetitions)
    return {
        "dataset": dataset,
        "width": width,
        "batch_size": options.batch_size,
        "networks": networks,
        "microseconds": {k: spread([1e6 * s / steps for s in v]) for k, v in seconds.items()},
        "batch_share": ratio(seconds["batch"], seconds["step"]),
        "fixed_share": ratio(seconds["fixed"], seconds["step"]),
    }


def main() -> None:
    """Measure every task; table on stderr, JSON lines on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    tell_environment()
    print(
        "data                 width networks     step us  fixed us  batch us   share",
        file=sys.stderr,
    )
    for dataset, width in TASKS:
        for networks in NETWORKS:
            row = measure(dataset, width, networks, options)
            of = {name: told.median for name, told in row["microseconds"].items()}
            line = (
                f"{dataset:20s} {width:5d} {networks:11s} {of['step']:9.1f} {of['fixed']:9.1f}"
                f" {of['batch']:9.1f}   {row['batch_share']}"
            )
            tell(row, line)


if __name__ == "__main__":
    main()
