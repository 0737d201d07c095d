"""small_fc_lopt: a per-parameter network of three layers that replaces Adam's update rule.

L. Metz, C. D. Freeman, J. Harrison, N. Maheswaranathan, J. Sohl-Dickstein, "Practical tradeoffs
between memory, compute, and performance in learned optimizers" (2022); under muP: B. Therien et
al., "muLO: Compute-efficient meta-generalization of learned optimizers" (2025), equation 3,
appendix A.1.1 and Table 2.
"""

import functools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mulo_cli.errors import RoleError
from mulo_cli.learned_optimizers.accumulators import (
    Accumulators,
    Decays,
    init_accumulators,
    precondition,
    preconditioner,
    update_accumulators,
)
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.features import (
    TIME_FEATURES,
    TIME_SCALES,
    FeatureGroup,
    normalised_weights,
    rsqrt,
)
from mulo_cli.mup.initializers import truncated_normal
from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import Rule, adam_like
from mulo_cli.mup.scaling import multipliers
from mulo_cli.types import Concrete, Params, PRNGKey, Theta

INITIAL_MOMENTUM_DECAYS = (0.9, 0.99, 0.999)
INITIAL_SECOND_MOMENT_DECAYS = (0.999,)
INITIAL_FACTORED_DECAYS = (0.9, 0.99, 0.999)

DECAY_SPEED = 10.0
"""A decay is 1 - (1 - decay_0) exp(10 delta): its meta-parameter delta moves on a log scale."""

SECOND_MOMENT_FLOOR = 1e-6
"""Added to v before its reciprocal root."""

FACTORED_MOMENT_FLOOR = 1e-8
"""Added to row and column moments before their reciprocal roots."""

VECTOR_GRADIENT_FLOOR = 1e-9
"""Added to an unfactored moment that preconditions the gradient."""

VECTOR_MOMENTUM_FLOOR = 1e-6
"""Added to an unfactored moment that preconditions the momenta."""

TENSOR_FEATURES = 28
NETWORK_INPUTS = TENSOR_FEATURES + len(TIME_SCALES)
ELEMENT_ROWS = (*range(13), 25, 26, 27)
ROW_ROWS = (13, 14, 15, 19, 20, 21)
COL_ROWS = (16, 17, 18, 22, 23, 24)
"""Places of the features in the published order, by whether they differ in every element, along
the rows or along the columns."""

ARITHMETIC_ELEMENTS = 1_000
"""Tensors of so many elements run the network as fused arithmetic: on a CPU 2 to 3 times faster
than matrix products with a tiny inner dimension. Smaller ones do not repay its compilation."""

ARITHMETIC_UNITS = 16
"""Hidden units up to which that holds."""

OUTPUTS = 2
"""Direction d and magnitude m."""


Inputs: TypeAlias = tuple[tuple[Float[Array, "_ H"], Float[Array, "_ ..."]], ...]
"""Per group of features: the first layer's weights, normalisation folded in, and the features."""

