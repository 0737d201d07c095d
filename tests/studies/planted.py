"""Mistakes that depend on width or depth, planted one at a time in networks that have none.

A coordinate check must fail each of them and name its layer. They are planted where people make
them: in an initialisation, in a factor of the forward pass, in the update of one tensor, in decay.
The network, its roles and the optimizer are ours and right but for the mistake.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mulo_cli.mup.kinds import ParamRole, leaf_name
from mulo_cli.optimizees import transformer_lm, vit
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.types import Batch, Params, PRNGKey

Trained: TypeAlias = tuple[EvaluationTask, NamedOptimizer]
Plant: TypeAlias = Callable[[EvaluationTask, NamedOptimizer, int], Trained]
"""(task, optimizer, size) -> both with the mistake; size is what varies: width, or depth."""


@dataclass(frozen=True)
class Mistake:
    """A mistake and where it is.

    Attributes:
        name: what somebody got wrong.
        layer: the layer that the check must name; a stack's layers are `blocks_0`, `blocks_1` ...
        plant: makes it.
        tensor: the tensor that it must name; empty where the mistake is in no tensor.
        optimizer: what trains; `muadam` unless the mistake needs another.
    """

    name: str
    layer: str
    plant: Plant
    tensor: str = ""
    optimizer: str = "muadam:learning_rate=0.03,eps=1e-15"


# --------------------------------------------------------------------------------------------------
# ways to plant


def moving(part: str, power: float) -> Plant:
    """Multiply the updates of one leaf, or of all leaves of a module, by size^power."""

    def plant(task: EvaluationTask, optimizer: NamedOptimizer, size: int) -> Trained:
        factor = float(size) ** power

        def scale(updates: Params) -> Params:
            return jax.tree.map_with_path(
                lambda path, u: factor * u if _is_of(leaf_name(path), part) else u, updates
            )

        def make(hyper: Any, roles: Any, num_steps: Any) -> optax.GradientTransformationExtraArgs:
            made = optimizer.make(hyper, roles, num_steps)
            return optax.chain(made, optax.stateless(lambda updates, _: scale(updates)))

        _need(task, part)
        return task, dataclasses.replace(optimizer, make=make)

    return plant


def starting(leaf: str, power: float) -> Plant:
    """Multiply one leaf by size^power when it is born."""
    return _born(leaf, lambda key, value, size: value * float(size) ** power)


def starting_random(leaf: str, power: float) -> Plant:
    """Let one leaf start at N(0, size^(2 power)); for those that start at zero."""
    return _born(
        leaf,
        lambda key, value, size: float(size) ** power * jax.random.normal(key, value.shape),
    )


def put_out(modules: tuple[str, ...], power: float) -> Plant:
    """Multiply what some modules put out by size^power, inside of them."""
    return _intercepted(modules, lambda call, args, factor: factor * call(*args), power)


def read(module: str, power: float) -> Plant:
    """Multiply what a module reads by size^power: the mistake is before it."""
    return _intercepted(
        (module,), lambda call, args, factor: call(factor * args[0], *args[1:]), power
    )


def nothing(task: EvaluationTask, optimizer: NamedOptimizer, size: int) -> Trained:
    """Plant nothing."""
    return task, optimizer


def decaying(power: float) -> Plant:
    """Multiply the decay by size^power."""

    def plant(task: EvaluationTask, optimizer: NamedOptimizer, size: int) -> Trained:
        hyper = dict(optimizer.hyper)
        hyper["weight_decay"] = hyper["weight_decay"] * float(size) ** power
        return task, dataclasses.replace(optimizer, hyper=hyper)

    return plant


def attention_power(power: float) -> Plant:
    """Divide attention scores by another power of the head size."""

    def plant(task: EvaluationTask, optimizer: NamedOptimizer, size: int) -> Trained:
        @contextmanager
        def patched():
            with (
                mock.patch.object(
                    transformer_lm,
                    "MUP",
                    dataclasses.replace(transformer_lm.MUP, attention_power=power),
                ),
                mock.patch.object(vit, "MUP", dataclasses.replace(vit.MUP, attention_power=power)),
            ):
                yield

        return _under(task, patched), optimizer

    return plant


def both_readout_forms(task: EvaluationTask, optimizer: NamedOptimizer, size: int) -> Trained:
    """Tell the optimizer that the network does not divide the readout's product, which it does."""

    def twice(path: tuple, role: ParamRole) -> ParamRole:
        if leaf_name(path) != "readout/kernel":
            return role
        return dataclasses.replace(role, forward_multiplier=False)

    roles = jax.tree.map_with_path(
        twice, task.task.roles, is_leaf=lambda x: isinstance(x, ParamRole)
    )
    return dataclasses.replace(task, task=task.task._replace(roles=roles)), optimizer


