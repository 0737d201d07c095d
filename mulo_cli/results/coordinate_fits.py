"""Powers of the width (or of the depth) behind measured numbers: slopes, intervals, verdicts.

G. Yang et al., "Tensor Programs V" (2022), on verifying muP by coordinate checks; muLO (B. Therien
et al., 2025), section 5.2.2. The papers judge by eye; the rule is ours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.special import fdtri, stdtrit

TOLERANCE = 0.1
"""A slope within +-0.1 is stable: over a factor of 128 in width, a factor of 1.6 at most."""

CONFIDENCE = 0.95
"""Of the interval of a slope."""

POOLED_BELOW = 0.75
"""Seeds share one slope if their slopes do not differ more than in this share of chance's draws."""

MIN_SEEDS = 3
"""With fewer nobody knows how much of a slope is chance."""

MIN_SIZES = 3
"""A line through two points always fits."""

MOST_DROPPED = 2
"""So many of the smallest networks may be too small for the power to show."""

Verdict: TypeAlias = Literal["stable", "grows", "vanishes", "diverged", "not enough data"]
Axis: TypeAlias = Literal["width", "depth"]
LayerMeasure: TypeAlias = Literal["reads", "size", "size_after", "change_std", "change_l1", "mean"]
TensorMeasure: TypeAlias = Literal[
    "start", "change", "shrinkage", "spectral_start", "spectral_change"
]
Measure: TypeAlias = LayerMeasure | TensorMeasure | Literal["effect"]
"""What is measured of layers and tensors (see `coordinate_records`), and of a stack's blocks: what
their changes did to the loss, over what all others did."""


@dataclass(frozen=True)
class PowerFit:
    """How a positive number depends on the size of a network: number ~ size^slope.

    Attributes:
        sizes: that count, ascending.
        dropped: smallest ones that do not: with them the number is not stable, without it is.
        steps: that count: the number is not zero by then at any size, with any seed (0: before
            training).
        values: size -> geometric mean over these steps and over seeds; null where it diverged.
        slopes: one per seed; none without steps, with too few sizes, or where it diverged.
        slope: their mean.
        low, high: ends of its 95 % interval (see `common_slope`).
        slope_at: step -> mean slope over seeds of that step alone.
        verdict: see `verdict_of`.
    """

    sizes: tuple[int, ...]
    dropped: tuple[int, ...]
    steps: tuple[int, ...]
    values: Mapping[int, float | None]
    slopes: tuple[float, ...]
    slope: float | None
    low: float | None
    high: float | None
    slope_at: Mapping[int, float]
    verdict: Verdict


@dataclass(frozen=True)
class FitPlace:
    """What a fit is about.

    Attributes:
        optimizer: as the user named it.
        parametrization: of the networks.
        axis: what the sizes are.
        layer: name of the layer; where depths are compared, `blocks[first]` and `blocks[last]` are
            the first and the last block of a stack.
        tensor: name of the tensor; null where it is not one that was measured.
        measure: what was measured.
        judged: whether the verdict of the check depends on it.
        own: whether it is a layer's own, and no consequence of what lies before.
        note: why it is not judged though its like is, or cannot be judged yet.
    """

    optimizer: str
    parametrization: str
    axis: Axis
    layer: str
    tensor: str | None
    measure: Measure
    judged: bool
    own: bool
    note: str

    @property
    def place(self) -> str:
        """The tensor, or else the layer."""
        return self.tensor or self.layer


@dataclass(frozen=True)
class CoordinateFit(PowerFit, FitPlace):
    """How one measure depends on the size of the network."""

    kind: Literal["coordinate-fit"] = "coordinate-fit"

    @property
    def failed(self) -> bool:
        """Whether the check fails by it."""
        return self.judged and self.verdict in ("grows", "vanishes", "diverged")


def fit_power(
    sizes: Sequence[int],
    values_NxSxT: np.ndarray,
    steps: Sequence[int],
    most_steps: int | None = None,
) -> PowerFit:
    """Fit log(number) = slope x log(size) + constant for each seed, and judge.

    The numbers of all steps are combined by their geometric mean, which is the mean of the slopes
    of single steps: each step has the same say, and the noise of single batches averages out. A
    step at which some number is zero (under muP hidden layers have not moved after the first step,
    for the readout starts at zero) says nothing about powers and is left out for all networks, lest
    sizes be compared at different steps.

    Args:
        sizes: ascending.
        values_NxSxT: by size, seed and step; not negative; nan where a number was not finite.
        steps: what the steps are called.
        most_steps: of the steps that are not left out, so many first ones count.
    """
    whole = _fit(sizes, values_NxSxT, steps, most_steps, 0)
    if whole.verdict in ("stable", "diverged"):
        return whole
    for dropped in range(1, MOST_DROPPED + 1):
        if len(sizes) - dropped < MIN_SIZES:
            break
        fewer = _fit(sizes, values_NxSxT, steps, most_steps, dropped)
        if fewer.verdict == "stable":
            return fewer
    return whole


