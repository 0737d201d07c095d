"""Trainings of networks spread over devices beside the same on one device; prints JSON.

Arguments: names of `CASES`.
"""

import json
import re
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.inner_training.sharding import located, mesh_of, placed, shardings, within
from mulo_cli.inner_training.traced import size_in_bytes
from mulo_cli.learned_optimizers import tensor_update
from mulo_cli.learned_optimizers.parts import PARTS, part_axis, part_spec
from mulo_cli.learned_optimizers.small_fc_lopt import SmallFcLoptConfig, small_fc_lopt
from mulo_cli.learned_optimizers.velo import VeloConfig, velo
from mulo_cli.mup.sketches import named_leaves
from mulo_cli.recipes.references import parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.studies.lane_count import compiled_bytes
from mulo_cli.studies.lanes import lane_programs, seed_keys
from mulo_cli.studies.spread import spread

STEPS = 12

WIDE, DEEP = 2048, 2
"""Of the network whose update is compiled, and never run: where matrices outweigh all else."""


class Case(NamedTuple):
    """A network and what trains it."""

    network: str
    dataset: str
    width: int
    depth: int
    optimizer: str


CASES = {
    "mlp-adamw": Case("mlp", "digits", 64, 2, "adamw:learning_rate=0.01"),
    "mlp-muadam": Case("mlp", "digits", 64, 2, "muadam:learning_rate=0.3"),
    "mlp-small-4": Case("mlp", "digits", 64, 2, "small-4"),
    "mlp-small-32": Case("mlp", "digits", 1024, 1, "small-32"),
    "mlp-velo": Case("mlp", "digits", 64, 2, "velo"),
    "gpt-muadam": Case("gpt", "pydoc", 64, 2, "muadam:learning_rate=0.3"),
    "gpt-small-4": Case("gpt", "pydoc", 64, 2, "small-4"),
    "gpt-small-32": Case("gpt", "pydoc", 64, 2, "small-32"),
    "gpt-velo": Case("gpt", "pydoc", 64, 2, "velo"),
}

PLANTED = ("mlp-small-4", "mlp-velo")
"""Cases that are also trained with a mistake: statistics that each device takes of its own part."""

WITHOUT_GRADIENT = "attention/key/bias"
"""Keys that are all moved alike change no attention: the gradient is rounding alone, and optimizers
that divide by its size move it in any direction."""

LOOKED_AT = {"mlp-small-32", "mlp-velo"}
"""Cases whose update is looked at."""

LEARNED = {
    "small-4": lambda: small_fc_lopt(SmallFcLoptConfig(hidden_size=4, step_size=0.3)),
    "small-32": lambda: small_fc_lopt(SmallFcLoptConfig(hidden_size=32, step_size=0.3)),
    "velo": lambda: velo(VeloConfig(step_size=30.0)),
}
"""Steps are large: a dozen of them shall change the loss."""


def named(text: str) -> NamedOptimizer:
    """Return an optimizer; learned ones have meta-parameters drawn at random."""
    if text not in LEARNED:
        return build_named_optimizer(parse_optimizer(text))
    made = LEARNED[text]()
    theta = jax.jit(made.init)(jax.random.key(1))
    return NamedOptimizer(text, "mup", made.build, theta, {}, None)


def network_of(case: Case, optimizer: NamedOptimizer) -> EvaluationTask:
    """Return the task of a case, with its data."""
    section = TaskSection(case.dataset, case.network, [case.width], case.depth, 16)
    dataset = build_dataset(case.dataset)
    return build_evaluation_task(section, dataset, case.width, optimizer.parametrization)


class Trained(NamedTuple):
    """A network before and after its training, and the losses on the way."""

    losses: np.ndarray
    begin: dict[str, np.ndarray]
    end: dict[str, jax.Array]


def train(task: EvaluationTask, optimizer: NamedOptimizer) -> Trained:
    """Train one network."""
    lane, mesh = lane_programs(task.task, optimizer.make, STEPS), task.mesh
    key, hyper, data = seed_keys([0])[0], placed(optimizer.hyper, mesh), task.task.data
    numbers = np.arange(STEPS, dtype=np.int32)
    with within(mesh):
        where = shardings(jax.eval_shape(lane.start, key, hyper), mesh)
        began = jax.jit(lane.start, out_shardings=where)(key, hyper)
        begin = jax.device_get(began.state.params)
        program = jax.jit(lane.train, donate_argnums=0, out_shardings=(where, None))
        ended, losses = program(began, hyper, data, numbers)
    return Trained(np.asarray(losses), named_leaves(begin), named_leaves(ended.state.params))


