"""A network in training that is spread over devices: who has what of it.

One mesh of one axis. Parameters, and what an optimizer remembers of the same shape, are cut along
one of their axes, batches along their examples; small things are everywhere. Programs stay what
they are on one device: the compiler cuts them up and says what has to be sent.

S. Rajbhandari et al., "ZeRO: Memory optimizations toward training trillion parameter models" (2020)
divides optimizers and parameters among devices that divide a batch.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from mulo_cli.datasets.base import BatchFunction
from mulo_cli.learned_optimizers.parts import PARTS, part_axis, part_spec
from mulo_cli.tasks.base import Task, TaskAux
from mulo_cli.types import Batch, Data, Params, PRNGKey


def mesh_of(devices: Sequence[object]) -> Mesh:
    """Return devices (of jax) in a row, for tensors to be spread over."""
    return Mesh(np.array(devices), (PARTS,))


def within(mesh: Mesh | None) -> AbstractContextManager:
    """Return where programs are traced that shall be spread over a mesh; None: on one device."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def everywhere(mesh: Mesh) -> NamedSharding:
    """Return where that lies of which every device has all."""
    return NamedSharding(mesh, PartitionSpec())


def placed(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Return a tree of which every device has all; on one device it stays as it is."""
    return tree if mesh is None else jax.device_put(tree, everywhere(mesh))


def shardings(tree: PyTree, mesh: Mesh | None, *, lanes: int = 0) -> PyTree[NamedSharding] | None:
    """Return where each array of a tree lies; its shape alone decides.

    Args:
        tree: of arrays, or of shapes: params, or what an optimizer remembers.
        mesh: of `mesh_of`; None: on one device, and nothing is said of where.
        lanes: axes in front of the arrays' own.
    """
    if mesh is None:
        return None

    def of(leaf: Array | jax.ShapeDtypeStruct) -> NamedSharding:
        axis = part_axis(leaf.shape[lanes:], mesh.shape[PARTS])
        return NamedSharding(mesh, part_spec(leaf.shape, axis))

    return jax.tree.map(of, tree)


def located(
    tree: PyTree[jax.ShapeDtypeStruct], where: PyTree[NamedSharding] | None
) -> PyTree[jax.ShapeDtypeStruct]:
    """Return shapes that say where their arrays lie, for programs to be compiled for."""
    if where is None:
        return tree
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), tree, where
    )


def spread_task(task: Task, mesh: Mesh) -> Task:
    """Return the same task whose batches, parameters and gradients are spread over a mesh.

    A loss is computed with whole parameters, which are sent together for it, on each device's own
    examples. Left to itself the compiler would cut the layers of a transformer along what its
    parameters are cut along, and send activations instead: 50 times as much, for width 128.
    """

    def spread(params: Params) -> Params:
        return jax.lax.with_sharding_constraint(params, shardings(params, mesh))

    def loss(params: Params, batch: Batch) -> tuple[Float[Array, ""], TaskAux]:
        # gradients, the transpose of this, are added up for whole parameters and then cut
        whole = jax.lax.with_sharding_constraint(spread(params), everywhere(mesh))
        return task.loss(whole, batch)

    of_values = task.under_multipliers
    return task._replace(
        data=placed(task.data, mesh),
        batch=_spread_batches(task.batch, mesh),
        init=lambda key: spread(task.init(key)),
        loss=loss,
        test_batch=task.test_batch and _spread_batches(task.test_batch, mesh),
        under_multipliers=of_values and (lambda values: spread_task(of_values(values), mesh)),
    )


def _spread_batches(make_batch: BatchFunction, mesh: Mesh) -> BatchFunction:
    """Return what makes the same batches, each device a part of the examples."""

    def where(leaf: Array) -> NamedSharding:
        even = leaf.ndim > 0 and leaf.shape[0] % mesh.shape[PARTS] == 0
        return NamedSharding(mesh, PartitionSpec(PARTS) if even else PartitionSpec())

    def batch(data: Data, key: PRNGKey, step: Array) -> Batch:
        made = make_batch(data, key, step)
        return jax.lax.with_sharding_constraint(made, jax.tree.map(where, made))

    return batch
