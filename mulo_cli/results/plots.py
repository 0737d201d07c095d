"""Pictures of results; the only file that knows matplotlib, which the extra `plot` installs."""

import math
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mulo_cli.errors import UsageError
from mulo_cli.results.coordinates import CoordinateCheck, CoordinateFit
from mulo_cli.results.store import not_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
"""Kinds of pictures."""

PANEL = (2.9, 2.4)
"""Inches."""

MOST_IN_LINE = 8
"""Panels side by side; a deep network's layers go on in the next line."""

MARGIN = 1.3
"""Inches beside the panels, for the legend."""

DPI = 150

TIMELESS = {".svg": {"Date": None}}
"""The same picture is the same file."""

DARKEST, LIGHTEST = 0.95, 0.15
"""Ends of the colour map that are used: the narrowest network is the lightest line."""

LOG_SPAN = 20.0
"""Changes of a panel that span more than this factor are drawn on a logarithmic axis."""

LOG_TICKS = (1.0, 2.0, 5.0)
"""Which multiples of powers of ten a logarithmic axis names."""

NAME_LINE = 24
"""Characters of an optimizer's name in one line."""


def prepare_plot(path: Path) -> None:
    """Find out now, before anything is computed, whether a picture can be written.

    Raises:
        UsageError: an unknown kind of picture, or matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{str(path)!r} is not a kind of picture that can be drawn",
            f"give a file that ends in {' or '.join(SUFFIXES)}",
        )
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"pictures need matplotlib, which cannot be imported: {error}",
            "pip install 'mulo-cli[plot]'",
        ) from error
    new = not path.exists()
    try:
        with path.open("ab"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise not_writable(path, error) from error


def plot_coordinates(checks: Sequence[CoordinateCheck], path: Path) -> None:
    """Draw the change of every layer over training, as in muLO, Figures 2 and 10 to 12.

    One row per optimizer (several where there are many layers), one panel per layer; each line is
    one width, the geometric mean over seeds.

    Args:
        checks: of the same layers.
        path: ends in one of `SUFFIXES`.

    Raises:
        OutputError: the file cannot be written.
    """
    save_figure(draw_coordinates(checks), path)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a picture; a former one is replaced when the new one is complete.

    Raises:
        OutputError: the file cannot be written.
    """
    draft = path.with_name(f".{path.stem}.draft{path.suffix}")
    try:
        figure.savefig(draft, dpi=DPI, metadata=TIMELESS.get(path.suffix.lower()))
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise not_writable(path, error) from error


def width_colours(number: int) -> list[tuple[float, float, float, float]]:
    """Return colours for so many widths, the narrowest network's the lightest."""
    from matplotlib import colormaps

    shades = np.linspace(LIGHTEST, DARKEST, number)
    return [colormaps["viridis_r"](float(shade)) for shade in shades]


def draw_coordinates(checks: Sequence[CoordinateCheck]) -> "Figure":
    """Return the picture of `plot_coordinates`; no state of matplotlib's is touched."""
    from matplotlib.figure import Figure

    layers = len(checks[0].fits)
    lines = -(-layers // MOST_IN_LINE)
    columns = -(-layers // lines)
    size = (PANEL[0] * columns + MARGIN, PANEL[1] * lines * len(checks))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines * len(checks), columns, squeeze=False, sharex=True)
    for number, check in enumerate(checks):
        block = grid[number * lines : (number + 1) * lines]
        for panel, fit in zip(block.flat, check.fits, strict=False):
            _draw_layer(panel, check, fit)
        for panel in block.flat[layers:]:
            panel.remove()
        name = f"{check.verdict.optimizer} ({check.verdict.parametrization})"
        for line in block:
            line[0].set_ylabel(
                f"{textwrap.fill(name, NAME_LINE)}\n\nstd of change", fontsize="small"
            )
    for panel in grid[-1]:
        panel.set_xlabel("step")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, title="width", loc="outside right upper", frameon=False)
    return figure


def _draw_layer(panel: "Axes", check: CoordinateCheck, fit: CoordinateFit) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    widths = sorted({record.width for record in check.records})
    for width, colour in zip(widths, width_colours(len(widths)), strict=True):
        curve = _mean_curve(check, fit.layer, width)
        steps = np.arange(1, len(curve) + 1)
        panel.plot(steps, curve, color=colour, label=str(width), lw=1.4)
    if _span(check, fit.layer) > LOG_SPAN:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=LOG_TICKS))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
    else:
        panel.set_ylim(bottom=0.0)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    panel.set_title(f"{fit.layer}\n{_judged(fit)}", fontsize="small")


def _mean_curve(check: CoordinateCheck, layer: str, width: int) -> np.ndarray:
    """Return the geometric mean over seeds at each step; a gap where a layer has not moved."""
    curves = np.array([r.change[layer] for r in check.records if r.width == width], np.float64)
    moved = np.where((curves > 0.0) & np.isfinite(curves), curves, np.nan)
    return np.exp(np.log(moved).mean(axis=0))


def _span(check: CoordinateCheck, layer: str) -> float:
    """Return the largest change of a layer divided by its smallest."""
    values = [c for r in check.records for c in r.change[layer] if c > 0.0 and math.isfinite(c)]
    return max(values) / min(values) if values else 1.0


def _judged(fit: CoordinateFit) -> str:
    if fit.slope is None or fit.high is None:
        return fit.verdict
    return f"slope {fit.slope:+.2f} ± {fit.high - fit.slope:.2f}: {fit.verdict}"
