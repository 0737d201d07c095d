"""What rows tell of a training's losses: smoothed ones, divergence, a curve of few points.

Definitions (ours; the papers give none): the smoothed loss at step s is the mean training loss of
the `window` steps up to s; a run has diverged at its first step with a non-finite loss.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

CURVE_POINTS = 50
"""A stored curve has at most so many points."""


def summarise_losses(
    losses: Float[np.ndarray, " T"], window: int, at: Sequence[int]
) -> dict[str, Any]:
    """Return the fields of a row that are told from the losses alone."""
    finite = np.isfinite(losses)
    diverged_at = None if finite.all() else int(np.argmin(finite)) + 1
    every = -(-len(losses) // CURVE_POINTS)
    stretches = [losses[start : start + every] for start in range(0, len(losses), every)]
    return {
        "smoothed_loss": {step: _smoothed(losses, window, step, diverged_at) for step in at},
        "status": "diverged" if diverged_at else "ok",
        "diverged_at": diverged_at,
        "curve_every": every,
        "curve": tuple(_finite(np.mean(stretch)) for stretch in stretches),
    }


def _finite(mean: np.floating) -> float | None:
    return float(mean) if np.isfinite(mean) else None


def _smoothed(
    losses: Float[np.ndarray, " T"], window: int, step: int, diverged_at: int | None
) -> float | None:
    if diverged_at is not None and diverged_at <= step:
        return None
    return float(np.mean(losses[max(0, step - window) : step]))