def _is_of(leaf: str, part: str) -> bool:
    return leaf == part or leaf.startswith(f"{part}/")


def _need(task: EvaluationTask, part: str) -> None:
    """Refuse a plant that would change nothing."""
    shapes = jax.eval_shape(task.task.init, jax.random.key(0))
    names = [leaf_name(path) for path, _ in jax.tree.leaves_with_path(shapes)]
    assert any(_is_of(name, part) for name in names), f"{part} is none of {names}"


def _born(leaf: str, change: Callable[[PRNGKey, jax.Array, int], jax.Array]) -> Plant:
    def plant(task: EvaluationTask, optimizer: NamedOptimizer, size: int) -> Trained:
        def init(key: PRNGKey) -> Params:
            key_other = jax.random.fold_in(key, 1)
            return jax.tree.map_with_path(
                lambda path, x: change(key_other, x, size) if leaf_name(path) == leaf else x,
                task.task.init(key),
            )

        _need(task, leaf)
        return dataclasses.replace(task, task=task.task._replace(init=init)), optimizer

    return plant


def _intercepted(names: tuple[str, ...], change: Callable, power: float) -> Plant:
    def plant(task: EvaluationTask, optimizer: NamedOptimizer, size: int) -> Trained:
        factor = float(size) ** power

        def interceptor(
            call: Callable, args: tuple, kwargs: Mapping, context: nn.module.InterceptorContext
        ) -> Any:
            if context.method_name == "__call__" and "/".join(context.module.path) in names:
                return change(functools.partial(call, **kwargs), args, jnp.float32(factor))
            return call(*args, **kwargs)

        return _under(task, functools.partial(nn.intercept_methods, interceptor)), optimizer

    return plant


def _under(task: EvaluationTask, context: Callable) -> EvaluationTask:
    """Return a task that is initialised and traced inside of a context."""

    def init(key: PRNGKey) -> Params:
        with context():
            return task.task.init(key)

    def loss(params: Params, batch: Batch) -> Any:
        with context():
            return task.task.loss(params, batch)

    return dataclasses.replace(task, task=task.task._replace(init=init, loss=loss))


# --------------------------------------------------------------------------------------------------
# the mistakes

DECAY = "adamw:learning_rate=0.03,eps=1e-15,weight_decay=0.3,parametrization=mup"

IN_MLP = (
    Mistake("hidden factor missing", "hidden_0", moving("hidden_0/kernel", 1), "hidden_0/kernel"),
    Mistake("hidden factor squared", "hidden_1", moving("hidden_1/kernel", -1), "hidden_1/kernel"),
    Mistake("input treated as hidden", "input", moving("input/kernel", -1), "input/kernel"),
    Mistake("readout factor missing", "readout", put_out(("readout",), 1), "readout/kernel"),
    Mistake("readout factor doubled", "readout", put_out(("readout",), -1), "readout/kernel"),
    Mistake("readout forms both applied", "readout", both_readout_forms, "readout/kernel"),
    Mistake("readout update times width", "readout", moving("readout/kernel", 1), "readout/kernel"),
    Mistake("input starts like 1/fan_out", "input", starting("input/kernel", -0.5), "input/kernel"),
    Mistake("hidden starts at N(0, 1)", "hidden_0", starting("hidden_0/kernel", 0.5),
            "hidden_0/kernel"),
    Mistake("hidden starts at N(0, 1/n^2)", "hidden_1", starting("hidden_1/kernel", -0.5),
            "hidden_1/kernel"),
    Mistake("readout starts at N(0, n)", "readout", starting_random("readout/kernel", 0.5),
            "readout/kernel"),
    Mistake("readout starts at N(0, 1/n)", "readout", starting_random("readout/kernel", -0.5),
            "readout/kernel"),
    Mistake("hidden bias treated as hidden", "hidden_1", moving("hidden_1/bias", -1),
            "hidden_1/bias"),
    Mistake("input bias times width", "input", moving("input/bias", 1), "input/bias"),
    Mistake("bias starts at N(0, n)", "hidden_0", starting("hidden_0/bias", 0.5), "hidden_0/bias"),
    Mistake("features times root of width", "hidden_0", put_out(("hidden_0",), 0.5)),
    Mistake("input features times root of width", "input", read("hidden_0", 0.5)),
    Mistake("decay times width", "input", decaying(1), "input/kernel", DECAY),
    Mistake("decay over width", "input", decaying(-1), "input/kernel", DECAY),
)  # fmt: skip
"""In an MLP of depth 3."""

