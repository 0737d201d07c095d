"""The compiled programs of a coordinate check, and the memory that they need."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from mulo_cli.inner_training.sharding import everywhere, located, placed, shardings, within
from mulo_cli.inner_training.traced import size_in_bytes
from mulo_cli.mup.observed import fresh_trace
from mulo_cli.mup.sketches import named_leaves
from mulo_cli.studies.costs import training_costs
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask, NamedOptimizer
from mulo_cli.studies.forward_order import first_uses
from mulo_cli.studies.lane_count import compiled_bytes
from mulo_cli.studies.lanes import Lane, lane_programs, seed_keys
from mulo_cli.studies.layers import LayerNumbers, Look, compare, make_look
from mulo_cli.studies.tensors import Leaf, TensorNumbers, Vectors, leaf_of, look_at_tensors, pushed
from mulo_cli.tasks.base import Task, task_under
from mulo_cli.types import Batch, Data, Hyper, Params, PRNGKey

Shapes: TypeAlias = PyTree[jax.ShapeDtypeStruct]
"""Params without their numbers."""

LookAtTensors: TypeAlias = Callable[..., tuple[TensorNumbers, Vectors]]
"""(leaf now, leaf before training, vectors, share, iterations) -> numbers, vectors."""


@dataclass(frozen=True)
class CoordinateConfig:
    """How a coordinate check trains.

    Attributes:
        steps: length `T` of each training; every step is measured.
    """

    steps: int


class Anatomy(NamedTuple):
    """What a network consists of, before any number is drawn.

    Attributes:
        layers: name -> whether it is a sown value, in forward order, the logits last.
        leaves: of its params, in the order of the tree's leaves.
        tensors: names of all tensors in forward order.
        outputs: the layers' shapes.
    """

    layers: Mapping[str, bool]
    leaves: tuple[Leaf, ...]
    tensors: tuple[str, ...]
    outputs: tuple[jax.ShapeDtypeStruct, ...]


class CheckPrograms(NamedTuple):
    """The compiled programs of one optimizer on one network, and what they take.

    Attributes:
        anatomy: layers and tensors.
        start: (key, hyper-parameters, data) -> the network before training, and its probe batch.
        train: (lane, hyper-parameters, data, numbers of steps) -> (lane, losses).
        look: (params, references of output leaves, probe batch) -> what the network does.
        compare: (outputs now, outputs at the start) -> what is measured of the layers.
        push: (params, params before training, probe batch) -> for each leaf, of its tensors, root
            mean square of the gradient, and its norm times that of the change.
        tensors: for each leaf, the program that measures it.
        memory: bytes in use at once while the hungriest of them runs, as the compiler tells.
    """

    anatomy: Anatomy
    start: Callable[[PRNGKey, Hyper, Data], tuple[Lane, Batch]]
    train: Callable[..., tuple[Lane, Float[Array, " K"]]]
    look: Callable[[Params, tuple[Array, ...], Batch], Look]
    compare: Callable[[tuple[Array, ...], tuple[Array, ...]], LayerNumbers]
    push: Callable[[Params, Params, Batch], list[tuple[Array, Array]]]
    tensors: tuple[LookAtTensors, ...]
    memory: int


def compile_check(
    task: EvaluationTask, optimizer: NamedOptimizer, config: CoordinateConfig
) -> CheckPrograms:
    """Compile everything that measuring one optimizer on one network needs; nothing is run."""
    lanes = lane_programs(task.task, optimizer.make, config.steps)
    hyper, data = placed(optimizer.hyper, task.mesh), task.task.data
    network = task_under(task.task, hyper)

    def start(key: PRNGKey, hyper: Hyper, data: Data) -> tuple[Lane, Batch]:
        lane = lanes.start(key, hyper)
        return lane, network.batch(data, lane.key_test, jnp.int32(0))

    mesh, key = task.mesh, seed_keys(range(1))[0]
    with within(mesh):
        where = shardings(jax.eval_shape(lanes.start, key, hyper), mesh)
        starts = jax.jit(start, out_shardings=(where, None))  # batches tell themselves
        starting = starts.lower(key, hyper, data).compile()
        lane, probe = _results(starting, mesh)
        params = lane.state.params
        anatomy = anatomy_of(network, params, probe)
        references = references_of(anatomy.leaves, params)
        trains = jax.jit(lanes.train, donate_argnums=0, out_shardings=(where, None))
        with fresh_trace(object()):
            looking = jax.jit(make_look(network, anatomy.leaves)).lower(params, references, probe)
        look = looking.compile()
        outputs = _results(look, mesh).outputs
        programs = CheckPrograms(
            anatomy=anatomy,
            start=starting,
            train=trains.lower(lane, hyper, data, number_of(0)).compile(),
            look=look,
            compare=jax.jit(compare).lower(outputs, outputs).compile(),
            push=jax.jit(make_push(network, anatomy.leaves)).lower(params, params, probe).compile(),
            tensors=_compile_tensors(anatomy.leaves, params, mesh),
            memory=0,
        )
    return programs._replace(memory=_peak(programs, lane, probe, 1 if mesh is None else mesh.size))


def estimate_memory(
    task: EvaluationTask, optimizer: NamedOptimizer, config: CoordinateConfig, devices: int = 1
) -> int:
    """Tell how many bytes a check has in use at once, from shapes alone: nothing is compiled.

    That is a training, beside it the params before training, the outputs of all layers at the
    start, and what power iteration carries. Of a network that is spread over several devices,
    each has all the data besides, and for a while whole parameters and their gradients.
    """
    data_bytes = size_in_bytes(task.task.data)
    trained = EvaluationConfig(config.steps, seeds=1, window=1, at=(config.steps,))
    costs = training_costs(task, optimizer, trained, data_bytes)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(task.task.init, key)
    probe = jax.eval_shape(task.task.batch, task.task.data, key, jnp.int32(0))
    anatomy = anatomy_of(task.task, params, probe)
    outputs = size_in_bytes(anatomy.outputs)
    held = costs.parameter_bytes + size_in_bytes(probe) + _vector_bytes(anatomy.leaves)
    learning = costs.gradient_bytes + costs.activation_bytes
    training = max(learning, costs.gradient_bytes + costs.update_bytes)
    looking = 2 * outputs
    state = data_bytes + costs.parameter_bytes + costs.optimizer_bytes
    state += (devices - 1) * (data_bytes + costs.parameter_bytes + costs.gradient_bytes)
    return state + held + outputs + max(training, looking)


def anatomy_of(task: Task, params: Shapes, probe: Batch) -> Anatomy:
    """Name the layers and tensors of a network in forward order; it is only traced.

    A tensor has the place of its layer; of one whose layer is not shown (positions that a network
    itself adds) that of the tensor used before it.
    """
    with fresh_trace(object()):
        layers = jax.eval_shape(lambda p, b: task.loss(p, b)[1].layers, params, probe)
        uses = first_uses(lambda p, b: task.loss(p, b)[0], params, probe)
    roles = named_leaves(task.roles)
    leaves = tuple(
        leaf_of(name, roles[name], leaf.shape, tuple(layers))
        for name, leaf in named_leaves(params).items()
    )
    return Anatomy(
        layers={name: layer.sown is not None for name, layer in layers.items()},
        leaves=leaves,
        tensors=_in_forward_order(leaves, uses, list(layers)),
        outputs=tuple(layer.output for layer in layers.values()),
    )


def make_push(
    task: Task, leaves: Sequence[Leaf]
) -> Callable[[Params, Params, Batch], list[tuple[Array, Array]]]:
    """Return the program that tells how hard the loss pushes each tensor, and how far it went."""

    def push(params: Params, before: Params, probe: Batch) -> list[tuple[Array, Array]]:
        gradients = jax.grad(lambda p: task.loss(p, probe)[0])(params)
        changes = jax.tree.map(jnp.subtract, params, before)
        trees = zip(leaves, jax.tree.leaves(gradients), jax.tree.leaves(changes), strict=True)
        return [pushed(leaf, gradient, change) for leaf, gradient, change in trees]

    return push


def references_of(leaves: Sequence[Leaf], params: Params | Shapes) -> tuple[Any, ...]:
    """Return the output leaves among params: what `look` takes beside the network's own."""
    stored = jax.tree.leaves(params)
    return tuple(array for leaf, array in zip(leaves, stored, strict=True) if leaf.output)


