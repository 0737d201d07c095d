"""Pictures of an evaluation: loss against width, and each optimizer's curves at every width.

muLO (B. Therien et al., 2025), Figures 1, 4 and 5 show such curves. Under a parametrization that
carries over, wider is not worse, and the curves of all widths lie close together.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mulo_cli.results.plots import NAME_LINE, save_figure, width_colours
from mulo_cli.results.records import EvaluationRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
"""Panels side by side."""

PANEL = (3.6, 2.8)
"""Inches."""

MARGIN = 0.9
"""Inches beside the panels, for the legend of widths."""

MARKERS = "os^vDPX*<>hp"
"""Optimizers are told apart by marker as well as by colour."""

HEADROOM = 3.0
"""The axis ends at so many times the highest loss of a beginning: a run that blows up would squeeze
all others into a line."""


def plot_evaluation(rows: Sequence[EvaluationRow], path: Path) -> None:
    """Draw rows of one network and data set at several widths.

    Args:
        rows: at least one; lines are means over seeds, bars their standard errors.
        path: ends in .png or .svg.

    Raises:
        OutputError: the file cannot be written.
    """
    save_figure(draw_evaluation(rows), path)


def draw_evaluation(rows: Sequence[EvaluationRow]) -> "Figure":
    """Return the picture of `plot_evaluation`."""
    from matplotlib.figure import Figure

    optimizers = list(dict.fromkeys(row.optimizer for row in rows))
    lines = -(-(1 + len(optimizers)) // COLUMNS)
    size = (PANEL[0] * COLUMNS + MARGIN, PANEL[1] * lines)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(lines, COLUMNS, squeeze=False).flat)
    _draw_against_width(panels[0], rows, optimizers)
    limits = _loss_limits(rows)
    for panel, optimizer in zip(panels[1:], optimizers, strict=False):
        _draw_curves(panel, [row for row in rows if row.optimizer == optimizer])
        panel.set_title(textwrap.fill(optimizer, 2 * NAME_LINE), fontsize="small")
        panel.set_ylim(limits)
    for panel in panels[1 + len(optimizers) :]:
        panel.set_axis_off()
    panels[0].set_ylim(limits)
    handles, names = panels[1].get_legend_handles_labels()
    figure.legend(handles, names, title="width", loc="outside right upper", frameon=False)
    return figure


def _loss_limits(rows: Sequence[EvaluationRow]) -> tuple[float, float]:
    """Return the ends of all loss axes: a little below the lowest loss, well above beginnings."""
    losses = [loss for row in rows for loss in row.curve if loss is not None]
    beginnings = [row.curve[0] for row in rows if row.curve[0] is not None]
    return 0.8 * min(losses, default=0.1), HEADROOM * max(beginnings, default=10.0)


def _draw_against_width(
    panel: "Axes", rows: Sequence[EvaluationRow], optimizers: Sequence[str]
) -> None:
    """Draw the last smoothed loss; widths at which a run diverged are left out of a line."""
    for number, optimizer in enumerate(optimizers):
        of_one = [row for row in rows if row.optimizer == optimizer]
        widths = sorted({row.width for row in of_one})
        losses = [[row.final_loss for row in of_one if row.width == width] for width in widths]
        told = [[math.nan if loss is None else loss for loss in of_width] for of_width in losses]
        means = [float(np.mean(of_width)) for of_width in told]
        errors = [float(np.std(of_width) / math.sqrt(len(of_width))) for of_width in told]
        panel.errorbar(
            widths,
            means,
            errors,
            label=textwrap.shorten(optimizer, NAME_LINE),
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            lw=1.2,
            capsize=2,
        )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    widths = sorted({row.width for row in rows})
    panel.set_xticks(widths, [str(width) for width in widths])
    panel.set_xlabel("width")
    panel.set_ylabel(f"training loss, last {rows[0].window} of {rows[0].at[-1]} steps")
    panel.legend(fontsize="x-small", frameon=False)


def _draw_curves(panel: "Axes", rows: Sequence[EvaluationRow]) -> None:
    widths = sorted({row.width for row in rows})
    for width, colour in zip(widths, width_colours(len(widths)), strict=True):
        curves = np.array(
            [
                [math.nan if x is None else x for x in row.curve]
                for row in rows
                if row.width == width
            ]
        )
        steps = (np.arange(curves.shape[1]) + 0.5) * rows[0].curve_every
        panel.plot(steps, curves.mean(axis=0), color=colour, label=str(width), lw=1.3)
    panel.set_yscale("log")
    panel.set_xlabel("step")