def compile_update(task: EvaluationTask, optimizer: NamedOptimizer) -> jax.stages.Compiled:
    """Compile the update of an optimizer alone."""
    lane, mesh = lane_programs(task.task, optimizer.make, STEPS), task.mesh
    key, hyper = seed_keys([0])[0], placed(optimizer.hyper, mesh)

    def update(hyper, gradients, state, params):
        made = optimizer.make(hyper, task.task.roles, jnp.int32(STEPS))
        updates, state = made.update(gradients, state, params, loss=jnp.float32(1))
        return jax.tree.map(jnp.add, params, updates), state

    with within(mesh):
        shapes = jax.eval_shape(lane.start, key, hyper).state
        where = shardings(shapes, mesh)
        after = None if where is None else (where.params, where.optimizer_state)
        params, state, _ = located(shapes, where)
        program = jax.jit(update, donate_argnums=(2, 3), out_shardings=after)
        return program.lower(hyper, params, state, params).compile()


COLLECTIVE = re.compile(
    r" = (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
ARRAY = re.compile(r"([a-z]+)(\d+)\[([\d,]*)\]")


def crossing(program: Callable) -> list[int]:
    """Return the bytes of what each collective of a program brings to a device, largest first."""
    sizes = []
    for line in program.as_text().splitlines():
        if found := COLLECTIVE.search(line):
            arrays = ARRAY.findall(found[1])
            sizes.append(
                sum(
                    int(bits) // 8 * int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
                    for _, bits, shape in arrays
                )
            )
    return sorted(sizes, reverse=True)


def furthest(expected: Trained, found: Trained) -> float:
    """Return how far a tensor's end is from where it should be, beside how far it went."""

    def distance(a, b):
        return np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64))

    return max(
        float(distance(expected.end[name], found.end[name]) / distance(expected.end[name], begin))
        for name, begin in expected.begin.items()
        if not name.endswith(WITHOUT_GRADIENT)
    )


def compare(case: Case, *, planted: bool) -> dict[str, float]:
    """Return how far a network on all devices is from the one on a single device."""
    optimizer = named(case.optimizer)
    alone = network_of(case, optimizer)
    together = spread(alone, mesh_of(jax.devices()))
    expected, found = train(alone, optimizer), train(together, optimizer)
    leaves = found.end.values()
    cut = sum(leaf.nbytes for leaf in leaves if not leaf.sharding.is_fully_replicated)
    told = {
        "losses": float(np.abs(found.losses - expected.losses).max()),
        "changed": float(np.ptp(expected.losses)),
        "params": furthest(expected, found),
        "cut": cut / sum(leaf.nbytes for leaf in leaves),
    }
    if planted:
        tensor_update.norms_of = of_a_part
        told["planted"] = furthest(expected, train(together, optimizer))
        tensor_update.norms_of = NORMS_OF
    return told


def look_at_update(case: Case) -> dict[str, float]:
    """Return what an update sends and takes on each device, in parts of the parameters' bytes."""
    optimizer = named(case.optimizer)
    large = network_of(case._replace(width=WIDE, depth=DEEP), optimizer)
    params = size_in_bytes(jax.eval_shape(large.task.init, jax.random.key(0)))
    program = compile_update(spread(large, mesh_of(jax.devices())), optimizer)
    sent = crossing(program)
    return {
        "largest crossing": max(sent) / params,
        "all crossing": sum(sent) / params,
        "bytes of each": compiled_bytes(program) / params,
    }


NORMS_OF = tensor_update.norms_of


def of_a_part(groups):
    """The mistake: norms of a part of a tensor; each device would have some of its own."""
    shape = groups[0].values[0].shape
    axis = part_axis(shape, jax.sharding.get_abstract_mesh().shape.get(PARTS, 1))
    if axis is None:
        return NORMS_OF(groups)

    def norms(*values):
        return NORMS_OF([g._replace(values=v) for g, v in zip(groups, values, strict=True)])

    values = [group.values for group in groups]
    specs = [jax.tree.map(lambda x: part_spec(x.shape, axis), one) for one in values]
    return jax.shard_map(norms, in_specs=tuple(specs), out_specs=PartitionSpec(), check_vma=False)(
        *values
    )


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        told = {name: compare(CASES[name], planted=name in PLANTED) for name in sys.argv[1:]}
        for name in LOOKED_AT.intersection(told):
            told[name] |= look_at_update(CASES[name])
    print(json.dumps(told))
