"""VeLO and muVeLO: an LSTM per tensor mixes the network that replaces Adam's rule in that tensor.

L. Metz, J. Harrison, C. D. Freeman, A. Merchant, L. Beyer et al., "VeLO: Training versatile learned
optimizers by scaling up" (2022); under muP: B. Therien et al., "muLO: Compute-efficient
meta-generalization of learned optimizers" (2025), section 4, appendix A.1.2 and Table 3.
"""

import functools
from typing import Annotated, Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mulo_cli.errors import UsageError
from mulo_cli.learned_optimizers.accumulators import (
    Accumulators,
    Decays,
)
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.features import (
    SECOND_MOMENT_FLOOR,
    Elements,
    FeatureGroup,
    moment_group,
    roots_of,
    rsqrt,
)
from mulo_cli.learned_optimizers.loss_features import (
    LossBuffer,
    init_loss_buffer,
    loss_features,
    update_loss_buffer,
)
from mulo_cli.learned_optimizers.network import Network
from mulo_cli.learned_optimizers.ordering import after
from mulo_cli.learned_optimizers.tensor_update import UpdateRule, update_tensor
from mulo_cli.learned_optimizers.tensors import (
    as_tensors,
    init_all,
    over_tensors,
    roles_of,
    rows_for,
    tensor_count,
    update_all,
    update_multiplier,
)
from mulo_cli.learned_optimizers.velo_bank import init_bank, mixed_networks
from mulo_cli.learned_optimizers.velo_lstm import (
    FRACTION_LEFT,
    LstmState,
    TensorInputs,
    heads,
    init_lstm_theta,
    lstm,
    lstm_inputs,
    mix,
    starting_state,
    tensor_inputs,
)
from mulo_cli.mup.roles import ParamRole, Roles
from mulo_cli.mup.rules import Rule, adam_like
from mulo_cli.mup.sketches import named_leaves
from mulo_cli.types import Concrete, Params, PRNGKey, Theta

DECAYS = Decays(
    momentum=np.array((0.9, 0.99, 0.999), np.float32),
    second_moment=np.array((0.999,), np.float32),
    factored=np.array((0.9, 0.99, 0.999), np.float32),
)
"""Fixed, unlike small_fc_lopt's."""

GRADIENT_BOUND = 1_000.0
"""Gradients are clipped to it elementwise before anything else."""

CLIPPED_GRADIENT = 0.1
"""Bound of the feature that is a clipped gradient."""

VECTOR_MOMENTUM_FLOOR = 0.0
"""Added to an unfactored moment that preconditions the momenta: nothing, unlike small_fc_lopt."""

PARAMETER_SCALE_FLOOR = 1e-9
"""Added to a tensor's mean square before its root scales the step (Google's VeLO)."""

