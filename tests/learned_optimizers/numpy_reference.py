"""The published small_fc_lopt in plain NumPy float64: slow, readable, an independent test oracle.

Every function is one sentence of the spec of the published small_fc_lopt and is named after the
word used there. Nothing here is shared with the implementation that it checks.

Words: g is the gradient, p the parameter before the update, t the number of updates done so far
(0 at the first one), m_k the momenta, v the second moment, row_k, col_k and diag_k the factored
accumulators, u the update multiplier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

INITIAL_MOMENTUM_DECAYS = (0.9, 0.99, 0.999)
INITIAL_RMS_DECAYS = (0.999,)
INITIAL_ADAFACTOR_DECAYS = (0.9, 0.99, 0.999)
TIME_SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
NORMALISED_FEATURES = 28
ALL_FEATURES = 39


@dataclass(frozen=True)
class Settings:
    """What the spec leaves to the user; the defaults are the published ones.

    `step_size` is lambda_1, `magnitude_scale` is lambda_2. `time_feature` is "offset" for
    tanh(t/x - 1) or "plain" for tanh(t/x). `clip_gradients` clips by global norm 1.
    """

    step_size: float
    magnitude_scale: float = 0.001
    time_feature: str = "offset"
    clip_gradients: bool = False


@dataclass(frozen=True)
class Decays:
    """The decays b_1..3 (momentum), c (second moment) and f_1..3 (factored), ready for use."""

    momentum: list[float]
    second_moment: float
    factored: list[float]


@dataclass(frozen=True)
class Accumulators:
    """One tensor's accumulators.

    A tensor of two or more dimensions has `row` and `col` (reduced axes kept with length 1) and an
    empty `diag`; any other has `diag` and empty `row` and `col`.
    """

    momenta: list[Array]
    second_moment: Array
    row: list[Array]
    col: list[Array]
    diag: list[Array]


# --- Small words ----------------------------------------------------------------------------------


def rsqrt(x: Array) -> Array:
    """Spec: rsqrt(x) = x to the power of minus one half."""
    return 1.0 / np.sqrt(x)


def srsqrt(x: Array) -> Array:
    """Spec: srsqrt(x) = max(x, 1e-9) to the power of minus one half."""
    return rsqrt(np.maximum(x, 1e-9))


def is_factored(shape: tuple[int, ...]) -> bool:
    """Spec: factored for ndim >= 2; for ndim < 2 there is a diagonal instead."""
    return len(shape) >= 2


def factored_axes(shape: tuple[int, ...]) -> tuple[int, int]:
    """The axes (d0, d1).

    Spec: d0 is the axis of the largest dimension and d1 of the second largest, the last and last
    but one entries of a stable argsort of the shape; a square matrix has d1 = 0, d0 = 1.
    """
    order = sorted(range(len(shape)), key=lambda axis: shape[axis])  # Python's sort is stable.
    return order[-1], order[-2]


def mean_over(axis: int, x: Array) -> Array:
    """Spec: a mean over one axis of the original tensor; means keep dimensions."""
    return np.mean(x, axis=axis, keepdims=True)


# --- Before anything ------------------------------------------------------------------------------


def non_finite_to_zero(gradient: Array) -> Array:
    """Spec: non-finite gradient entries count as 0."""
    return np.where(np.isfinite(gradient), gradient, 0.0)


def global_norm(gradients: Sequence[Array]) -> float:
    """The Euclidean norm of all tensors laid end to end."""
    return float(np.sqrt(sum(float(np.sum(gradient**2)) for gradient in gradients)))


def clip_by_global_norm(gradients: Sequence[Array]) -> list[Array]:
    """Spec: g times min(1, 1/||g||) over all tensors; a zero norm leaves zeros."""
    norm = global_norm(gradients)
    factor = 1.0 if norm <= 1.0 else 1.0 / norm
    return [gradient * factor for gradient in gradients]


def before_anything(gradients: Sequence[Array], settings: Settings) -> list[Array]:
    """Spec: non-finite entries count as 0, then optionally clip by global norm 1."""
    finite = [non_finite_to_zero(gradient) for gradient in gradients]
    return clip_by_global_norm(finite) if settings.clip_gradients else finite


# --- Decays ---------------------------------------------------------------------------------------


def decay(initial: float, delta: float) -> float:
    """Spec: decay = 1 - (1 - initial decay) times exp(10 delta)."""
    return 1.0 - (1.0 - initial) * float(np.exp(10.0 * delta))


def clip_to_unit(x: float) -> float:
    """Spec: clipped to [0, 1]."""
    return min(max(x, 0.0), 1.0)


def decays(theta: Mapping[str, Any]) -> Decays:
    """Spec: momentum decays are not clipped; second-moment and factored ones are, to [0, 1]."""
    momentum = zip(INITIAL_MOMENTUM_DECAYS, as_float64(theta["momentum_decays"]), strict=True)
    rms = zip(INITIAL_RMS_DECAYS, as_float64(theta["rms_decays"]), strict=True)
    adafactor = zip(INITIAL_ADAFACTOR_DECAYS, as_float64(theta["adafactor_decays"]), strict=True)
    (second_moment,) = [clip_to_unit(decay(initial, delta)) for initial, delta in rms]
    return Decays(
        momentum=[decay(initial, delta) for initial, delta in momentum],
        second_moment=second_moment,
        factored=[clip_to_unit(decay(initial, delta)) for initial, delta in adafactor],
    )


# --- Accumulators ---------------------------------------------------------------------------------


def zero_accumulators(shape: tuple[int, ...]) -> Accumulators:
    """Spec: accumulators start at zero."""
    momenta = [np.zeros(shape) for _ in INITIAL_MOMENTUM_DECAYS]
    second_moment = np.zeros(shape)
    if not is_factored(shape):
        diag = [np.zeros(shape) for _ in INITIAL_ADAFACTOR_DECAYS]
        return Accumulators(momenta, second_moment, row=[], col=[], diag=diag)
    d0, d1 = factored_axes(shape)
    row = [mean_over(d0, np.zeros(shape)) for _ in INITIAL_ADAFACTOR_DECAYS]
    col = [mean_over(d1, np.zeros(shape)) for _ in INITIAL_ADAFACTOR_DECAYS]
    return Accumulators(momenta, second_moment, row=row, col=col, diag=[])


def moving_average(old: Array, new: Array, rate: float) -> Array:
    """Spec: x becomes decay times x plus (1 - decay) times the new value, no bias correction."""
    return rate * old + (1.0 - rate) * new


def update_accumulators(old: Accumulators, gradient: Array, rates: Decays) -> Accumulators:
    """One update of everything a tensor accumulates.

    Spec: m_k averages g, v averages g squared; with q = g squared + 1e-30 (elementwise, before any
    mean) row_k averages the mean of q over d0, col_k the mean of q over d1, diag_k q itself.
    """
    momenta = [
        moving_average(m, gradient, b) for m, b in zip(old.momenta, rates.momentum, strict=True)
    ]
    second_moment = moving_average(old.second_moment, gradient**2, rates.second_moment)
    q = gradient**2 + 1e-30
    if not is_factored(gradient.shape):
        diag = [moving_average(x, q, f) for x, f in zip(old.diag, rates.factored, strict=True)]
        return Accumulators(momenta, second_moment, row=[], col=[], diag=diag)
    d0, d1 = factored_axes(gradient.shape)
    q_row, q_col = mean_over(d0, q), mean_over(d1, q)
    row = [moving_average(x, q_row, f) for x, f in zip(old.row, rates.factored, strict=True)]
    col = [moving_average(x, q_col, f) for x, f in zip(old.col, rates.factored, strict=True)]
    return Accumulators(momenta, second_moment, row=row, col=col, diag=[])


# --- Features -------------------------------------------------------------------------------------


def row_factor(row: Array, d1: int) -> Array:
    """Spec: R_k = srsqrt(row_k / (mean over d1 of row_k + 1e-9))."""
    return srsqrt(row / (mean_over(d1, row) + 1e-9))


def col_factor(col: Array) -> Array:
    """Spec: C_k = srsqrt(col_k)."""
    return srsqrt(col)


def common_features(gradient: Array, parameter: Array, state: Accumulators) -> list[Array]:
    """Spec: g | p | m_1..3 | v | m_k times rsqrt(v + 1e-6), 3 of them | rsqrt(v + 1e-6)."""
    inverse_rms = rsqrt(state.second_moment + 1e-6)
    return [
        gradient,
        parameter,
        *state.momenta,
        state.second_moment,
        *[m * inverse_rms for m in state.momenta],
        inverse_rms,
    ]


def factored_features(gradient: Array, state: Accumulators) -> list[Array]:
    """The rest for ndim >= 2.

    Spec: g R_k C_k | row_k | col_k | rsqrt(row_k + 1e-8) | rsqrt(col_k + 1e-8) | m_k R_k C_k, each
    for k = 1..3; R broadcasts along d0, C along d1.
    """
    _, d1 = factored_axes(gradient.shape)
    factors = [
        row_factor(row, d1) * col_factor(col) for row, col in zip(state.row, state.col, strict=True)
    ]
    return [
        *[gradient * factor for factor in factors],
        *state.row,
        *state.col,
        *[rsqrt(row + 1e-8) for row in state.row],
        *[rsqrt(col + 1e-8) for col in state.col],
        *[m * factor for m, factor in zip(state.momenta, factors, strict=True)],
    ]


def diagonal_features(gradient: Array, state: Accumulators) -> list[Array]:
    """The rest for ndim < 2.

    Spec: g srsqrt(diag_k + 1e-9) | diag_k | diag_k | rsqrt(diag_k + 1e-8) | the same |
    m_k times (diag_k + 1e-6) to the power of minus one half, each for k = 1..3.
    """
    inverse_roots = [rsqrt(diag + 1e-8) for diag in state.diag]
    return [
        *[gradient * srsqrt(diag + 1e-9) for diag in state.diag],
        *state.diag,
        *state.diag,
        *inverse_roots,
        *inverse_roots,
        *[m * rsqrt(diag + 1e-6) for m, diag in zip(state.momenta, state.diag, strict=True)],
    ]


def normalise(feature: Array) -> Array:
    """Spec: multiplied by rsqrt(1e-5 + mean(x squared)), the mean over all of the tensor."""
    return feature * rsqrt(1e-5 + np.mean(feature**2))


def normalised_features(gradient: Array, parameter: Array, state: Accumulators) -> list[Array]:
    """Spec: the 28 normalised features per parameter, each of the tensor's shape, in order."""
    rest = factored_features if is_factored(gradient.shape) else diagonal_features
    features = common_features(gradient, parameter, state) + rest(gradient, state)
    assert len(features) == NORMALISED_FEATURES
    return [normalise(np.broadcast_to(feature, parameter.shape)) for feature in features]


