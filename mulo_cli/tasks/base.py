"""The Task interface, and how a network and a data set become one."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mulo_cli.datasets.base import BatchFunction, Dataset
from mulo_cli.mup.roles import Roles, infer_roles
from mulo_cli.tasks.losses import classification_ceiling, cross_entropy
from mulo_cli.types import Batch, Data, Params, PRNGKey


class TaskAux(NamedTuple):
    """What a human may want to see of one loss evaluation; unused parts are compiled away."""

    accuracy: Float[Array, ""]
    logits: Float[Array, "B C"]
    activations: PyTree[Array]
    """What flax captured: the output of each submodule (for a dense layer its pre-activations)."""


class Task(NamedTuple):
    """Everything an inner training needs to know about what is trained.

    `data` is handed to every compiled program as a traced argument; it is kept here only so that
    nobody needs to carry it beside the task.
    """

    name: str
    roles: Roles
    data: Data
    batch: BatchFunction
    init: Callable[[PRNGKey], Params]
    loss: Callable[[Params, Batch], tuple[Float[Array, ""], TaskAux]]
    loss_ceiling: float | None


def classification_task(
    name: str,
    dataset: Dataset,
    make_network: Callable[[int], nn.Module],
    width: int,
    batch_size: int,
    split: str = "train",
) -> Task:
    """Join a data set and a network into a classification task.

    Args:
        name: how records call it.
        dataset: where batches come from.
        make_network: width -> flax module; called at two widths to infer the roles.
        width: `D` of the network to be trained.
        batch_size: examples `B` per step.
        split: which split is trained on.
    """
    network = make_network(width)

    def loss(params: Params, batch: Batch) -> tuple[Float[Array, ""], TaskAux]:
        logits, captured = network.apply(
            {"params": params}, batch.inputs, capture_intermediates=True
        )
        hits = jnp.argmax(logits, axis=-1) == batch.targets
        aux = TaskAux(jnp.mean(hits, dtype=jnp.float32), logits, captured.get("intermediates", {}))
        return cross_entropy(logits, batch.targets), aux

    return Task(
        name=name,
        roles=infer_roles(
            network_init(make_network(2 * width), dataset.input_shape),
            network_init(network, dataset.input_shape),
            readout="forward",  # ours under muP is a `Readout`; SP scales nothing
        ),
        data=dataset.splits[split],
        batch=dataset.make_batch(batch_size),
        init=network_init(network, dataset.input_shape),
        loss=loss,
        loss_ceiling=classification_ceiling(dataset.num_classes),
    )


def network_init(network: nn.Module, input_shape: tuple[int, ...]) -> Callable[[PRNGKey], Params]:
    """Return key -> params of a flax module fed with examples of the given shape."""

    def init(key: PRNGKey) -> Params:
        return network.init(key, jnp.zeros((1, *input_shape)))["params"]

    return init


def count_parameters(task: Task) -> int:
    """Return how many numbers a task trains; nothing is initialised."""
    shapes = jax.eval_shape(task.init, jax.eval_shape(lambda: jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
