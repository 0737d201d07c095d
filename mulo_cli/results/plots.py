"""Pictures of results; the only file that knows matplotlib, which the extra `plot` installs."""

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mulo_cli.errors import UsageError
from mulo_cli.results.coordinate_fits import CoordinateFit, LayerMeasure
from mulo_cli.results.coordinate_networks import Table, tabulated
from mulo_cli.results.coordinates import CoordinateCheck
from mulo_cli.results.store import not_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Colour: TypeAlias = tuple[float, float, float, float]
"""Red, green, blue, opacity."""

SUFFIXES = (".png", ".svg")
"""Kinds of pictures."""

PANEL = (2.9, 2.4)
"""Inches."""

MOST_IN_LINE = 6
"""Panels side by side; a deep network's layers go on in the next line."""

MOST_PANELS = 12
"""Of one optimizer, unless more layers are named; of deeper networks some stand for all."""

MARGIN = 1.3
"""Inches beside the panels, for the legend."""

DPI = 150

LINE = 1.4
"""Width of a line, in points."""

FEWEST_SPREAD = 2
"""Panels beside those of layers that are named: the first and the last layer."""

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

TITLE_INCHES = 0.09
"""Of one character of what stands above an optimizer's panels, roughly."""

FAILED = "#b00020"
"""Colour of what a check names; a sign stands beside it."""

MEASURES: dict[LayerMeasure, str] = {
    "change_std": "std of change",
    "change_l1": "mean |change|",
    "size": "mean |output|",
    "mean": "mean output\nrelative to step 1",
}
"""What a picture can show of layers, and what the axis says."""


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


def plot_coordinates(
    checks: Sequence[CoordinateCheck], path: Path, measure: LayerMeasure = "change_std"
) -> None:
    """Draw what layers do over training: a row per optimizer, a panel per layer, a line per size.

    As in muLO, Figures 2 and 10 to 12 (standard deviation of the change), and S. Gupta et al. on
    spectral muP, Figures 2 to 7 (mean relative to step 1); each line is the mean over seeds,
    geometric where numbers are positive.

    Args:
        checks: of the same network; some sizes may be left out of some.
        path: ends in one of `SUFFIXES`.
        measure: one of `MEASURES`.

    Raises:
        OutputError: the file cannot be written.
    """
    save_figure(draw_coordinates(checks, measure), path)


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


def width_colours(number: int) -> list[Colour]:
    """Return colours for so many widths, the narrowest network's the lightest."""
    from matplotlib import colormaps

    shades = np.linspace(LIGHTEST, DARKEST, number)
    return [colormaps["viridis_r"](float(shade)) for shade in shades]


