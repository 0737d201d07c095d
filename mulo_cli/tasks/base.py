"""The Task interface, and how a network and a data set become one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.datasets.base import BatchFunction, Dataset
from mulo_cli.errors import UsageError
from mulo_cli.mup.roles import ParamRole, Roles, infer_roles, leaf_name
from mulo_cli.tasks.layers import Layers, watched
from mulo_cli.tasks.losses import (
    accuracy,
    classification_ceiling,
    cross_entropy,
    next_token_cross_entropy,
)
from mulo_cli.types import Batch, Data, Hyper, Params, PRNGKey

LOSSES = {"images": cross_entropy, "text": next_token_cross_entropy}
"""The loss by the kind of the data set."""

MULTIPLIERS = ("input_mult", "output_mult")
"""Hyper-parameters of a training that are the network's; muLO (2024), B.1, tunes them."""


class TaskAux(NamedTuple):
    """What a human may want to see of one loss evaluation; unused parts are compiled away."""

    accuracy: Float[Array, ""]
    logits: Float[Array, "*B C"]
    layers: Layers
    """What each layer read and put out (a dense layer: its pre-activations), in forward order."""


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
    test_batch: BatchFunction | None = None
    """What batches of the test split are made by, where that is not `batch`."""

    under_multipliers: "Callable[[Mapping[str, Any]], Task] | None" = None
    """The same task whose network has these values of `MULTIPLIERS`; they may be traced."""


def supervised_task(
    name: str,
    dataset: Dataset,
    make_network: Callable[[int], nn.Module],
    width: int,
    batch_size: int,
    split: str = "train",
) -> Task:
    """Join a data set and a network: classify images, or tell the next token of a text.

    Args:
        name: how records call it.
        dataset: where batches come from.
        make_network: width -> flax module; called at two widths to infer the roles.
        width: `D` of the network to be trained.
        batch_size: examples `B` per step.
        split: which split is trained on.
    """
    network = make_network(width)
    roles = infer_roles(
        network_init(make_network(2 * width), dataset.example),
        network_init(network, dataset.example),
        # ours under muP is a `Readout`; SP scales nothing
        readout="update" if getattr(network, "parametrization", "") == "spectral" else "forward",
    )
    task = Task(
        name=name,
        roles=with_update_multipliers(roles, getattr(network, "update_multipliers", {})),
        data=dataset.splits[split],
        batch=dataset.make_batch(batch_size),
        init=network_init(network, dataset.example),
        loss=network_loss(network, dataset),
        loss_ceiling=classification_ceiling(dataset.num_classes),
        test_batch=dataset.make_test_batch and dataset.make_test_batch(batch_size),
    )
    if not takes_multipliers(network):
        return task

    def under_multipliers(values: Mapping[str, Any]) -> Task:
        return task._replace(loss=network_loss(network.clone(**values), dataset))

    return task._replace(under_multipliers=under_multipliers)


def network_loss(
    network: nn.Module, dataset: Dataset
) -> Callable[[Params, Batch], tuple[Float[Array, ""], TaskAux]]:
    """Return the loss of a network on batches of a data set, with what it computes on the way."""
    loss_of = LOSSES[dataset.kind]

    def loss(params: Params, batch: Batch) -> tuple[Float[Array, ""], TaskAux]:
        logits, layers = watched(network, params, batch.inputs)
        aux = TaskAux(accuracy(logits, batch.targets), logits, layers)
        return loss_of(logits, batch.targets), aux

    return loss


def takes_multipliers(network: nn.Module) -> bool:
    """Whether a network has fields named as `MULTIPLIERS`."""
    return all(hasattr(network, name) for name in MULTIPLIERS)


def task_under(task: Task, hyper: Hyper) -> Task:
    """Return the task that a training with these hyper-parameters trains.

    Raises:
        UsageError: there are multipliers among them, and its network has none.
    """
    names = hyper.keys() if isinstance(hyper, Mapping) else ()
    given = {name: hyper[name] for name in MULTIPLIERS if name in names}
    if not given:
        return task
    if task.under_multipliers is None:
        raise UsageError(
            f"the network of {task.name} has no {' and '.join(given)}",
            "mlp, vit, lm and gpt have them; give other networks fields of these names",
        )
    return task.under_multipliers(given)


def network_init(network: nn.Module, example: jax.ShapeDtypeStruct) -> Callable[[PRNGKey], Params]:
    """Return key -> params of a flax module fed with batches like the example."""

    def init(key: PRNGKey) -> Params:
        return network.init(key, jnp.zeros(example.shape, example.dtype))["params"]

    return init


def with_update_multipliers(roles: Roles, multipliers: Mapping[str, float]) -> Roles:
    """Return roles with what a network asks for parts of it, beside muP's own multipliers.

    Args:
        roles: of a network.
        multipliers: name of a part, as it begins the paths of its leaves -> factor.
    """

    def of_leaf(path: tuple, role: ParamRole) -> ParamRole:
        top = leaf_name(path).split("/")[0]
        for part, factor in multipliers.items():
            if top == part or top.startswith(f"{part}_"):
                return dataclasses.replace(role, update_multiplier=factor)
        return role

    return jax.tree.map_with_path(of_leaf, roles, is_leaf=lambda x: isinstance(x, ParamRole))


def count_parameters(task: Task) -> int:
    """Return how many numbers a task trains; nothing is initialised."""
    shapes = jax.eval_shape(task.init, jax.eval_shape(lambda: jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
