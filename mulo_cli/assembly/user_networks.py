"""The user's own networks in training: what `make(width)` may return, as one thing.

The contract is `docs/reference/user-code.md`.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.assembly.user_code import MakeNetwork, UserCodeError, user_code
from mulo_cli.datasets.base import Dataset
from mulo_cli.errors import UsageError, shortened
from mulo_cli.mup.roles import leaf_name
from mulo_cli.recipes.references import UserFunction
from mulo_cli.tasks.base import LOSSES, TaskAux
from mulo_cli.tasks.layers import LOGITS, Layer, Layers, watched
from mulo_cli.tasks.losses import accuracy
from mulo_cli.types import Batch, Params, PRNGKey

PAGE = "docs/reference/user-code.md"

NETWORK_CONTRACT = (
    "return a flax.linen module, (module, loss), (init, apply) or (init, apply, loss) from "
    "make(width)"
)


@dataclass(frozen=True)
class UserNetwork:
    """One network of the user's own code.

    Attributes:
        init: key -> params.
        loss: as that of a `Task`.
    """

    init: Callable[[PRNGKey], Params]
    loss: Callable[[Params, Batch], tuple[Float[Array, ""], TaskAux]]


@dataclass(frozen=True)
class _Parts:
    """What the user's function returned, taken apart.

    Attributes:
        init: (key, inputs) -> params.
        apply: (params, inputs) -> logits, layers.
        loss: (logits, targets) -> loss; None: the data set's.
    """

    init: Callable[[PRNGKey, Array], Params]
    apply: Callable[[Params, Array], tuple[Array, Layers]]
    loss: Callable[[Array, Array], Array] | None


def user_network(
    make: MakeNetwork, reference: UserFunction, dataset: Dataset, width: int, depth: int | None
) -> UserNetwork:
    """Return the user's network of a size, to be trained on a data set.

    What goes wrong in it when it is traced is one clear error.

    Raises:
        UsageError: a depth is given, and the function does not take any.
        UserCodeError: the function raises an exception, or returned something else.
    """
    with user_code(reference):
        made = make(width) if depth is None else make(width, depth=depth)
    parts = _parts(made, reference)
    example = jnp.zeros(dataset.example.shape, dataset.example.dtype)

    def init(key: PRNGKey) -> Params:
        with user_code(reference):
            params = parts.init(key, example)
        _refuse_no_params(params, reference)
        return params

    def loss(params: Params, batch: Batch) -> tuple[Float[Array, ""], TaskAux]:
        with user_code(reference):
            logits, layers = parts.apply(params, batch.inputs)
        logits = _logits(logits, batch, dataset.num_classes, reference)
        with user_code(reference):
            value = (parts.loss or LOSSES[dataset.kind])(logits, batch.targets)
        value = _scalar(value, reference)
        return value, TaskAux(accuracy(logits, batch.targets), logits, layers)

    return UserNetwork(init, loss)


def takes_depth(make: MakeNetwork) -> bool:
    """Say whether the user's function can be called with `depth=`."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except ValueError:  # written in C: nobody knows
        return True
    return any(p.name == "depth" or p.kind is p.VAR_KEYWORD for p in parameters)


def refuse_depth(make: MakeNetwork, reference: UserFunction) -> None:
    """Refuse a depth that the user's function cannot be told.

    Raises:
        UsageError: it takes none.
    """
    if not takes_depth(make):
        raise UsageError(
            f"{reference.text} cannot be told a depth: it takes no argument `depth`",
            "write it as make(width, depth=...), or leave the depth away",
        )