def common_slope(sizes: Sequence[int], log_NxS: np.ndarray) -> tuple[float, float] | None:
    """Return the ends of the interval of the mean slope of seeds, by Student's t.

    Each seed has a constant of its own (its data, its probe batch). Where slopes of seeds differ no
    more than numbers that lie around their own lines explain, all have one slope, and what is left
    of N x S numbers has N S - S - 1 degrees of freedom. Else seeds have slopes of their own, and
    these alone tell, with S - 1 degrees of freedom. Pooling by such a test is the "sometimes pool"
    rule of H. Bozivich, T. Bancroft and H. Hartley, "Power of analysis of variance test procedures
    for certain incompletely specified models" (1956), with their level of 25 %.

    How often the interval holds the true slope, measured at five widths with noise of 0.05 in the
    logarithms, and slopes of seeds with a standard deviation of 0, 0.05 and 0.1: 96, 91 and 94 %
    with three seeds, 96, 95 and 95 % with eight (always pooled: 95, 75 and 64 % with three).

    Args:
        sizes: N of them.
        log_NxS: logarithms by size and seed.

    Returns:
        None with fewer than three seeds or sizes.
    """
    n, seeds = log_NxS.shape
    if seeds < MIN_SEEDS or n < MIN_SIZES:
        return None
    x_N = _centred_logs(sizes)
    spread = float(x_N @ x_N)
    slopes_S = x_N @ log_NxS / spread
    residuals_NxS = log_NxS - log_NxS.mean(axis=0) - slopes_S * x_N[:, None]
    within, between = float((residuals_NxS**2).sum()), spread * seeds * float(slopes_S.var())
    of_lines, of_seeds = seeds * (n - 2), seeds - 1
    bound = float(fdtri(of_seeds, of_lines, POOLED_BELOW))
    if between / of_seeds < bound * within / of_lines:
        freedom, squares = of_lines + of_seeds, within + between
    else:
        freedom, squares = of_seeds, between
    half = _quantile(freedom) * math.sqrt(squares / freedom / (seeds * spread))
    slope = float(slopes_S.mean())
    return slope - half, slope + half


def verdict_of(interval: tuple[float, float] | None) -> Verdict:
    """Judge a slope by its interval.

    Stable if all of it lies within +-0.1, grows or vanishes if all of it lies beyond; if it
    contains one of the borders, the data do not tell.
    """
    if interval is None:
        return "not enough data"
    low, high = interval
    if low >= -TOLERANCE and high <= TOLERANCE:
        return "stable"
    if low > TOLERANCE:
        return "grows"
    return "vanishes" if high < -TOLERANCE else "not enough data"


def _fit(
    sizes: Sequence[int],
    values_NxSxT: np.ndarray,
    steps: Sequence[int],
    most_steps: int | None,
    dropped: int,
) -> PowerFit:
    """Fit without the smallest `dropped` sizes."""
    kept_NxSxT = values_NxSxT[dropped:]
    counted = np.flatnonzero((kept_NxSxT != 0.0).all(axis=(0, 1)))[:most_steps]
    kept_NxSxT = kept_NxSxT[:, :, counted]
    diverged = not np.isfinite(kept_NxSxT).all()
    fitted = not diverged and len(sizes) - dropped >= MIN_SIZES and counted.size > 0
    log_NxSxT = np.log(kept_NxSxT) if fitted else np.zeros((0, 0, 0))
    slopes_SxT = _slopes(sizes[dropped:], log_NxSxT) if fitted else np.zeros((0, 0))
    slopes = tuple(float(of_seed.mean()) for of_seed in slopes_SxT)
    interval = common_slope(sizes[dropped:], log_NxSxT.mean(axis=2)) if fitted else None
    named = tuple(steps[step] for step in counted)
    return PowerFit(
        sizes=tuple(sizes[dropped:]),
        dropped=tuple(sizes[:dropped]),
        steps=named,
        values=_geometric_means(sizes, values_NxSxT[:, :, counted]),
        slopes=slopes,
        slope=sum(slopes) / len(slopes) if slopes else None,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        slope_at={s: float(x.mean()) for s, x in zip(named, slopes_SxT.T, strict=False)},
        verdict="diverged" if diverged else verdict_of(interval),
    )


def _quantile(freedom: int) -> float:
    """Return how many standard errors the interval reaches to either side."""
    return float(stdtrit(freedom, (1.0 + CONFIDENCE) / 2.0))


def _centred_logs(sizes: Sequence[int]) -> np.ndarray:
    logs_N = np.log(np.array(sizes, np.float64))
    return logs_N - logs_N.mean()


def _slopes(sizes: Sequence[int], log_NxSxT: np.ndarray) -> np.ndarray:
    """Return least-squares slopes against log(size)."""
    x_N = _centred_logs(sizes)
    return np.einsum("n,nst->st", x_N, log_NxSxT) / (x_N @ x_N)


def _geometric_means(sizes: Sequence[int], values_NxSxT: np.ndarray) -> dict[int, float | None]:
    """Return size -> mean over seeds and steps; nothing where there is nothing to average."""
    if not values_NxSxT.size:
        return {}
    with np.errstate(divide="ignore"):  # a size that does not count may have stood still
        means = np.exp(np.log(values_NxSxT).mean(axis=(1, 2))).tolist()
    return {
        size: mean if math.isfinite(mean) else None for size, mean in zip(sizes, means, strict=True)
    }
