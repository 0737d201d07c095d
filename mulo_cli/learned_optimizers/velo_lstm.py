"""VeLO's network over tensors: an LSTM that mixes each tensor's own per-parameter network.

L. Metz et al., "VeLO: Training versatile learned optimizers by scaling up" (2022); under muP:
muLO (B. Therien et al., 2025), section 4 and appendix A.1.2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mulo_cli.learned_optimizers.accumulators import Accumulators
from mulo_cli.learned_optimizers.features import rsqrt
from mulo_cli.learned_optimizers.reductions import sums
from mulo_cli.mup.initializers import truncated_normal
from mulo_cli.types import PRNGKey, Theta

FRACTIONS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
"""Parts of a run; the `x` of the nine features of the fraction left."""

FRACTION_SHARPNESS = 10.0

RANKS = 5
"""Ranks that the one-hot tells apart: 0 to 4; higher ones are all zeros."""

LSTM_INPUTS = 30
"""fraction_left 9, loss_features 9, mean_rms 1, rank 5, var_m 3, var_rms 3."""

PARAMETER_FLOOR = 1e-9
"""Smallest mean square of a tensor's parameters."""

LOG_FLOOR, LOG_GAIN, LOG_BOUND, LOG_SCALE = 1e-8, 10.0, 5.0, 0.5
"""cl(x) = 0.5 clip(log(1e-8 + |10 x|), +-5)."""

FORGET_BIAS = 1.0


class LstmState(NamedTuple):
    """State of the LSTM, one row per tensor in the order of `jax.tree.leaves`."""

    hidden: Float[Array, "M L"]
    cell: Float[Array, "M L"]


class Heads(NamedTuple):
    """What the LSTM says about every tensor."""

    controls: Float[Array, "M P"]
    """Weights of the bank's networks."""
    step_size: Float[Array, " M"]
    """alpha, raw."""


class TensorInputs(NamedTuple):
    """The LSTM's inputs that differ from tensor to tensor."""

    mean_rms: Float[Array, "1"]
    rank: Float[Array, "5"]
    var_m: Float[Array, "3"]
    var_rms: Float[Array, "3"]


def init_lstm_theta(key: PRNGKey, lstm_size: int, bank_size: int) -> Theta:
    """Draw the LSTM's initial meta-parameters, `rnn_params` of published weights; biases are 0.

    `linear` is unused and kept because published weights have it.
    """
    shapes = {
        "linear": (LSTM_INPUTS, lstm_size),
        "linear_1": (LSTM_INPUTS, lstm_size),
        "linear_2": (LSTM_INPUTS, lstm_size),
        "rnn": (2 * lstm_size, 4 * lstm_size),
        "rnn_to_controls": (lstm_size, bank_size),
        "step_size": (lstm_size, 1),
    }
    keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
    theta = {
        name: {"w": truncated_normal(keys[name], shape, shape[0]), "b": jnp.zeros(shape[1])}
        for name, shape in shapes.items()
    }
    return theta | {"rnn": {"linear": theta["rnn"]}}


def tensor_inputs(parameter: Float[Array, "*p"], accumulators: Accumulators) -> TensorInputs:
    """Return what the LSTM sees of one tensor.

    Args:
        parameter: before its update; scalars have shape (1,).
        accumulators: *before* this step's update.
    """
    dimensions = sum(size > 1 for size in parameter.shape)
    rank = jax.nn.one_hot(dimensions, RANKS)
    if parameter.size == 0:  # nothing has no mean
        return TensorInputs(jnp.zeros(1), rank, jnp.zeros(3), jnp.zeros(3))
    parameter, momenta = parameter.astype(jnp.float32), tuple(accumulators.momentum)
    second_moment = accumulators.second_moment

    def averages(arrays: Sequence[Float[Array, "*p"]]) -> Float[Array, " F"]:
        return sums(arrays) / parameter.size

    mean_square, mean_rms, *means = averages([jnp.square(parameter), second_moment, *momenta])
    scale = rsqrt(jnp.maximum(PARAMETER_FLOOR, mean_square))
    # scaled after reducing: a scaled copy of every momentum would be large
    squares = averages(
        [jnp.square(m - mean) for m, mean in zip(momenta, means, strict=True)]
        + [jnp.square(second_moment - mean) for mean in means]
    )
    variances, distances = jnp.split(jnp.square(scale) * squares, 2)
    return TensorInputs(
        mean_rms=_compressed(scale * mean_rms)[None],
        rank=rank,
        var_m=_compressed(variances),
        var_rms=_compressed(distances),
    )


