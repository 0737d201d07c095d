"""Pictures of data: a contact sheet of images, and how often the tokens of a text occur."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mulo_cli.errors import printable
from mulo_cli.results.plots import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 8
"""Images side by side."""

TILE = (1.1, 1.3)
"""Inches of an image with its class's name."""

NAME = 16
"""Characters of a class's name that are shown."""

CURVE = (6.0, 4.0)
"""Inches."""


def plot_images(images: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw a contact sheet.

    Args:
        images: `[n, r, c]` or `[n, r, c, ch]`, of any range of values.
        names: what stands above each.
        path: ends in .png or .svg.

    Raises:
        OutputError: the file cannot be written.
    """
    save_figure(draw_images(images, names), path)


def draw_images(images: np.ndarray, names: Sequence[str]) -> "Figure":
    """Return the picture of `plot_images`."""
    from matplotlib.figure import Figure

    lines = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(TILE[0] * COLUMNS, TILE[1] * lines), layout="constrained")
    tiles = list(figure.subplots(lines, COLUMNS, squeeze=False).flat)
    for tile, image, name in zip(tiles, _shades(images), names, strict=False):
        tile.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        tile.set_title(_label(name), fontsize="x-small", parse_math=False)
    for tile in tiles:
        tile.set_axis_off()
    return figure


def _shades(images: np.ndarray) -> np.ndarray:
    """Bring values to 0..1, all images alike: bytes by their range, others by their own."""
    values = images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
    if values.ndim == 4 and values.shape[-1] not in (3, 4):
        values = values.mean(axis=-1)
    if values.dtype == np.uint8 and values.max() > 127:
        return values / 255.0
    low, high = float(values.min()), float(values.max())
    return (values.astype(np.float64) - low) / max(high - low, 1e-12)


def _label(name: str) -> str:
    """Return a class's name without anything that cannot be drawn."""
    shown = printable(name)
    return textwrap.shorten(shown, NAME, placeholder="...") or shown[:NAME]


def plot_token_frequencies(counts: Sequence[int], path: Path) -> None:
    """Draw the share of every token against its rank, both logarithmic.

    Natural language comes near a straight line (G. K. Zipf, 1949).

    Args:
        counts: of every token, the most frequent first.
        path: ends in .png or .svg.

    Raises:
        OutputError: the file cannot be written.
    """
    save_figure(draw_token_frequencies(counts), path)


def draw_token_frequencies(counts: Sequence[int]) -> "Figure":
    """Return the picture of `plot_token_frequencies`."""
    from matplotlib.figure import Figure

    seen = np.array([count for count in counts if count > 0], np.float64)
    figure = Figure(figsize=CURVE, layout="constrained")
    panel = figure.subplots()
    panel.loglog(np.arange(1, len(seen) + 1), seen / seen.sum(), ".-", markersize=3, lw=1.0)
    panel.set_xlabel("rank of the token")
    panel.set_ylabel("share of the training split")
    panel.set_title(f"{len(seen)} of {len(counts)} tokens occur", fontsize="small")
    return figure