def time_features(t: int, kind: str) -> list[float]:
    """Spec: tanh(t/x - 1) ("offset") or tanh(t/x) ("plain") for the 11 time scales x."""
    if kind == "offset":
        return [float(np.tanh(t / x - 1.0)) for x in TIME_SCALES]
    if kind == "plain":
        return [float(np.tanh(t / x)) for x in TIME_SCALES]
    raise ValueError(f"time_feature must be 'offset' or 'plain', not {kind!r}")


def all_features(
    gradient: Array, parameter: Array, state: Accumulators, t: int, kind: str
) -> Array:
    """Spec: the 28 normalised features, then the 11 time features, on a last axis of 39."""
    features = normalised_features(gradient, parameter, state)
    features += [np.full(parameter.shape, value) for value in time_features(t, kind)]
    assert len(features) == ALL_FEATURES
    return np.stack(features, axis=-1)


# --- Network and update ---------------------------------------------------------------------------


def relu(x: Array) -> Array:
    """Spec: ReLU."""
    return np.maximum(x, 0.0)


def network(weights: Mapping[str, Any], features: Array) -> tuple[Array, Array]:
    """Spec: 39 to H to H to 2 with ReLU; the output is (d, m), direction and magnitude."""
    w0, w1, w2 = (as_float64(weights[name]) for name in ("w0", "w1", "w2"))
    b0, b1, b2 = (as_float64(weights[name]) for name in ("b0", "b1", "b2"))
    hidden = relu(features @ w0 + b0)
    hidden = relu(hidden @ w1 + b1)
    output = hidden @ w2 + b2
    return output[..., 0], output[..., 1]