def _parts(made: Any, reference: UserFunction) -> _Parts:
    """Take apart what the user's function returned.

    Raises:
        UserCodeError: it is nothing of the contract.
    """
    if isinstance(made, nn.Module):
        made = (made,)
    if isinstance(made, tuple) and made and isinstance(made[0], nn.Module):
        module, *rest = made
        loss: Any = rest[0] if len(rest) == 1 and callable(rest[0]) else None
        return _Parts(_linen_init(module, reference), _linen_apply(module), loss)
    if isinstance(made, tuple) and len(made) in (2, 3) and all(map(callable, made)):
        loss = made[2] if len(made) == 3 else None
        return _Parts(_init_as_it_is_called(made[0]), _bare_apply(made[1]), loss)
    raise UserCodeError(
        f"{reference.text} returned {shortened(made)}, which is no network",
        f"it must {NETWORK_CONTRACT} ({PAGE})",
    )


def _linen_init(module: nn.Module, reference: UserFunction) -> Callable[[PRNGKey, Array], Params]:
    def init(key: PRNGKey, inputs: Array) -> Params:
        variables = module.init(key, inputs)
        others = sorted(variables.keys() - {"params", "intermediates"})
        if others:
            raise UserCodeError(
                f"{reference.text} returned a module with variables in {others[0]!r} beside its "
                "params",
                "modules with a state of their own (running means) cannot be checked; use a norm "
                "without one, such as nn.LayerNorm",
            )
        return variables.get("params", {})

    return init


def _linen_apply(module: nn.Module) -> Callable[[Params, Array], tuple[Array, Layers]]:
    return lambda params, inputs: watched(module, params, inputs)


def _init_as_it_is_called(init: Callable[..., Params]) -> Callable[[PRNGKey, Array], Params]:
    """Return init(key, x) for a function that may take a key alone."""
    try:
        inspect.signature(init).bind(None, None)
    except TypeError:
        return lambda key, inputs: init(key)
    except ValueError:  # written in C: nobody knows
        pass
    return init


def _bare_apply(
    apply: Callable[[Params, Array], Array],
) -> Callable[[Params, Array], tuple[Array, Layers]]:
    """Return a function whose only layer is its own output."""

    def with_layers(params: Params, inputs: Array) -> tuple[Array, Layers]:
        logits = apply(params, inputs)
        return logits, OrderedDict({LOGITS: Layer(logits)})

    return with_layers


def _refuse_no_params(params: Any, reference: UserFunction) -> None:
    leaves = jax.tree.leaves_with_path(params)
    wrong = [
        (path, leaf)
        for path, leaf in leaves
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating))
    ]
    if wrong or not leaves:
        what = f"{shortened(wrong[0][1])} as {leaf_name(wrong[0][0])!r}" if wrong else "nothing"
        raise UserCodeError(
            f"the init of {reference.text} returned {what} instead of parameters",
            f"params are a tree of arrays of floating-point numbers ({PAGE})",
        )


def _logits(logits: Any, batch: Batch, classes: int, reference: UserFunction) -> Array:
    """Return the logits in float32.

    Raises:
        UserCodeError: they are no logits of this batch.
    """
    wanted = (*batch.targets.shape, classes)
    shape = getattr(logits, "shape", None)
    if shape != wanted or not jnp.issubdtype(logits.dtype, jnp.floating):
        what = shortened(logits) if shape is None else f"{logits.dtype} of shape {shape}"
        raise UserCodeError(
            f"the logits of {reference.text} are {what}",
            f"for inputs of shape {batch.inputs.shape} they must be floating-point numbers of "
            f"shape {wanted}: the last axis has one for each of {classes} classes",
        )
    return logits.astype(jnp.float32)


def _scalar(value: Any, reference: UserFunction) -> Float[Array, ""]:
    """Return the loss in float32.

    Raises:
        UserCodeError: it is no scalar.
    """
    shape = getattr(value, "shape", None)
    if shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        what = shortened(value) if shape is None else f"{value.dtype} of shape {shape}"
        raise UserCodeError(
            f"the loss of {reference.text} is {what}, no floating-point number",
            "loss(logits, targets) returns a scalar: a mean over the batch, for example",
        )
    return value.astype(jnp.float32)