ELEMENT_ROWS = (*range(15), 27, 28, 29)
ROW_ROWS = (15, 16, 17, 21, 22, 23)
COL_ROWS = (18, 19, 20, 24, 25, 26)
"""Places of the features in the published order, by whether they differ in every element, along
the rows or along the columns."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class VeloConfig:
    """The static choices of VeLO; a card records every one. The defaults are muVeLO's.

    Attributes:
        hidden_size: units `H` of the per-parameter network.
        lstm_size: units `L` of the LSTM; 512 in Google's VeLO.
        bank_size: networks `P` in the bank; 256 in Google's VeLO.
        step_size: factor of every step, 0.001.
        magnitude_scale: factor of the magnitude in the exponent, 0.001.
        fraction_left: "offset", tanh(10 (t/T - x)), or "plain", tanh(t/T - 10 x), as in the paper.
        interpolation_scale: factor `s` of the mixed weights; 100 in Google's VeLO.
        parameter_scale: multiply steps by the root mean square of a tensor, as Google's VeLO does.
        loss_feature_horizon: steps of the slowest average of the loss; 0 takes the run's horizon,
            Google's published VeLO has 10.
        base_fan_in: 1 makes update multipliers absolute, muLO's 1/fan_in; another number makes
            them relative to a network of that fan-in, as microsoft/mup and PyLO have them.
    """

    hidden_size: Annotated[int, Field(gt=0)] = 4
    lstm_size: Annotated[int, Field(gt=0)] = 16
    bank_size: Annotated[int, Field(gt=0)] = 8
    step_size: float = 0.001
    magnitude_scale: float = 0.001
    fraction_left: Literal["offset", "plain"] = "offset"
    interpolation_scale: float = 1.0
    parameter_scale: bool = False
    loss_feature_horizon: Annotated[int, Field(ge=0)] = 0
    base_fan_in: Annotated[int, Field(gt=0)] = 1


class VeloState(NamedTuple):
    """What VeLO remembers of a run."""

    updates_done: Int[Array, ""]
    accumulators: PyTree
    """`Accumulators` of every parameter by name; those of stacked layers have a leading axis."""
    loss_buffer: LossBuffer
    lstm: LstmState


def velo(config: VeloConfig, rule: Rule = adam_like) -> LearnedOptimizer:
    """Return the learned optimizer of one configuration.

    Args:
        config: its static choices.
        rule: role -> update multiplier; `adam_like` under muP (muVeLO), `standard` under SP.
    """
    return LearnedOptimizer(
        init=functools.partial(init_theta, config=config),
        build=functools.partial(_build, config, rule),
    )


def init_theta(key: PRNGKey, config: VeloConfig) -> Theta:
    """Draw initial meta-parameters; leaf names and shapes are those of published weights.

    Args:
        key: consumed.
        config: the sizes `H`, `L` and `P`.
    """
    key_lstm, key_bank = jax.random.split(key)
    return {
        "lstm_init_state": {
            "hidden": jnp.zeros((1, config.lstm_size)),
            "cell": jnp.zeros((1, config.lstm_size)),
        },
        "rnn_params": init_lstm_theta(key_lstm, config.lstm_size, config.bank_size),
        "ff_mod_stack": init_bank(key_bank, config.hidden_size, config.bank_size),
    }


def features(elements: Elements) -> tuple[FeatureGroup, ...]:
    """Return the 30 features of one tensor before normalisation, by the shape they have."""
    gradient, parameter, (momenta, second_moment, _), _ = elements
    roots = roots_of(elements, VECTOR_MOMENTUM_FLOOR)
    inverse_root = rsqrt(second_moment + SECOND_MOMENT_FLOOR)
    by_element = (
        gradient,
        jnp.clip(gradient, -CLIPPED_GRADIENT, CLIPPED_GRADIENT),
        parameter.astype(jnp.float32),
        *momenta,
        second_moment,
        *(momentum * inverse_root for momentum in momenta),
        inverse_root,
        *(gradient * root for root in roots.for_gradient),
        gradient * inverse_root,
        *(momentum * root for momentum, root in zip(momenta, roots.for_momentum, strict=True)),
    )
    return (
        FeatureGroup(ELEMENT_ROWS, by_element),
        moment_group(ROW_ROWS, roots.row),
        moment_group(COL_ROWS, roots.col),
    )


def clean(bound: Float[Array, ""], gradient: Float[Array, "..."]) -> Float[Array, "..."]:
    """Replace NaN by 0 and clip every entry, infinities too, to +-bound; in float32."""
    bounded = jnp.clip(gradient.astype(jnp.float32), -bound, bound)
    return jnp.where(jnp.isnan(gradient), 0.0, bounded)


def _build(
    config: VeloConfig, rule: Rule, theta: Theta, roles: Roles, num_steps: Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    horizon = jnp.asarray(num_steps, jnp.float32)
    own_horizon = config.loss_feature_horizon
    loss_horizon = jnp.float32(own_horizon) if own_horizon else horizon

    def update(
        updates: Params,
        state: optax.OptState,
        params: Params | None = None,
        *,
        loss: Float[Concrete, ""] | None = None,
        **extra: Any,
    ) -> tuple[Params, VeloState]:
        del extra
        state, loss = cast(VeloState, state), _require_loss(loss)
        present = roles_of(params, roles)
        if not present:
            return updates, state
        loss_buffer = update_loss_buffer(state.loss_buffer, loss, loss_horizon)
        shared = (
            FRACTION_LEFT[config.fraction_left](state.updates_done.astype(jnp.float32) / horizon),
            loss_features(loss_buffer, loss_horizon),
        )
        lstm_state = look(theta, state, shared, present, params)
        says = heads(theta["rnn_params"], lstm_state)
        # what the LSTM has read may be overwritten from here on
        bound = after(says.step_size[0], jnp.float32(GRADIENT_BOUND))
        update_rule = UpdateRule(
            functools.partial(clean, bound), features, DECAYS, config.magnitude_scale
        )
        networks = mixed_networks(theta["ff_mod_stack"], says.controls, config.interpolation_scale)

        steps, accumulators = update_all(
            functools.partial(_update_one, config, update_rule),
            lambda role: -config.step_size * update_multiplier(role, rule, config.base_fan_in),
            present,
            updates,
            params,
            state.accumulators,
            own=rows_for(present, params, (networks, says.step_size)),
        )
        new_state = VeloState(state.updates_done + 1, accumulators, loss_buffer, lstm_state)
        return steps, new_state

    return optax.GradientTransformationExtraArgs(
        functools.partial(_init_state, theta, roles), update
    )


def _init_state(theta: Theta, roles: Roles, params: Params) -> VeloState:
    """Return the state before a run; its first update takes theta's own state of the LSTM."""
    present = roles_of(params, roles)
    tensors = sum(tensor_count(present[name], p) for name, p in named_leaves(params).items())
    zeros = jnp.zeros((tensors, theta["lstm_init_state"]["hidden"].shape[1]))
    return VeloState(
        updates_done=jnp.zeros((), jnp.int32),
        accumulators=init_all(params, present),
        loss_buffer=init_loss_buffer(),
        lstm=LstmState(zeros, jnp.copy(zeros)),
    )