def update(
    parameter: Array, direction: Array, magnitude: Array, multiplier: float, settings: Settings
) -> Array:
    """Spec: p becomes p minus u times lambda_1 times d times exp(lambda_2 times m)."""
    step = settings.step_size * direction * np.exp(settings.magnitude_scale * magnitude)
    return parameter - multiplier * step


def as_float64(x: Any) -> Array:
    """A float64 copy."""
    return np.array(x, dtype=np.float64)


def as_tensor(x: Any) -> Array:
    """A float64 copy. Spec: scalars count as shape (1,)."""
    return np.atleast_1d(as_float64(x))


def train(
    theta: dict[str, Any],
    params: list[np.ndarray],
    gradients: list[list[np.ndarray]],
    multipliers: list[float],
    settings: Settings,
) -> list[np.ndarray]:
    """Parameters after len(gradients) updates of the published small_fc_lopt.

    `gradients[s][i]` is the gradient of `params[i]` at step s and `multipliers[i]` its update
    multiplier u. The result is float64 and has the shapes of `params`; the inputs are not changed.

    Spec: the accumulators are updated before the features are formed, p is the parameter before the
    update, and t is 0 at the first update.
    """
    rates = decays(theta)
    parameters = [as_tensor(param) for param in params]
    states = [zero_accumulators(parameter.shape) for parameter in parameters]
    for t, raw in enumerate(gradients):
        current = before_anything([as_tensor(gradient) for gradient in raw], settings)
        rows = zip(parameters, current, states, multipliers, strict=True)
        for i, (parameter, gradient, state, multiplier) in enumerate(list(rows)):
            assert gradient.shape == parameter.shape
            states[i] = update_accumulators(state, gradient, rates)
            features = all_features(gradient, parameter, states[i], t, settings.time_feature)
            direction, magnitude = network(theta["nn"], features)
            parameters[i] = update(parameter, direction, magnitude, multiplier, settings)
    return [p.reshape(np.shape(param)) for p, param in zip(parameters, params, strict=True)]
