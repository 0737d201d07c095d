"""The published VeLO in plain NumPy float64: slow, readable, an independent test oracle.

Every function is one sentence of the spec of VeLO and is named after the word used there. Nothing
here is shared with the implementation that it checks; the words that VeLO shares with small_fc_lopt
(accumulators, factored axes, normalisation) come from the reference of that optimizer.

Words: g is the gradient (clipped), p the parameter before the update, t the number of updates done
so far (0 at the first one), T the horizon, M the number of tensors, x the LSTM inputs of one tensor
(30 numbers), L the size of the LSTM, P the size of the bank, H the width of the per-parameter
network, alpha the step size that the LSTM gives a tensor, u the update multiplier, n the number of
losses in the loss buffer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.learned_optimizers.numpy_reference import (
    Accumulators,
    Decays,
    as_float64,
    as_tensor,
    col_factor,
    factored_axes,
    is_factored,
    normalise,
    relu,
    row_factor,
    rsqrt,
    srsqrt,
    update_accumulators,
    zero_accumulators,
)

Array = NDArray[np.float64]

FIXED_DECAYS = Decays(momentum=[0.9, 0.99, 0.999], second_moment=0.999, factored=[0.9, 0.99, 0.999])
GROUP_SIZES = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
FRACTIONS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
LOSS_AVERAGES = 10
LSTM_INPUTS = 30
RANKS = 5


@dataclass(frozen=True)
class Settings:
    """What the spec leaves to the user; the defaults are those of the released muVeLO.

    `horizon` is T. `step_size` is the 0.001 in front of the step, `magnitude_scale` the one inside
    its exponential. `fraction_left` is "offset" for tanh(10 (t/T - x)) or "plain" for
    tanh(t/T - 10 x). `interpolation_scale` is s (Google's VeLO: 100). With `parameter_scale` the
    step is also multiplied by (mean(p squared) + 1e-9) to the power of one half (Google's VeLO).
    `loss_feature_horizon` is the T of the loss features (Google's VeLO: 10); 0 takes `horizon`.
    """

    horizon: int
    step_size: float = 0.001
    magnitude_scale: float = 0.001
    fraction_left: str = "offset"
    interpolation_scale: float = 1.0
    parameter_scale: bool = False
    loss_feature_horizon: int = 0


@dataclass(frozen=True)
class LossBuffer:
    """The ten averages of the loss.

    `decays` are d_j, `means` are mean_j, `minima` are min_j, and `count` is the number of losses
    that the buffer has taken in.
    """

    decays: Array
    means: Array
    minima: Array
    count: int


@dataclass(frozen=True)
class Run:
    """All that one update hands to the next; `hidden` and `cell` are (M, L)."""

    parameters: list[Array]
    accumulators: list[Accumulators]
    hidden: Array
    cell: Array
    loss_buffer: LossBuffer
    t: int


# --- Gradients ------------------------------------------------------------------------------------


def nan_to_zero(gradient: Array) -> Array:
    """Spec: NaN gradients count as 0."""
    return np.where(np.isnan(gradient), 0.0, gradient)


def clipped_gradient(gradient: Array) -> Array:
    """Spec: gradients are first clipped elementwise to +-1000 (so infinities become +-1000)."""
    return np.clip(nan_to_zero(gradient), -1000.0, 1000.0)


# --- Loss features --------------------------------------------------------------------------------


def loss_decays(horizon: int) -> Array:
    """Spec: d_j = exp(-1/h_j), h = logspace(1, log10 T, 10)."""
    half_lives = 10.0 ** np.linspace(1.0, np.log10(float(horizon)), LOSS_AVERAGES)
    return np.exp(-1.0 / half_lives)


def empty_loss_buffer(horizon: int) -> LossBuffer:
    """Spec: mean_j starts at 0, min_j at +infinity."""
    return LossBuffer(
        decays=loss_decays(horizon),
        means=np.zeros(LOSS_AVERAGES),
        minima=np.full(LOSS_AVERAGES, np.inf),
        count=0,
    )


def bounded_loss(buffer: LossBuffer, loss: float) -> float:
    """Spec: loss becomes min(loss, 2 |max_j mean_j / (1 - d_j^(n+1))|) for n > 0.

    mean_j is the mean before this loss, n the number of updates before this one.
    """
    if buffer.count == 0:
        return loss
    largest = float(np.max(buffer.means / (1.0 - buffer.decays ** (buffer.count + 1))))
    return min(loss, 2.0 * abs(largest))


def corrected_means(buffer: LossBuffer) -> Array:
    """Spec: c_j = mean_j / (1 - d_j^(n+1)); n + 1 is the number of losses now in the buffer."""
    return buffer.means / (1.0 - buffer.decays**buffer.count)


def update_loss_buffer(buffer: LossBuffer, loss: float) -> LossBuffer:
    """One update with the current loss.

    Spec: mean_j becomes d_j mean_j + (1 - d_j) loss, with the bounded loss; min_j becomes
    min(min_j, c_j). A non-finite loss leaves the buffer as it is, its count included.
    """
    if not np.isfinite(loss):
        return buffer
    bounded = bounded_loss(buffer, loss)
    means = buffer.decays * buffer.means + (1.0 - buffer.decays) * bounded
    new = LossBuffer(buffer.decays, means, buffer.minima, buffer.count + 1)
    minima = np.minimum(buffer.minima, corrected_means(new))
    return LossBuffer(new.decays, new.means, minima, new.count)


def features_of_loss_buffer(buffer: LossBuffer) -> Array:
    """Spec: clip((c_j - min_j) / max(1e-8, c_{j+1} - min_j) - 1, +-1), nine of them.

    Spec: zero for the first two updates, hence while the buffer holds fewer than three losses.
    """
    if buffer.count < 3:
        return np.zeros(LOSS_AVERAGES - 1)
    c = corrected_means(buffer)
    features = []
    for j in range(LOSS_AVERAGES - 1):
        above = c[j] - buffer.minima[j]
        next_above = c[j + 1] - buffer.minima[j]
        features.append(np.clip(above / max(1e-8, next_above) - 1.0, -1.0, 1.0))
    return np.array(features)


def loss_features(losses: Sequence[float], horizon: int) -> list[Array]:
    """Spec: the loss buffer is updated with the current loss before use; one entry per loss."""
    buffer = empty_loss_buffer(horizon)
    features = []
    for loss in losses:
        buffer = update_loss_buffer(buffer, float(loss))
        features.append(features_of_loss_buffer(buffer))
    return features


# --- LSTM inputs ----------------------------------------------------------------------------------


def cl(x: float) -> float:
    """Spec: cl(x) = 0.5 clip(log(1e-8 + |10 x|), +-5)."""
    return 0.5 * float(np.clip(np.log(1e-8 + abs(10.0 * x)), -5.0, 5.0))


def fraction_left(t: int, horizon: int, kind: str) -> list[float]:
    """Spec: tanh(10 (t/T - x)) ("offset") or tanh(t/T - 10 x) ("plain") for the 9 fractions x."""
    if kind == "offset":
        return [float(np.tanh(10.0 * (t / horizon - x))) for x in FRACTIONS]
    if kind == "plain":
        return [float(np.tanh(t / horizon - 10.0 * x)) for x in FRACTIONS]
    raise ValueError(f"fraction_left must be 'offset' or 'plain', not {kind!r}")


def rank(shape: Sequence[int]) -> list[float]:
    """Spec: one-hot over 5 of the number of dimensions larger than 1 (all zero from 5 on)."""
    larger_than_one = sum(1 for size in shape if size > 1)
    return [1.0 if larger_than_one == i else 0.0 for i in range(RANKS)]


def parameter_norm_scale(parameter: Array) -> float:
    """Spec: s = rsqrt(max(1e-9, mean p squared))."""
    return float(rsqrt(np.maximum(1e-9, np.mean(parameter**2))))


def lstm_inputs(
    parameter: Array, before: Accumulators, loss: Array, t: int, settings: Settings
) -> Array:
    """The 30 LSTM inputs of one tensor; `loss` are the nine loss features.

    Spec: fraction_left 9, loss_features 9, mean_rms 1, rank 5, var_m 3, var_rms 3, concatenated in
    alphabetical order of name; computed from the accumulators before this step's update. With
    m' = s m and v' = s v: var_m_k = cl(mean((m'_k - mean m'_k) squared)), mean_rms = cl(mean v'),
    var_rms_k = cl(mean((v' - mean m'_k) squared)).
    """
    s = parameter_norm_scale(parameter)
    scaled_momenta = [s * m for m in before.momenta]
    scaled_second_moment = s * before.second_moment
    inputs = {
        "var_rms": [
            cl(float(np.mean((scaled_second_moment - np.mean(m)) ** 2))) for m in scaled_momenta
        ],
        "var_m": [cl(float(np.mean((m - np.mean(m)) ** 2))) for m in scaled_momenta],
        "rank": rank(parameter.shape),
        "mean_rms": [cl(float(np.mean(scaled_second_moment)))],
        "loss_features": list(loss),
        "fraction_left": fraction_left(t, settings.horizon, settings.fraction_left),
    }
    x = np.array([value for name in sorted(inputs) for value in inputs[name]])
    assert x.shape == (LSTM_INPUTS,)
    return x


# --- Mixing and LSTM ------------------------------------------------------------------------------


def linear(weights: Mapping[str, Any], x: Array) -> Array:
    """Spec: x W + b."""
    return x @ as_float64(weights["w"]) + as_float64(weights["b"])


def sigmoid(x: Array) -> Array:
    """The logistic function, written so that no exponential overflows."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def mix(rnn_params: Mapping[str, Any], x: Array) -> Array:
    """Spec: mix = max over tensors of relu(x W_1 + b_1); (M, 30) to (L,).

    The reading: W_1, b_1 are the leaf `linear_1`; `linear` is unused.
    """
    return np.max(relu(linear(rnn_params["linear_1"], x)), axis=0)


def lstm_input(rnn_params: Mapping[str, Any], x: Array) -> Array:
    """Spec: input x W_2 + b_2 + mix; (M, 30) to (M, L).

    The reading: W_2, b_2 are the leaf `linear_2`.
    """
    return linear(rnn_params["linear_2"], x) + mix(rnn_params, x)


def lstm(
    rnn_params: Mapping[str, Any], x: Array, hidden: Array, cell: Array
) -> tuple[Array, Array]:
    """The new (h, c), each (M, L); here x is the (M, L) LSTM input.

    Spec: gates in the order i, g, f, o of [x, h] W + b, x first, and forget bias + 1;
    c becomes sigma(f + 1) c + sigma(i) tanh g, h becomes sigma(o) tanh c.
    """
    gates = linear(rnn_params["rnn"]["linear"], np.concatenate([x, hidden], axis=-1))
    size = hidden.shape[-1]
    assert gates.shape[-1] == 4 * size
    i, g, f, o = (gates[:, k * size : (k + 1) * size] for k in range(4))
    new_cell = sigmoid(f + 1.0) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(new_cell), new_cell


def initial_lstm_state(theta: Mapping[str, Any], tensors: int) -> tuple[Array, Array]:
    """Spec: initial (h, c) meta-learned and equal for every tensor; each (M, L)."""
    hidden = as_float64(theta["lstm_init_state"]["hidden"])
    cell = as_float64(theta["lstm_init_state"]["cell"])
    return np.repeat(hidden, tensors, axis=0), np.repeat(cell, tensors, axis=0)


def controls(rnn_params: Mapping[str, Any], hidden: Array) -> Array:
    """Spec: the head controls (P) reads the new h; (M, L) to (M, P)."""
    return linear(rnn_params["rnn_to_controls"], hidden)


def step_sizes(rnn_params: Mapping[str, Any], hidden: Array) -> Array:
    """Spec: alpha, the raw linear output (no exp) of the head step size; (M, L) to (M,)."""
    return linear(rnn_params["step_size"], hidden)[:, 0]


# --- Per-parameter network ------------------------------------------------------------------------


def tensor_weights(bank: Mapping[str, Any], control: Array, scale: float) -> dict[str, Array]:
    """Per-tensor weights.

    Spec: W = s times the mean over i of control_i bank_i, for weights and biases alike.
    """
    weights = {}
    for name, leaf in bank.items():
        entries = as_float64(leaf)
        assert len(entries) == len(control)
        total = sum(c * entry for c, entry in zip(control, entries, strict=True))
        weights[name] = scale * total / len(control)
    return weights


def factored_groups(gradient: Array, state: Accumulators) -> dict[str, list[Array]]:
    """The groups that read row and col, for ndim >= 2; R along d0 and C along d1 broadcast."""
    _, d1 = factored_axes(gradient.shape)
    factors = [
        row_factor(row, d1) * col_factor(col) for row, col in zip(state.row, state.col, strict=True)
    ]
    return {
        "g R C": [gradient * factor for factor in factors],
        "row": state.row,
        "col": state.col,
        "rsqrt(row + 1e-8)": [rsqrt(row + 1e-8) for row in state.row],
        "rsqrt(col + 1e-8)": [rsqrt(col + 1e-8) for col in state.col],
        "m R C": [m * factor for m, factor in zip(state.momenta, factors, strict=True)],
    }


def diagonal_groups(gradient: Array, state: Accumulators) -> dict[str, list[Array]]:
    """The same groups for ndim < 2.

    Spec: not factored as for small_fc_lopt (diag in place of row and of col, and
    g srsqrt(diag_k + 1e-9)), but the last group is m_k times diag_k to the power of minus one half,
    without the 1e-6.
    """
    inverse_roots = [rsqrt(diag + 1e-8) for diag in state.diag]
    return {
        "g R C": [gradient * srsqrt(diag + 1e-9) for diag in state.diag],
        "row": state.diag,
        "col": state.diag,
        "rsqrt(row + 1e-8)": inverse_roots,
        "rsqrt(col + 1e-8)": inverse_roots,
        "m R C": [m * rsqrt(diag) for m, diag in zip(state.momenta, state.diag, strict=True)],
    }


def input_groups(gradient: Array, parameter: Array, state: Accumulators) -> list[list[Array]]:
    """The 30 inputs in 14 groups, before normalisation; `state` is after this step's update.

    Spec: g | clip(g, +-0.1) | p | m 3 | v | m_k rsqrt(v + 1e-6) 3 | rsqrt(v + 1e-6) | g R C 3 |
    g rsqrt(v + 1e-6) | row 3 | col 3 | rsqrt(row + 1e-8) 3 | rsqrt(col + 1e-8) 3 | m R C 3.
    """
    inverse_rms = rsqrt(state.second_moment + 1e-6)
    words = (factored_groups if is_factored(gradient.shape) else diagonal_groups)(gradient, state)
    return [
        [gradient],
        [np.clip(gradient, -0.1, 0.1)],
        [parameter],
        state.momenta,
        [state.second_moment],
        [m * inverse_rms for m in state.momenta],
        [inverse_rms],
        words["g R C"],
        [gradient * inverse_rms],
        words["row"],
        words["col"],
        words["rsqrt(row + 1e-8)"],
        words["rsqrt(col + 1e-8)"],
        words["m R C"],
    ]


def normalised_groups(gradient: Array, parameter: Array, state: Accumulators) -> list[Array]:
    """The 14 groups, each of the tensor's shape with the group's size as a last axis.

    Spec: each of the 30 channels is normalised separately, after broadcasting.
    """
    groups = []
    for group in input_groups(gradient, parameter, state):
        channels = [normalise(np.broadcast_to(channel, parameter.shape)) for channel in group]
        groups.append(np.stack(channels, axis=-1))
    assert tuple(group.shape[-1] for group in groups) == GROUP_SIZES
    return groups


def network(weights: Mapping[str, Array], groups: Sequence[Array]) -> tuple[Array, Array]:
    """Spec: 30 to H to H to 3 with ReLU; the output is (d, m) and a third, unused one."""
    first = sum(group @ weights[f"w0__{j}"] for j, group in enumerate(groups))
    hidden = relu(first + weights["b0"])
    hidden = relu(hidden @ weights["w1"] + weights["b1"])
    output = hidden @ weights["w2"] + weights["b2"]
    assert output.shape[-1] == 3
    return output[..., 0], output[..., 1]


# --- Update ---------------------------------------------------------------------------------------


def parameter_scale(parameter: Array) -> float:
    """Spec: (mean(p squared) + 1e-9) to the power of one half."""
    return float(np.sqrt(np.mean(parameter**2) + 1e-9))


def step(
    parameter: Array,
    direction: Array,
    magnitude: Array,
    alpha: float,
    multiplier: float,
    settings: Settings,
) -> Array:
    """The new parameter.

    Spec: p becomes p minus u alpha 0.001 d exp(0.001 m); Google's VeLO also multiplies by the
    parameter scale.
    """
    change = settings.step_size * direction * np.exp(settings.magnitude_scale * magnitude)
    if settings.parameter_scale:
        change = change * parameter_scale(parameter)
    return parameter - multiplier * alpha * change


def initial_run(theta: Mapping[str, Any], params: Sequence[Any], settings: Settings) -> Run:
    """Spec: accumulators start at zero; T of the loss features is the run's unless set."""
    parameters = [as_tensor(param) for param in params]
    hidden, cell = initial_lstm_state(theta, len(parameters))
    return Run(
        parameters=parameters,
        accumulators=[zero_accumulators(parameter.shape) for parameter in parameters],
        hidden=hidden,
        cell=cell,
        loss_buffer=empty_loss_buffer(settings.loss_feature_horizon or settings.horizon),
        t=0,
    )


def stacked_lstm_inputs(run: Run, loss_buffer: LossBuffer, settings: Settings) -> Array:
    """The LSTM inputs of all tensors, (M, 30), from the loss buffer that has the current loss."""
    loss = features_of_loss_buffer(loss_buffer)
    rows = [
        lstm_inputs(parameter, before, loss, run.t, settings)
        for parameter, before in zip(run.parameters, run.accumulators, strict=True)
    ]
    return np.stack(rows)


def update(
    theta: Mapping[str, Any],
    run: Run,
    gradients: Sequence[Any],
    loss: float,
    multipliers: Sequence[float],
    settings: Settings,
) -> Run:
    """One update of everything.

    Spec: the loss features are updated with the current loss before use, the LSTM reads the
    accumulators before this step's update, the per-parameter network reads those after it, and p is
    the parameter before the update. The accumulators and the inputs take the clipped gradient.
    """
    rnn_params = theta["rnn_params"]
    clipped = [clipped_gradient(as_tensor(gradient)) for gradient in gradients]
    loss_buffer = update_loss_buffer(run.loss_buffer, float(loss))
    x = lstm_input(rnn_params, stacked_lstm_inputs(run, loss_buffer, settings))
    hidden, cell = lstm(rnn_params, x, run.hidden, run.cell)
    all_controls = controls(rnn_params, hidden)
    alphas = step_sizes(rnn_params, hidden)
    assert len(clipped) == len(multipliers) == len(run.parameters)

    parameters, accumulators = [], []
    for i, (parameter, gradient) in enumerate(zip(run.parameters, clipped, strict=True)):
        assert gradient.shape == parameter.shape
        state = update_accumulators(run.accumulators[i], gradient, FIXED_DECAYS)
        weights = tensor_weights(
            theta["ff_mod_stack"], all_controls[i], settings.interpolation_scale
        )
        direction, magnitude = network(weights, normalised_groups(gradient, parameter, state))
        alpha, multiplier = float(alphas[i]), float(multipliers[i])
        parameters.append(step(parameter, direction, magnitude, alpha, multiplier, settings))
        accumulators.append(state)
    return Run(parameters, accumulators, hidden, cell, loss_buffer, run.t + 1)


def train(
    theta: dict[str, Any],
    params: list[np.ndarray],
    gradients: list[list[np.ndarray]],
    losses: list[float],
    multipliers: list[float],
    settings: Settings,
) -> list[np.ndarray]:
    """Parameters after len(gradients) updates of the published VeLO.

    `gradients[s][i]` is the gradient of `params[i]` at step s, `losses[s]` the loss of step s and
    `multipliers[i]` the update multiplier u of `params[i]`. The result is float64 and has the
    shapes of `params`; the inputs are not changed.
    """
    run = initial_run(theta, params, settings)
    for current, loss in zip(gradients, losses, strict=True):
        run = update(theta, run, current, loss, multipliers, settings)
    return [p.reshape(np.shape(param)) for p, param in zip(run.parameters, params, strict=True)]
