"""small_fc_lopt: a per-parameter network of three layers that replaces Adam's update rule.

L. Metz, C. D. Freeman, J. Harrison, N. Maheswaranathan, J. Sohl-Dickstein, "Practical tradeoffs
between memory, compute, and performance in learned optimizers" (2022); under muP: B. Therien et
al., "muLO: Compute-efficient meta-generalization of learned optimizers" (2025), equation 3,
appendix A.1.1 and Table 2.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mulo_cli.learned_optimizers.accumulators import Decays
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.features import (
    SECOND_MOMENT_FLOOR,
    TIME_FEATURES,
    TIME_SCALES,
    Elements,
    FeatureGroup,
    moment_group,
    roots_of,
    rsqrt,
)
from mulo_cli.learned_optimizers.network import Network
from mulo_cli.learned_optimizers.tensor_update import UpdateRule, update_tensor
from mulo_cli.learned_optimizers.tensors import (
    init_all,
    roles_of,
    update_all,
    update_multiplier,
)
from mulo_cli.mup.initializers import truncated_normal
from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import Rule, adam_like
from mulo_cli.types import Concrete, Params, PRNGKey, Theta

INITIAL_MOMENTUM_DECAYS = (0.9, 0.99, 0.999)
INITIAL_SECOND_MOMENT_DECAYS = (0.999,)
INITIAL_FACTORED_DECAYS = (0.9, 0.99, 0.999)

DECAY_SPEED = 10.0
"""A decay is 1 - (1 - decay_0) exp(10 delta): its meta-parameter delta moves on a log scale."""

VECTOR_MOMENTUM_FLOOR = 1e-6
"""Added to an unfactored moment that preconditions the momenta."""

TENSOR_FEATURES = 28
NETWORK_INPUTS = TENSOR_FEATURES + len(TIME_SCALES)
ELEMENT_ROWS = (*range(13), 25, 26, 27)
ROW_ROWS = (13, 14, 15, 19, 20, 21)
COL_ROWS = (16, 17, 18, 22, 23, 24)
"""Places of the features in the published order, by whether they differ in every element, along
the rows or along the columns."""

OUTPUTS = 2
"""Direction d and magnitude m."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SmallFcLoptConfig:
    """The static choices of small_fc_lopt; a card records every one.

    Attributes:
        hidden_size: units `H` of the two hidden layers; 32 in muLO's published runs, 4 originally.
        step_size: lambda_1 of equation 3; 0.01 for muLO (appendix C), 0.001 under SP.
        magnitude_scale: lambda_2 of equation 3.
        time_feature: "offset", tanh(t/x - 1), as published weights have it; or "plain", tanh(t/x).
        clip_gradients: clip gradients to a global norm of 1 first, as published muLO does.
        base_fan_in: 1 makes update multipliers absolute, muLO's 1/fan_in; another number makes
            them relative to a network of that fan-in, as microsoft/mup and PyLO have them.
    """

    hidden_size: Annotated[int, Field(gt=0)] = 32
    step_size: float = 0.01
    magnitude_scale: float = 0.001
    time_feature: Literal["offset", "plain"] = "offset"
    clip_gradients: bool = False
    base_fan_in: Annotated[int, Field(gt=0)] = 1


class SmallFcLoptState(NamedTuple):
    """What small_fc_lopt remembers of a run."""

    updates_done: Int[Array, ""]
    accumulators: PyTree
    """`Accumulators` of every parameter by name; those of stacked layers have a leading axis."""


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


def features(elements: Elements) -> tuple[FeatureGroup, ...]:
    """Return the 28 features of one tensor before normalisation, by the shape they have."""
    gradient, parameter, (momenta, second_moment, _), _ = elements
    roots = roots_of(elements, VECTOR_MOMENTUM_FLOOR)
    inverse_root = rsqrt(second_moment + SECOND_MOMENT_FLOOR)
    by_element = (
        gradient,
        parameter.astype(jnp.float32),
        *momenta,
        second_moment,
        *(momentum * inverse_root for momentum in momenta),
        inverse_root,
        *(gradient * root for root in roots.for_gradient),
        *(momentum * root for momentum, root in zip(momenta, roots.for_momentum, strict=True)),
    )
    return (
        FeatureGroup(ELEMENT_ROWS, by_element),
        moment_group(ROW_ROWS, roots.row),
        moment_group(COL_ROWS, roots.col),
    )


def network_of(theta: Theta, time_features: Float[Array, "11"]) -> Network:
    """Return the network of all tensors; time, equal for all elements, is part of its biases."""
    weights = theta["nn"]
    w_tensor, w_time = jnp.split(weights["w0"], [TENSOR_FEATURES])
    return Network(
        w0=w_tensor,
        b0=weights["b0"] + time_features @ w_time,
        w1=weights["w1"],
        b1=weights["b1"],
        w2=weights["w2"],
        b2=weights["b2"],
    )


def cleaner(gradients: Params, *, clip: bool) -> Callable[[Array], Float[Array, "..."]]:
    """Return what replaces non-finite entries by 0, in float32; if asked, it also clips.

    Args:
        gradients: of all tensors.
        clip: to a global norm of 1, of the finite entries.
    """

    def finite(gradient: Array) -> Float[Array, "..."]:
        return jnp.where(jnp.isfinite(gradient), gradient, 0.0).astype(jnp.float32)

    if not clip:
        return finite
    norm = optax.tree.norm(jax.tree.map(finite, gradients))
    factor = 1.0 / jnp.maximum(1.0, norm)
    return lambda gradient: factor * finite(gradient)


def _build(
    config: SmallFcLoptConfig, rule: Rule, theta: Theta, roles: Roles, num_steps: Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    del num_steps  # only VeLO looks at the horizon
    decays = decays_of(theta)

    def init(params: Params) -> SmallFcLoptState:
        return SmallFcLoptState(jnp.zeros((), jnp.int32), init_all(params, roles_of(params, roles)))

    def update(
        updates: Params, state: optax.OptState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, SmallFcLoptState]:
        del extra  # the loss is offered to every optimizer; this one ignores it
        state = cast(SmallFcLoptState, state)
        time_features = TIME_FEATURES[config.time_feature](state.updates_done)
        network = network_of(theta, time_features)
        clean = cleaner(updates, clip=config.clip_gradients)
        update_rule = UpdateRule(clean, features, decays, config.magnitude_scale)

        steps, accumulators = update_all(
            lambda gradient, parameter, old: update_tensor(
                update_rule, gradient, parameter, old, network
            ),
            lambda role: -config.step_size * update_multiplier(role, rule, config.base_fan_in),
            roles_of(params, roles),
            updates,
            params,
            state.accumulators,
            own={},
        )
        return steps, SmallFcLoptState(state.updates_done + 1, accumulators)

    return optax.GradientTransformationExtraArgs(init, update)