def number_of(step: int) -> Int[np.ndarray, " one"]:
    """Return the number of a single step, as trainings take it."""
    return np.array([step], np.int32)


def _in_forward_order(
    leaves: Sequence[Leaf], uses: Sequence[tuple[int, ...]], layers: list[str]
) -> tuple[str, ...]:
    """Return the names of all tensors in the order of their layers, then of their use.

    Stacks whose layers are not shown, if they are used together, go block by block.
    """
    places: dict[str, tuple[int, ...]] = {}
    before, began, together = -1, 0, 1
    for when, (_, leaf) in enumerate(sorted(zip(uses, leaves, strict=True), key=lambda x: x[0])):
        known = [layers.index(layer) for layer in leaf.layers if layer in layers]
        before = max(known, default=before)
        count = 1 if known else len(leaf.names)
        began = began if count == together > 1 else when
        together = count
        for number, (name, layer) in enumerate(zip(leaf.names, leaf.layers, strict=True)):
            place = layers.index(layer) if layer in layers else before
            places[name] = (place, began, number, when)
    return tuple(sorted(places, key=places.__getitem__))


def _results(compiled: Callable, mesh: Mesh | None) -> PyTree[jax.ShapeDtypeStruct]:
    """Return the shapes of a program's results, which over a mesh tell where these lie."""
    assert isinstance(compiled, jax.stages.Compiled)
    return located(compiled.out_info, None if mesh is None else compiled.output_shardings)