def draw_coordinates(
    checks: Sequence[CoordinateCheck], measure: LayerMeasure = "change_std"
) -> "Figure":
    """Return the picture of `plot_coordinates`; no state of matplotlib's is touched."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    tables = [tabulated(check.records) for check in checks]
    sizes = sorted({size for table in tables for size in table.sizes})
    colours = dict(zip(sizes, width_colours(len(sizes)), strict=True))
    rows = [
        _Row(check, table, measure, colours) for check, table in zip(checks, tables, strict=True)
    ]
    layers = drawn_layers(checks, rows[0].table)
    lines = -(-len(layers) // MOST_IN_LINE)
    columns = -(-len(layers) // lines)
    size = (PANEL[0] * columns + MARGIN, PANEL[1] * lines * len(checks))
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(checks), 1, squeeze=False)[:, 0]
    for row, part in zip(rows, parts, strict=True):
        _draw_check(part, row, layers, lines, columns, size[0])
    handles = [Line2D([], [], color=colours[s], lw=LINE, label=str(s)) for s in colours]
    axis = rows[0].table.axis
    figure.legend(handles=handles, title=axis, loc="outside right upper", frameon=False)
    return figure


@dataclass(frozen=True)
class _Row:
    """What one row of panels shows."""

    check: CoordinateCheck
    table: Table
    measure: LayerMeasure
    colours: Mapping[int, Colour]

    def fit(self, layer: str) -> CoordinateFit | None:
        for fit in self.check.fits:
            if (fit.layer, fit.tensor, fit.measure) == (layer, None, self.measure):
                return fit
        return None

    def names(self, layer: str) -> bool:
        """Whether this is the layer that the check names."""
        culprit = self.check.verdict.culprit
        return culprit is not None and layer in (culprit.layer, culprit.seen_at)


def drawn_layers(checks: Sequence[CoordinateCheck], table: Table) -> list[str]:
    """Return the layers that get a panel: of deep networks the first, the last, what is named.

    Args:
        checks: of one network.
        table: of the records of one of them.
    """
    layers = [layer for layer in table.order if layer in table.first.layers]
    if len(layers) <= MOST_PANELS:
        return layers
    culprits = [check.verdict.culprit for check in checks if check.verdict.culprit]
    named = {name for one in culprits for name in (one.layer, one.seen_at)} & set(layers)
    free = max(MOST_PANELS - len(named), FEWEST_SPREAD)
    spread = {layers[round(n * (len(layers) - 1) / (free - 1))] for n in range(free)}
    return [layer for layer in layers if layer in named | spread]


def _draw_check(
    part: "SubFigure", row: _Row, layers: Sequence[str], lines: int, columns: int, inches: float
) -> None:
    """Draw one row of panels, and above it what the check says."""
    grid = part.subplots(lines, columns, squeeze=False, sharex=True)
    for panel, layer in zip(grid.flat, layers, strict=False):
        _draw_layer(panel, row, layer)
    for panel in grid.flat[len(layers) :]:
        panel.remove()
    for line in grid:
        line[0].set_ylabel(MEASURES[row.measure], fontsize="small")
    for column in range(columns):
        last = max(n for n in range(lines) if n * columns + column < len(layers))
        grid[last][column].set_xlabel("step")
        grid[last][column].tick_params(labelbottom=True)
    verdict = row.check.verdict
    told = f"{verdict.optimizer} ({verdict.parametrization}): {verdict.verdict}"
    if verdict.culprit is not None:
        told += f" · {verdict.culprit.layer}: {verdict.diagnosis}"
    part.suptitle(
        textwrap.fill(told, int(inches / TITLE_INCHES)), x=0.01, ha="left", fontsize="medium"
    )


def _draw_layer(panel: "Axes", row: _Row, layer: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    curves = {size: mean_curve(row.table, layer, size, row.measure) for size in row.table.sizes}
    first = 0 if row.measure == "size" else 1
    for size, curve in curves.items():
        steps = np.arange(first, first + len(curve))
        panel.plot(steps, curve, color=row.colours[size], label=str(size), lw=LINE)
    known = np.concatenate(list(curves.values()))
    known = known[np.isfinite(known)]
    if known.size and known.min() > 0.0 and known.max() / known.min() > LOG_SPAN:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=LOG_TICKS))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
    elif row.measure != "mean":
        panel.set_ylim(bottom=0.0)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    fit, named = row.fit(layer), row.names(layer)
    panel.set_title(
        f"{layer}{' ◀' if named else ''}" + (f"\n{_judged(fit)}" if fit else ""),
        fontsize="small",
        color=FAILED if named else "black",
    )


def mean_curve(table: Table, layer: str, size: int, measure: LayerMeasure) -> np.ndarray:
    """Return the mean over seeds at each step; a gap where there is none.

    Means relative to step 1 have signs; all else is positive, and a layer that has not moved has
    no logarithm.
    """
    traces = [table.records[size, seed].layers[layer] for seed in table.seeds]
    curves = np.array([getattr(trace, measure) for trace in traces], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if measure == "mean":
            return (curves[:, 1:] / curves[:, 1:2]).mean(axis=0)
        moved = np.where((curves > 0.0) & np.isfinite(curves), curves, np.nan)
        return np.exp(np.log(moved).mean(axis=0))


def _judged(fit: CoordinateFit) -> str:
    verdict = fit.verdict if fit.judged else f"({fit.verdict})"
    if fit.slope is None or fit.high is None:
        return verdict
    return f"slope {fit.slope:+.2f} ± {fit.high - fit.slope:.2f}: {verdict}"
