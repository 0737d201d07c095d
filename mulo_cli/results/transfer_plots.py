"""Pictures of learning-rate transfer: loss against rate, one line per size, the best one marked.

A. Gupta et al., "Extending muP: spectral conditions for feature learning across optimizers",
Figure 1, shows such lines.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mulo_cli.results.plots import save_figure, width_colours
from mulo_cli.results.transfer import Sweep, TransferVerdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (4.4, 3.4)
"""Inches."""

MARGIN = 0.9
"""Inches beside the panels, for the legend."""

HEADROOM = 0.15
"""Of the span between the best and the worst size's losses at the lowest rate, above it."""


def plot_transfer(sweeps: Sequence[Sweep], verdicts: Sequence[TransferVerdict], path: Path) -> None:
    """Draw one panel per sweep.

    Args:
        sweeps: of the same sizes.
        verdicts: of each.
        path: ends in .png or .svg.

    Raises:
        OutputError: the file cannot be written.
    """
    save_figure(draw_transfer(sweeps, verdicts), path)


def draw_transfer(sweeps: Sequence[Sweep], verdicts: Sequence[TransferVerdict]) -> "Figure":
    """Return the picture of `plot_transfer`."""
    from matplotlib.figure import Figure

    size = (PANEL[0] * len(sweeps) + MARGIN, PANEL[1])
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(1, len(sweeps), squeeze=False, sharey=True).flat)
    for panel, sweep, verdict in zip(panels, sweeps, verdicts, strict=True):
        _draw(panel, sweep, verdict)
    panels[0].set_ylabel(f"{sweeps[0].measure} loss (nats)")
    panels[0].set_ylim(_limits(sweeps))
    handles, names = panels[0].get_legend_handles_labels()
    title = sweeps[0].axis
    figure.legend(handles, names, title=title, loc="outside right upper", frameon=False)
    return figure


def _draw(panel: "Axes", sweep: Sweep, verdict: TransferVerdict) -> None:
    for size, colour in zip(sweep.sizes, width_colours(len(sweep.sizes)), strict=True):
        means = sweep.means(size)
        errors = sweep.losses[size].std(axis=0) / np.sqrt(len(sweep.losses[size]))
        panel.plot(sweep.rates, means, color=colour, label=str(size), lw=1.4, marker=".", ms=4)
        panel.fill_between(
            sweep.rates, means - errors, means + errors, color=colour, alpha=0.2, lw=0
        )
        if np.isfinite(means).any():
            best = int(np.nanargmin(means))
            panel.plot(
                sweep.rates[best],
                means[best],
                marker="*",
                ms=12,
                color=colour,
                mec="black",
                mew=0.6,
            )
    panel.set_xscale("log")
    panel.set_xlabel("learning rate")
    panel.set_title(
        f"{sweep.optimizer} ({sweep.parametrization})\n{_judged(verdict)}", fontsize="small"
    )


def _judged(verdict: TransferVerdict) -> str:
    if verdict.drift is None or verdict.low is None:
        return verdict.verdict
    return (
        f"{verdict.drift:+.2f} [{verdict.low:+.2f}, {verdict.high:+.2f}] bits per doubling: "
        f"{verdict.verdict}"
    )


def _limits(sweeps: Sequence[Sweep]) -> tuple[float, float]:
    """Return the ends of the loss axis: rates far too high would squeeze all others into a line."""
    means = [sweep.means(size) for sweep in sweeps for size in sweep.sizes]
    finite = np.concatenate([of[np.isfinite(of)] for of in means])
    if not finite.size:
        return 0.0, 1.0
    lowest, highest = float(finite.min()), float(np.percentile(finite, 90.0))
    beside = HEADROOM * max(highest - lowest, 1e-3)
    return lowest - beside, highest + beside
