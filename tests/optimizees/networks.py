"""Every optimizee on small examples of what it reads, and its params by name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mulo_cli.mup.roles import leaf_name
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.tasks.base import network_init

IMAGE, LENGTH = (8, 8), 12
WIDTH, DEPTH, CLASSES, BATCH = 64, 3, 10, 16

NAMES = sorted({entry.make: name for name, entry in reversed(OPTIMIZEES.items())}.values())
"""Of every network its first name."""


def example(name: str) -> jax.ShapeDtypeStruct:
    if OPTIMIZEES[name].reads == "images":
        return jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    return jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)


def inputs_of(name: str, seed: int = 100, batch: int = BATCH):
    """Return a batch of random images, or of random tokens."""
    key = jax.random.key(seed)
    if OPTIMIZEES[name].reads == "images":
        return jax.random.normal(key, (batch, *IMAGE))
    return jax.random.randint(key, (batch, LENGTH), 0, CLASSES, jnp.int32)


def build(name: str, mup: bool | str = True, width: int = WIDTH, depth: int = DEPTH, **options):
    entry = OPTIMIZEES[name]
    usual = entry.usual_options(WIDTH)
    return entry.make(
        width=width,
        depth=depth,
        num_classes=CLASSES,
        parametrization={True: "mup", False: "sp"}.get(mup, mup),
        **{**usual, **options},
    )


def start(
    name: str,
    mup: bool | str = True,
    width: int = WIDTH,
    depth: int = DEPTH,
    seed: int = 0,
    **options,
):
    """Return a network and its params."""
    network = build(name, mup, width, depth, **options)
    return network, compiled_init(network, name)(jax.random.key(seed))


@functools.cache
def compiled_init(network, name: str):
    """Return `init(key)`, compiled once for equal networks."""
    return jax.jit(network_init(network, example(name)))


@functools.cache
def compiled_apply(network):
    return jax.jit(network.apply)


def apply(network, params, inputs):
    """Return logits; compiled, because op by op is slower by far."""
    return compiled_apply(network)({"params": params}, inputs)


def shaken(params, key, by: float = 0.1):
    """Return params moved at random: a readout of zeros would hide every mistake."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [p + by * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def by_name(params) -> dict[str, np.ndarray]:
    return {leaf_name(path): np.asarray(x) for path, x in jax.tree.leaves_with_path(params)}


def unstacked(params, name: str, depth: int):
    """Return the params of a stacked network as those of the same network with its blocks apart."""
    apart = {key: value for key, value in params.items() if key != name}
    for number in range(depth):
        apart[f"{name}_{number}"] = jax.tree.map(lambda x, i=number: x[i], params[name])
    return apart
