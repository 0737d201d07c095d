"""How far a few steps move each tensor, in the unit that muP keeps the same at every width.

A condition on single tensors is sharper than one on layers' outputs, which mix all that lies
before. Inputs and vectors: root mean square; hidden matrices: spectral norm over
(fan_out/fan_in)^1/2; outputs: spectral norm times fan_in^1/2 and the network's own factor, which is
what an aligned change adds to the logits. G. Yang, J. Simon and J. Bernstein, "A spectral condition
for feature learning" (2023).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.tasks import build_task
from mulo_cli.mup.kinds import ParamRole, RoleKind
from mulo_cli.mup.sketches import named_leaves
from mulo_cli.recipes.references import parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.lanes import lane_programs, seed_keys

WIDTHS = (32, 64, 128, 256)
STEPS, SEEDS = 4, 8
"""ADOPT's first step only looks, a zero readout takes another: at the fourth step all move."""

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiling takes longer than running by far."""

NOISE = "blocks/attention/key/bias"
"""Softmax does not see it: its gradient is rounding alone."""

DATA = {"mlp": "digits", "gpt": "pydoc"}
NETWORKS = {"mlp": "mlp", "gpt": "gpt:length=16"}
DEPTHS = {"mlp": 3, "gpt": 2}

dataset_of = functools.cache(build_dataset)


class Slope(NamedTuple):
    """The power of the width that a tensor's movement follows, with its error over seeds."""

    tensor: str
    power: float
    error: float


def movements(network: str, optimizer: str, width: int) -> dict[str, np.ndarray]:
    """Return how far each tensor of a width moves, for each seed."""
    named, dataset = build_named_optimizer(parse_optimizer(optimizer)), dataset_of(DATA[network])
    section = TaskSection(DATA[network], NETWORKS[network], [width], DEPTHS[network], 16)
    task = build_task(section, dataset, width, named.parametrization, named.network)
    lane = lane_programs(task, named.make, STEPS)

    def moved(key, data):
        start = lane.start(key, named.hyper)
        end, _ = lane.train(start, named.hyper, data, jnp.arange(STEPS))
        return jax.tree.map(jnp.subtract, end.state.params, start.state.params)

    def of_all_seeds(keys, data):  # one after another: products of batches are slow uncompiled
        return jax.lax.map(functools.partial(moved, data=data), keys)

    given = seed_keys(range(SEEDS)), task.data
    changes = jax.jit(of_all_seeds).lower(*given).compile(QUICKLY)(*given)
    roles, divided = named_leaves(task.roles), named.parametrization == "mup"
    return {
        name: _size(np.asarray(change), roles[name], divided)
        for name, change in named_leaves(changes).items()
        if name != NOISE
    }


def slopes(network: str, optimizer: str, widths: tuple[int, ...] = WIDTHS) -> list[Slope]:
    """Return the slopes of all tensors, the steepest first."""
    found = [movements(network, optimizer, width) for width in widths]
    fitted = []
    for name in found[0]:
        logs = np.log(np.stack([one[name] for one in found]))
        powers = np.polyfit(np.log(widths), logs, 1)[0]
        fitted.append(Slope(name, float(powers.mean()), float(powers.std(ddof=1) / SEEDS**0.5)))
    return sorted(fitted, key=lambda slope: -abs(slope.power))


def _size(change: np.ndarray, role: ParamRole, divided: bool) -> np.ndarray:
    """Return how far one tensor moved, for each seed; layers of a stack: root mean square."""
    if role.kind is RoleKind.INPUT:
        return np.sqrt(np.mean(np.square(change), axis=tuple(range(1, change.ndim))))
    matrices = change.reshape(len(change), -1, role.fan_in, role.fan_out)
    norms = np.sqrt(np.mean(np.square(np.linalg.norm(matrices, 2, axis=(2, 3))), axis=1))
    if role.kind is RoleKind.OUTPUT:
        return norms * role.fan_in**0.5 / (role.fan_in if divided else 1)
    return norms / (role.fan_out / role.fan_in) ** 0.5
