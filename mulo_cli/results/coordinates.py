"""What a coordinate check measured, and what follows: slopes against width, intervals, verdicts.

G. Yang et al., "Tensor Programs V" (2022), on verifying muP by coordinate checks; muLO (B. Therien
et al., 2025), section 5.2.2, Figures 2 and 10 to 12. The papers judge by eye; the rule is ours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.special import stdtrit

TOLERANCE = 0.1
"""A slope within +-0.1 is stable: over a factor of 128 in width, a factor of 1.6 at most."""

CONFIDENCE = 0.95
"""Of the interval of a slope."""

MIN_SEEDS = 3
"""With two, the quantile of Student's t is 12.7 and no interval says anything."""

MIN_WIDTHS = 3
"""A line through two points always fits."""

Verdict: TypeAlias = Literal["stable", "grows", "vanishes", "diverged", "not enough data"]


@dataclass(frozen=True)
class CoordinateRecord:
    """How far training moved the layers of one network.

    Attributes:
        optimizer: as the user named it.
        settings: what that stood for.
        parametrization: of the network.
        recipe_digest: of the recipe that a learned optimizer was meta-trained with, else null.
        task: name of the network.
        real: whether the data set is real data.
        seed: of the initialisation, the order of the data and the probe batch.
        steps: length of the training.
        change: layer, in the network's order, the logits last -> for each step, the standard
            deviation over examples and coordinates of (pre-activations after the step minus those
            at the start) on the probe batch; null where it is not finite.
    """

    optimizer: str
    settings: Mapping[str, float | str]
    parametrization: str
    recipe_digest: str | None
    task: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int
    seed: int
    steps: int
    code_version: str
    change: Mapping[str, tuple[float, ...]]
    kind: Literal["coordinate"] = "coordinate"


@dataclass(frozen=True)
class CoordinateFit:
    """How the change of one layer depends on width: std of change ~ width^slope.

    Attributes:
        optimizer: as the user named it.
        parametrization: of the networks.
        layer: name of the layer.
        steps: those that count: the layer has moved by then at every width, with every seed.
        change: width -> geometric mean over these steps and over seeds.
        slopes: one per seed; none without steps, with too few widths, or where it diverged.
        slope: their mean.
        low, high: ends of its 95 % interval (Student's t over seeds).
        slope_at: step -> mean slope over seeds of that step alone.
        verdict: see `verdict_of`.
    """

    optimizer: str
    parametrization: str
    layer: str
    steps: tuple[int, ...]
    change: Mapping[int, float]
    slopes: tuple[float, ...]
    slope: float | None
    low: float | None
    high: float | None
    slope_at: Mapping[int, float]
    verdict: Verdict
    kind: Literal["coordinate-fit"] = "coordinate-fit"


@dataclass(frozen=True)
class CoordinateVerdict:
    """What is said of one optimizer: it passes if every layer is stable."""

    optimizer: str
    parametrization: str
    verdict: Literal["pass", "fail"]
    layers: Mapping[str, Verdict]
    kind: Literal["coordinate-verdict"] = "coordinate-verdict"


@dataclass(frozen=True)
class CoordinateCheck:
    """The whole check of one optimizer.

    Attributes:
        records: one per width and seed.
        fits: one per layer.
        verdict: of all layers together.
    """

    records: tuple[CoordinateRecord, ...]
    fits: tuple[CoordinateFit, ...]
    verdict: CoordinateVerdict

    @property
    def passed(self) -> bool:
        """Whether every layer is stable."""
        return self.verdict.verdict == "pass"


def check_coordinates(records: Sequence[CoordinateRecord]) -> CoordinateCheck:
    """Fit every layer and judge.

    Args:
        records: of one optimizer, each seed at each width, in any order.
    """
    fits = tuple(fit_layer(records, layer) for layer in records[0].change)
    verdict = CoordinateVerdict(
        optimizer=records[0].optimizer,
        parametrization=records[0].parametrization,
        verdict="pass" if all(fit.verdict == "stable" for fit in fits) else "fail",
        layers={fit.layer: fit.verdict for fit in fits},
    )
    return CoordinateCheck(tuple(records), fits, verdict)


def fit_layer(records: Sequence[CoordinateRecord], layer: str) -> CoordinateFit:
    """Fit log(change) = slope x log(width) + constant for each seed.

    The changes of all steps are combined by their geometric mean, which is the mean of the slopes
    of single steps: each step has the same say, whether its changes are large or small, and the
    noise of single batches averages out. A step at which some network has not moved at all (under
    muP, hidden layers at the first step, for the readout starts at zero) says nothing about powers
    of the width and is left out for all of them, lest widths be compared at different steps.
    """
    widths = sorted({record.width for record in records})
    change_WxSxT = _changes(records, layer, widths)
    counted = np.flatnonzero((change_WxSxT != 0.0).all(axis=(0, 1)))
    steps = tuple(int(step) + 1 for step in counted)
    log_WxSxT = np.log(change_WxSxT[:, :, counted])
    diverged = not np.isfinite(change_WxSxT).all()
    fitted = not diverged and len(widths) >= MIN_WIDTHS
    slopes_SxT = _slopes(widths, log_WxSxT) if fitted else np.zeros((0, counted.size))
    slopes = tuple(float(of_seed.mean()) for of_seed in slopes_SxT if of_seed.size)
    interval = confidence_interval(slopes)
    return CoordinateFit(
        optimizer=records[0].optimizer,
        parametrization=records[0].parametrization,
        layer=layer,
        steps=steps,
        change=_geometric_means(widths, log_WxSxT),
        slopes=slopes,
        slope=sum(slopes) / len(slopes) if slopes else None,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        slope_at={
            step: float(of_step.mean())
            for step, of_step in zip(steps, slopes_SxT.T, strict=True)
            if of_step.size
        },
        verdict="diverged" if diverged else verdict_of(interval),
    )


def confidence_interval(slopes: Sequence[float]) -> tuple[float, float] | None:
    """Return mean -+ t s / sqrt(n) over seeds, None with fewer than three."""
    n = len(slopes)
    if n < MIN_SEEDS:
        return None
    mean = float(np.mean(slopes))
    quantile = float(stdtrit(n - 1, (1.0 + CONFIDENCE) / 2.0))
    half = quantile * float(np.std(slopes, ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


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


def _changes(records: Sequence[CoordinateRecord], layer: str, widths: Sequence[int]) -> np.ndarray:
    """Return the changes of a layer as an array of widths x seeds x steps."""
    by_place = {(record.width, record.seed): record.change[layer] for record in records}
    seeds = sorted({record.seed for record in records})
    return np.array([[by_place[width, seed] for seed in seeds] for width in widths], np.float64)


def _slopes(widths: Sequence[int], log_WxSxT: np.ndarray) -> np.ndarray:
    """Return least-squares slopes against log(width), seeds x steps."""
    x_W = np.log(np.array(widths, np.float64))
    x_W = x_W - x_W.mean()
    return np.einsum("w,wst->st", x_W, log_WxSxT) / (x_W @ x_W)


def _geometric_means(widths: Sequence[int], log_WxSxT: np.ndarray) -> dict[int, float]:
    """Return width -> mean over seeds and steps; nothing where there is nothing to average."""
    if not log_WxSxT.size:
        return {}
    means = np.exp(log_WxSxT.mean(axis=(1, 2)))
    return dict(zip(widths, map(float, means), strict=True))