def fraction_left_offset(fraction: Float[Array, ""]) -> Float[Array, "9"]:
    """Return tanh(10 (t/T - x)): the formula of the published weights."""
    return jnp.tanh(FRACTION_SHARPNESS * (fraction - jnp.array(FRACTIONS, jnp.float32)))


def fraction_left_plain(fraction: Float[Array, ""]) -> Float[Array, "9"]:
    """Return tanh(t/T - 10 x): the formula of the paper."""
    return jnp.tanh(fraction - FRACTION_SHARPNESS * jnp.array(FRACTIONS, jnp.float32))


FRACTION_LEFT = {"offset": fraction_left_offset, "plain": fraction_left_plain}
"""The formula variants by the name that recipes and cards use."""


def lstm_inputs(
    fraction_left: Float[Array, "9"], loss_features: Float[Array, "9"], tensors: TensorInputs
) -> Float[Array, "M 30"]:
    """Lay the inputs of all tensors side by side, in alphabetical order of their names.

    Args:
        fraction_left: equal for all tensors, like `loss_features`.
        loss_features: of the current loss.
        tensors: with a leading axis of M on every field.
    """
    shared = jnp.concatenate([fraction_left, loss_features])
    rows = jnp.broadcast_to(shared, (tensors.mean_rms.shape[0], shared.size))
    return jnp.concatenate([rows, *tensors], axis=1)


def mix(theta: Theta, inputs: Float[Array, "M 30"]) -> Float[Array, "M L"]:
    """Let the tensors know of one another: the largest of each unit over all tensors is added."""
    loudest = jnp.max(jax.nn.relu(_linear(theta["linear_1"], inputs)), axis=0)
    return _linear(theta["linear_2"], inputs) + loudest


def lstm(theta: Theta, state: LstmState, x: Float[Array, "M L"]) -> LstmState:
    """Advance the LSTM by one step; gates lie in the order input, candidate, forget, output."""
    gates = _linear(theta["rnn"]["linear"], jnp.concatenate([x, state.hidden], axis=1))
    let_in, candidate, forget, let_out = jnp.split(gates, 4, axis=1)
    kept = jax.nn.sigmoid(forget + FORGET_BIAS) * state.cell
    cell = kept + jax.nn.sigmoid(let_in) * jnp.tanh(candidate)
    return LstmState(jax.nn.sigmoid(let_out) * jnp.tanh(cell), cell)


def heads(theta: Theta, state: LstmState) -> Heads:
    """Read the new hidden state."""
    return Heads(
        controls=_linear(theta["rnn_to_controls"], state.hidden),
        step_size=_linear(theta["step_size"], state.hidden)[:, 0],
    )


def starting_state(learned: Theta, state: LstmState, updates_done: Int[Array, ""]) -> LstmState:
    """Return the state that a step begins with: the meta-learned one at a run's first step.

    Runs are born with zeros and take the meta-learned state when they step, so that both signs of
    an antithetic pair share their birth and yet the state is perturbed like the rest of theta.
    """
    first = updates_done == 0
    return LstmState(
        jnp.where(first, learned["hidden"], state.hidden),
        jnp.where(first, learned["cell"], state.cell),
    )


def _linear(layer: Theta, x: Float[Array, "M I"]) -> Float[Array, "M O"]:
    return x @ layer["w"] + layer["b"]


def _compressed(x: Array) -> Array:
    """Return cl(x), which tells magnitudes over ten decades apart."""
    logarithm = jnp.log(LOG_FLOOR + jnp.abs(LOG_GAIN * x))
    return LOG_SCALE * jnp.clip(logarithm, -LOG_BOUND, LOG_BOUND)