def _update_one(
    config: VeloConfig,
    rule: UpdateRule,
    gradient: Array,
    parameter: Array,
    old: Accumulators,
    network: Network,
    alpha: Array,
) -> tuple[Float[Array, "*p"], Accumulators]:
    """Return one tensor's step at the size that the LSTM says, and its new accumulators."""
    step, new = update_tensor(rule, gradient, parameter, old, network)
    size = parameter_scale(parameter) if config.parameter_scale else 1.0
    return alpha * size * step, new


def look(
    theta: Theta,
    state: VeloState,
    shared: tuple[Float[Array, "9"], Float[Array, "9"]],
    roles: dict[str, ParamRole],
    params: Params,
) -> LstmState:
    """Return the LSTM's state after it has seen all tensors.

    Args:
        theta: its weights and its first state.
        state: before this update.
        shared: the features of the fraction left and of the loss, equal for all tensors.
        roles: of the params.
        params: before their update.
    """
    inputs = lstm_inputs(*shared, stacked_inputs(roles, params, state.accumulators))
    before = starting_state(theta["lstm_init_state"], state.lstm, state.updates_done)
    return lstm(theta["rnn_params"], before, mix(theta["rnn_params"], inputs))


def stacked_inputs(
    roles: dict[str, ParamRole], params: Params, accumulators: dict[str, Accumulators]
) -> TensorInputs:
    """Return what the LSTM sees of all tensors, with a leading axis of M on every field."""

    def inputs_of(name: str, p: Array) -> TensorInputs:
        role = roles[name]
        seen = over_tensors(role, tensor_inputs)(as_tensors(role, p), accumulators[name])
        return seen if role.stack_axes else jax.tree.map(lambda x: x[None], seen)

    tables = [inputs_of(name, p) for name, p in named_leaves(params).items()]
    return jax.tree.map(lambda *fields: jnp.concatenate(fields), *tables)


def parameter_scale(parameter: Float[Array, "*p"]) -> Float[Array, ""]:
    """Return the root mean square of a tensor."""
    squares = jnp.square(parameter.astype(jnp.float32))
    return jnp.sqrt(jnp.mean(squares) + PARAMETER_SCALE_FLOOR)


def _require_loss(loss: Float[Concrete, ""] | None) -> Float[Array, ""]:
    if loss is None:
        raise UsageError(
            "VeLO needs the loss of the step", "call update(grads, state, params, loss=loss)"
        )
    return jnp.asarray(loss).astype(jnp.float32).reshape(())