def _compile_tensors(
    leaves: Sequence[Leaf], params: Shapes, mesh: Mesh | None
) -> tuple[LookAtTensors, ...]:
    """Compile one program for all leaves of one shape and role; each looks at one leaf alone.

    The vectors that power iteration carries are everywhere.
    """
    at = None if mesh is None else everywhere(mesh)
    made: dict[tuple, LookAtTensors] = {}
    keys = []
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    for leaf, stored in zip(leaves, jax.tree.leaves(params), strict=True):
        role = leaf.role
        keys.append((stored.shape, stored.dtype, role.layout, len(leaf.names)))
        if keys[-1] in made:
            continue
        vectors = jax.ShapeDtypeStruct(leaf.vectors_shape, jnp.float32, sharding=at)
        program = jax.jit(functools.partial(look_at_tensors, leaf), out_shardings=(None, at))
        made[keys[-1]] = program.lower(stored, stored, vectors, scalar, count).compile()
    return tuple(made[key] for key in keys)


def _peak(programs: CheckPrograms, lane: Lane, probe: Batch, devices: int) -> int:
    """Return the most bytes in use at once: a program, and what it leaves alone but is kept."""

    def taken(compiled: Callable) -> int:
        return devices * compiled_bytes(compiled)  # which is told of one of them

    anatomy = programs.anatomy
    params, outputs = size_in_bytes(lane.state.params), size_in_bytes(anatomy.outputs)
    kept = params + size_in_bytes(probe) + outputs + _vector_bytes(anatomy.leaves)
    remembered = size_in_bytes(lane.state.optimizer_state)
    return max(
        taken(programs.start),
        taken(programs.train) + kept,
        taken(programs.look) + remembered + kept,
        taken(programs.push) + remembered + outputs,
        *(
            taken(one) + 2 * params + remembered - 2 * leaf_bytes + outputs
            for one, leaf_bytes in zip(
                programs.tensors, map(_bytes, jax.tree.leaves(lane.state.params)), strict=True
            )
        ),
    )


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return leaf.size * leaf.dtype.itemsize


def _vector_bytes(leaves: Sequence[Leaf]) -> int:
    """Return the bytes of what power iteration carries, in float32."""
    return sum(4 * math.prod(leaf.vectors_shape) for leaf in leaves)