Outputs: TypeAlias = tuple[Float[Array, "*p"], Float[Array, "*p"]]
"""Direction d and magnitude m of every element."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SmallFcLoptConfig:
    """The static choices of small_fc_lopt; a card records every one.

    Attributes:
        hidden_size: units `H` of the two hidden layers; 32 in muLO's published runs, 4 originally.
        step_size: lambda_1 of equation 3; 0.01 for muLO (appendix C), 0.001 under SP.
        magnitude_scale: lambda_2 of equation 3.
        time_feature: "offset", tanh(t/x - 1), as published weights have it; or "plain", tanh(t/x).
        clip_gradients: clip gradients to a global norm of 1 first, as published muLO does.
    """

    hidden_size: Annotated[int, Field(gt=0)] = 32
    step_size: float = 0.01
    magnitude_scale: float = 0.001
    time_feature: Literal["offset", "plain"] = "offset"
    clip_gradients: bool = False


class SmallFcLoptState(NamedTuple):
    """What small_fc_lopt remembers of a run."""

    updates_done: Int[Array, ""]
    accumulators: PyTree
    """One `Accumulators` per parameter, in the structure of the params."""


def small_fc_lopt(config: SmallFcLoptConfig, rule: Rule = adam_like) -> LearnedOptimizer:
    """Return the learned optimizer of one configuration.

    Args:
        config: its static choices.
        rule: role -> update multiplier; `adam_like` under muP, `standard` under SP.
    """
    return LearnedOptimizer(
        init=functools.partial(init_theta, hidden_size=config.hidden_size),
        build=functools.partial(_build, config, rule),
    )


def init_theta(key: PRNGKey, hidden_size: int) -> Theta:
    """Draw initial meta-parameters; leaf names and shapes are those of published weights.

    Args:
        key: consumed.
        hidden_size: `H`; theta has 2 409 numbers for 32, 197 for 4.
    """
    sizes = (NETWORK_INPUTS, hidden_size, hidden_size, OUTPUTS)
    network = {}
    for layer, key_layer in enumerate(jax.random.split(key, 3)):
        shape = sizes[layer : layer + 2]
        network[f"w{layer}"] = truncated_normal(key_layer, shape, fan_in=shape[0])
        network[f"b{layer}"] = jnp.zeros(shape[1])
    return {
        "momentum_decays": jnp.zeros(3),
        "rms_decays": jnp.zeros(1),
        "adafactor_decays": jnp.zeros(3),
        "nn": network,
    }


def decays_of(theta: Theta) -> Decays:
    """Return the decays that theta stands for; second moments' are clipped to [0, 1]."""

    def decay(initial: tuple[float, ...], delta: Float[Concrete, " S"]) -> Array:
        return 1.0 - (1.0 - jnp.array(initial, jnp.float32)) * jnp.exp(DECAY_SPEED * delta)

    return Decays(
        momentum=decay(INITIAL_MOMENTUM_DECAYS, theta["momentum_decays"]),
        second_moment=decay(INITIAL_SECOND_MOMENT_DECAYS, theta["rms_decays"]).clip(0.0, 1.0),
        factored=decay(INITIAL_FACTORED_DECAYS, theta["adafactor_decays"]).clip(0.0, 1.0),
    )


def feature_groups(
    gradient: Float[Array, "*p"], parameter: Float[Array, "*p"], accumulators: Accumulators
) -> tuple[FeatureGroup, ...]:
    """Return the 28 features of one tensor before normalisation, by the shape they have."""
    momentum, second_moment, row, col = accumulators
    col = row if col is None else col
    inverse_root = rsqrt(second_moment + SECOND_MOMENT_FLOOR)
    for_gradient = preconditioner(accumulators, VECTOR_GRADIENT_FLOOR)
    for_momentum = preconditioner(accumulators, VECTOR_MOMENTUM_FLOOR)
    by_element = [
        gradient[None],
        parameter[None],
        momentum,
        second_moment[None],
        momentum * inverse_root,
        inverse_root[None],
        precondition(gradient[None], for_gradient),
        precondition(momentum, for_momentum),
    ]
    return (
        FeatureGroup(ELEMENT_ROWS, jnp.concatenate(by_element)),
        FeatureGroup(ROW_ROWS, jnp.concatenate([row, rsqrt(row + FACTORED_MOMENT_FLOOR)])),
        FeatureGroup(COL_ROWS, jnp.concatenate([col, rsqrt(col + FACTORED_MOMENT_FLOOR)])),
    )


def network_outputs(
    theta: Theta, groups: tuple[FeatureGroup, ...], time_features: Float[Array, "11"]
) -> Outputs:
    """Run the network 39 -> H -> H -> 2 on every element of a tensor.

    The normalisation of features is folded into the first layer's weights, and the time features,
    equal for all elements, into its biases.

    Returns:
        direction d and magnitude m.
    """
    network = theta["nn"]
    w_tensor, w_time = jnp.split(network["w0"], [TENSOR_FEATURES])
    bias = network["b0"] + time_features @ w_time
    inputs = tuple((normalised_weights(group, w_tensor), group.values) for group in groups)
    elements = math.prod(groups[0].values.shape[1:])
    fused = elements >= ARITHMETIC_ELEMENTS and bias.size <= ARITHMETIC_UNITS
    return (_by_arithmetic if fused else _by_products)(network, inputs, bias)


def clean_gradients(gradients: Params, *, clip: bool) -> Params:
    """Replace non-finite entries by 0; then, if asked, clip to a global norm of 1."""
    gradients = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), gradients)
    if not clip:
        return gradients
    factor = 1.0 / jnp.maximum(1.0, optax.tree.norm(gradients))
    return jax.tree.map(lambda g: factor * g, gradients)