IN_TRANSFORMERS = (
    Mistake("attention over root of head size", "blocks_0/attention", attention_power(0.5)),
    Mistake("attention not divided", "blocks_0/attention", attention_power(0.0)),
    Mistake("query factor missing", "blocks_0/attention/query",
            moving("blocks/attention/query/kernel", 1), "blocks_0/attention/query/kernel"),
    Mistake("value starts at N(0, 1)", "blocks_0/attention/value",
            starting("blocks/attention/value/kernel", 0.5), "blocks_0/attention/value/kernel"),
    Mistake("down factor squared", "blocks_0/down", moving("blocks/down/kernel", -1),
            "blocks_0/down/kernel"),
    Mistake("up starts like 1/n^2", "blocks_0/up", starting("blocks/up/kernel", -0.5),
            "blocks_0/up/kernel"),
    Mistake("norm gain treated as hidden", "blocks_0/norm_1", moving("blocks/norm_1/scale", -1),
            "blocks_0/norm_1/scale"),
    Mistake("bias of value treated as hidden", "blocks_0/attention/value",
            moving("blocks/attention/value/bias", -1), "blocks_0/attention/value/bias"),
    Mistake("embedding times root of width", "embed", put_out(("embed",), 0.5)),
    Mistake("stream times root of width", "embed", read("blocks", 0.5)),
    Mistake("readout factor missing", "readout", put_out(("readout",), 1), "readout/kernel"),
    Mistake("readout forms both applied", "readout", both_readout_forms, "readout/kernel"),
)  # fmt: skip
"""In transformers of depth 2 whose number of heads is fixed."""

IN_LM = (
    *IN_TRANSFORMERS,
    Mistake("embedding treated as hidden", "embed", moving("embed/embedding", -1),
            "embed/embedding"),
    Mistake("embedding starts at N(0, n)", "embed", starting("embed/embedding", 0.5),
            "embed/embedding"),
)  # fmt: skip

IN_VIT = (
    *IN_TRANSFORMERS,
    Mistake("patches treated as hidden", "embed", moving("embed/kernel", -1), "embed/kernel"),
    Mistake("patches start like 1/fan_out", "embed", starting("embed/kernel", -0.5),
            "embed/kernel"),
)  # fmt: skip

BRANCHES = ("blocks/attention", "blocks/down")
"""What blocks add to the stream."""

IN_DEPTH = (
    Mistake("branches not scaled", "blocks", put_out(BRANCHES, 0.5)),
    Mistake("branches over depth", "blocks", put_out(BRANCHES, -0.5)),
    Mistake("updates of blocks not scaled", "blocks", moving("blocks", 0.5)),
    Mistake("updates of blocks scaled twice", "blocks", moving("blocks", -0.5)),
    Mistake("embedding's update times depth", "embed", moving("embed/embedding", 1),
            "embed/embedding"),
    Mistake("readout's update over depth", "readout", moving("readout/kernel", -1),
            "readout/kernel"),
)  # fmt: skip
"""In a language model of one width with depth scaling of power 1/2."""

BY_NETWORK = {"mlp": IN_MLP, "vit": IN_VIT, "lm": IN_LM}
BY_DEPTH = {"lm-depth": IN_DEPTH}

OPTIMIZERS = (
    "muadam:learning_rate=0.03,eps=1e-15",
    "adamw:learning_rate=0.03,eps=1e-15,weight_decay=0.1,parametrization=mup",
    "adopt:learning_rate=0.03,eps=1e-15,parametrization=mup",
    "lamb:learning_rate=0.03,eps=1e-15,parametrization=mup",
    "sophia:learning_rate=0.03,eps=1e-15,parametrization=mup",
    "sgd:learning_rate=0.1,parametrization=mup",
    "muon:learning_rate=0.03,eps=1e-15,parametrization=mup",
)
"""With which a right network must pass."""

RIGHT = {
    network: tuple(
        Mistake("", "", nothing, optimizer=one)
        for one in OPTIMIZERS
        if network == "mlp" or not one.startswith("sgd")
    )
    for network in BY_NETWORK
} | {network: (Mistake("", "", nothing),) for network in ("lm-depth", "lm-depth-1")}
"""Networks without any mistake; queries and keys of transformers fall behind under SGD, which no
factor mends (`docs/explanation/optimizers-under-mup.md`)."""
