"""A coordinate check for people: one table per optimizer, and the outcome in words."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mulo_cli.results.coordinates import CONFIDENCE, CoordinateCheck, CoordinateFit, Verdict

SIGNS: dict[Verdict, tuple[str, str]] = {
    "stable": ("✓", "green"),
    "grows": ("↑", "red"),
    "vanishes": ("↓", "red"),
    "diverged": ("!", "red"),
    "not enough data": ("?", "yellow"),
}
"""Sign and colour of a verdict; the word stands beside them."""

HINTS: dict[Verdict, str] = {
    "vanishes": "gradients of wide networks may be smaller than an epsilon in the optimizer: for "
    "Adam, try eps=1e-15",
    "not enough data": "more --seeds or a wider range of --widths make intervals smaller",
    "diverged": "a lower learning rate keeps numbers finite",
}
"""What may help where the parametrization need not be wrong."""

NOTHING = "-"

UNLIMITED = 10_000
"""Characters of a screen on which every table has room."""


NAMED_LAYERS = 4
"""At most so many layers of one verdict are named in the closing line."""


def coordinate_table(check: CoordinateCheck, screen: int) -> Table:
    """Return layers x widths: std of the change, its slope against width, and the verdict.

    Args:
        check: of one optimizer.
        screen: characters of a line; widths that do not fit are left out, from the middle.
    """
    widths = sorted({record.width for record in check.records})
    table = _table(check, widths)
    for count in range(len(widths) - 1, 1, -1):
        if Console(width=UNLIMITED).measure(table).maximum <= screen:
            break
        table = _table(check, _some(widths, count))
    return table


def _some(widths: Sequence[int], count: int) -> list[int]:
    """Return so many of the widths, evenly spread, the first and the last among them."""
    return [widths[place * (len(widths) - 1) // (count - 1)] for place in range(count)]


def _table(check: CoordinateCheck, widths: Sequence[int]) -> Table:
    first = check.records[0]
    seeds = len({record.seed for record in check.records})
    left_out = len({record.width for record in check.records}) - len(widths)
    table = Table(
        title=f"{_called(check)}: std of the change of pre-activations,\n"
        f"geometric mean over {first.steps} steps and {seeds} seeds"
        + (f" (no room for {left_out} widths)" if left_out else ""),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("layer", no_wrap=True)
    for width in widths:
        table.add_column(f"width\n{width}", justify="right", no_wrap=True)
    table.add_column(f"slope\n± {CONFIDENCE:.0%}", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for fit in check.fits:
        sizes = [_size(fit, width) for width in widths]
        table.add_row(fit.layer, *sizes, slope_in_words(fit), _signed(fit.verdict))
    return table


def slope_in_words(fit: CoordinateFit) -> str:
    """Return slope and interval, as `+0.012 ± 0.034`."""
    if fit.slope is None:
        return NOTHING
    half = "" if fit.high is None else f" ± {fit.high - fit.slope:.3f}"
    return f"{fit.slope:+.3f}{half}"


def conclusions(checks: Sequence[CoordinateCheck], how_long: str) -> tuple[str, ...]:
    """Return the closing lines: passed or failed, which layers, and what may help."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        names = " and ".join(_called(check) for check in checks)
        return (f"passed in {how_long}: every layer is stable with {names}",)
    failures = "; ".join(f"{_called(check)}: {_failing_layers(check)}" for check in failed)
    verdicts = {verdict for check in failed for verdict in check.verdict.layers.values()}
    hints = [HINTS[verdict] for verdict in HINTS if verdict in verdicts]
    return (f"failed in {how_long}: {failures}", *(f"hint: {hint}" for hint in hints))


def _called(check: CoordinateCheck) -> str:
    return f"{check.verdict.optimizer} ({check.verdict.parametrization})"


def _failing_layers(check: CoordinateCheck) -> str:
    """Name the layers that failed; deep networks have many, of which a few stand for all."""
    by_verdict: dict[Verdict, list[str]] = {}
    for layer, verdict in check.verdict.layers.items():
        if verdict != "stable":
            by_verdict.setdefault(verdict, []).append(layer)
    every = len(check.verdict.layers)
    return ", ".join(_in_words(verdict, layers, every) for verdict, layers in by_verdict.items())


def _in_words(verdict: Verdict, layers: Sequence[str], every: int) -> str:
    if len(layers) > NAMED_LAYERS:
        return (
            f"{verdict} in {len(layers)} of {every} layers ({', '.join(layers[:NAMED_LAYERS])} ...)"
        )
    words = f"has {verdict}" if verdict == "not enough data" else verdict
    return ", ".join(f"{layer} {words}" for layer in layers)


def _size(fit: CoordinateFit, width: int) -> str:
    size = fit.change.get(width)
    if size is None:
        return NOTHING
    return f"{size:.3g}" if math.isfinite(size) else "diverged"


def _signed(verdict: Verdict) -> Text:
    sign, colour = SIGNS[verdict]
    return Text(f"{sign} {verdict}", style=colour)
