"""Steps of sharded parameters on several devices beside those of whole ones; prints JSON.

Its argument: an artefact.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import mulo_cli as mulo
from mulo_cli.learned_optimizers.accumulators import Accumulators
from mulo_cli.learned_optimizers.blocks import LARGE

UPDATES, WIDTH = 2, 192
BOTH = ("a", "b")
LAYOUTS = {
    "small": P("a", "b"),
    "vector": P(BOTH),
    "rows": P(BOTH, None),
    "columns": P(None, BOTH),
    "stack/layers": P(BOTH, None, None),
}
"""How each leaf is cut on a mesh of two by two."""


def init(width):
    shapes = {
        "small": (8, width),
        "vector": (96 * width,),
        "rows": (width, width),
        "columns": (width, width),
        "stack/layers": (4, width, width),
    }
    return lambda key: {
        name: jax.random.normal(jax.random.fold_in(key, i), shape)
        for i, (name, shape) in enumerate(shapes.items())
    }


def compare(path):
    """Return by leaf the largest difference of an update, and what lies elsewhere than the leaf."""
    stacks = {"stack/*": mulo.Layout(in_axes=(1,), out_axes=(2,), stack_axes=(0,))}
    roles = mulo.infer_roles(init(64), init(WIDTH), stacks)
    tx = mulo.learned_optimizer(path, roles=roles, num_steps=10)
    params = init(WIDTH)(jax.random.key(0))
    grads = [init(WIDTH)(jax.random.key(1 + i)) for i in range(UPDATES)]
    assert min(leaf.size for name, leaf in params.items() if name != "small") > LARGE

    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), BOTH)
    where = {name: NamedSharding(mesh, LAYOUTS[name]) for name in params}

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params, loss=jnp.float32(1))
        return optax.apply_updates(params, updates), state, updates

    def follow(params, grads):
        start = state = tx.init(params)
        every = []
        for gradient in grads:
            params, state, updates = step(params, state, gradient)
            every.append(jax.device_get(updates))
        return every, params, start, state

    expected, *_ = follow(params, grads)
    found, after, start, end = follow(
        jax.device_put(params, where), [jax.device_put(g, where) for g in grads]
    )

    def leaf(name):
        stacked = params[name].ndim == 3
        elsewhere = [
            f"{when} {what}"
            for when, state in {"first": start, "later": end}.items()
            for what in misplaced(state.accumulators[name], where[name], stacked=stacked)
        ]
        if not after[name].sharding.is_equivalent_to(where[name], after[name].ndim):
            elsewhere.append(f"parameter: {after[name].sharding}")
        pairs = [(f[name], e[name]) for f, e in zip(found, expected, strict=True)]
        worst = max(np.abs(f - e).max() / np.abs(e).max() for f, e in pairs)
        return {"worst": float(worst), "elsewhere": elsewhere}

    return {name: leaf(name) for name in params}


def misplaced(averages: Accumulators, of_leaf: NamedSharding, *, stacked: bool):
    """Say which of the full-sized averages do not lie as their parameter does."""
    spec = tuple(of_leaf.spec)
    before, rest = (spec[:1], spec[1:]) if stacked else ((), spec)
    momentum = NamedSharding(of_leaf.mesh, P(*before, None, *rest))
    return [
        f"{field}: {leaf.sharding}"
        for field, leaf, asked in (
            ("momentum", averages.momentum, momentum),
            ("second_moment", averages.second_moment, of_leaf),
        )
        if not leaf.sharding.is_equivalent_to(asked, leaf.ndim)
    ]


if __name__ == "__main__":
    print(json.dumps(compare(sys.argv[1])))