def _by_products(network: Theta, inputs: Inputs, bias: Float[Array, " H"]) -> Outputs:
    """Run the network as matrix products over all elements."""
    hidden = _column(bias, inputs[0][1].ndim - 1)
    for weights, values in inputs:
        hidden = hidden + _product(weights, values)
    hidden = jax.nn.relu(hidden)
    for layer, activation in (("1", jax.nn.relu), ("2", lambda x: x)):
        sums = _product(network[f"w{layer}"], hidden)
        hidden = activation(sums + _column(network[f"b{layer}"], hidden.ndim - 1))
    direction, magnitude = hidden
    return direction, magnitude


def _by_arithmetic(network: Theta, inputs: Inputs, bias: Float[Array, " H"]) -> Outputs:
    """Run the network unit by unit: the compiler makes one loop over the elements of it."""
    hidden = [jax.nn.relu(unit) for unit in _units(inputs, bias)]
    hidden = [jax.nn.relu(unit) for unit in _units(((network["w1"], hidden),), network["b1"])]
    direction, magnitude = _units(((network["w2"], hidden),), network["b2"])
    return direction, magnitude


def _product(weights: Float[Array, "F H"], x: Float[Array, "F *p"]) -> Float[Array, "H *p"]:
    return jnp.einsum("fh,f...->h...", weights, x)


def _units(
    inputs: Sequence[tuple[Float[Array, "_ H"], Sequence[Array] | Array]],
    bias: Float[Array, " H"],
) -> list[Float[Array, "*p"]]:
    """Return the sums of one layer, one array per unit; what repeats is summed unrepeated."""
    return [
        bias[unit]
        + sum(sum(weights[i, unit] * x for i, x in enumerate(values)) for weights, values in inputs)
        for unit in range(bias.size)
    ]


def _column(bias: Float[Array, " H"], axes: int) -> Float[Array, "H ..."]:
    return bias.reshape(-1, *(1,) * axes)


def _build(
    config: SmallFcLoptConfig, rule: Rule, theta: Theta, roles: Roles, num_steps: Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    del num_steps  # only VeLO looks at the horizon
    _refuse_stacked(roles)
    decays = decays_of(theta)
    factors = multipliers(roles, rule)

    def init(params: Params) -> SmallFcLoptState:
        accumulators = jax.tree.map(lambda p: init_accumulators(p.shape or (1,)), params)
        return SmallFcLoptState(jnp.zeros((), jnp.int32), accumulators)

    def update_tensor(
        factor: float, g: Array, p: Array, old: Accumulators, time: Array
    ) -> _TensorUpdate:
        shape = p.shape or (1,)
        gradient, parameter = g.reshape(shape), p.reshape(shape)
        new = update_accumulators(old, decays, gradient)
        groups = feature_groups(gradient, parameter, new)
        direction, magnitude = network_outputs(theta, groups, time)
        step = direction * jnp.exp(config.magnitude_scale * magnitude)
        return _TensorUpdate((-factor * config.step_size * step).reshape(p.shape), new)

    def update(
        updates: Params, state: optax.OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SmallFcLoptState]:
        del extra  # the loss is offered to every optimizer; this one ignores it
        state = cast(SmallFcLoptState, state)
        gradients = clean_gradients(updates, clip=config.clip_gradients)
        time = TIME_FEATURES[config.time_feature](state.updates_done)
        both = jax.tree.map(
            lambda *leaves: update_tensor(*leaves, time=time),
            factors,
            gradients,
            params,
            state.accumulators,
        )
        new_state = SmallFcLoptState(state.updates_done + 1, _pick(both, "accumulators"))
        return _pick(both, "update"), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _refuse_stacked(roles: Roles) -> None:
    if any(role.stack_axes for role in jax.tree.leaves(roles)):
        raise RoleError(
            "small_fc_lopt cannot yet tell layers apart that are stacked into one parameter",
            "keep one parameter per layer",
        )


class _TensorUpdate(NamedTuple):
    update: Float[Array, "*p"]
    accumulators: Accumulators


def _pick(tree: PyTree, field: str) -> PyTree:
    """Return one field of every `_TensorUpdate` in a tree."""
    return jax.tree.map(
        lambda leaf: getattr(leaf, field), tree, is_leaf=lambda n: isinstance(n, _TensorUpdate)
    )
