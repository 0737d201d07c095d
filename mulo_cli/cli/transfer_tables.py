"""Learning-rate transfer for people: losses at each rate and size, best rates, the verdict."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mulo_cli.cli.tables import loss_cell, mean_and_error
from mulo_cli.results.transfer import TOLERANCE, Optimum, Sweep, TransferVerdict

UNLIMITED = 10_000
"""Characters of a screen on which every table has room."""


def loss_table(sweep: Sweep, screen: int) -> Table:
    """Return rates x sizes: mean loss over seeds, the best of each size starred.

    Args:
        sweep: losses of one optimizer.
        screen: characters of a line; without room for them, standard errors are left out.
    """
    table = _loss_table(sweep, errors=True)
    if Console(width=UNLIMITED).measure(table).maximum <= screen:
        return table
    return _loss_table(sweep, errors=False)


def _loss_table(sweep: Sweep, *, errors: bool) -> Table:
    seeds = len(next(iter(sweep.losses.values())))
    table = Table(
        title=f"{sweep.optimizer}, {sweep.parametrization}: {sweep.measure} loss (nats) at the "
        f"lowest validation loss, mean of {seeds} seeds{' ± standard error' if errors else ''}; "
        f"* best of a {sweep.axis}",
        title_justify="left",
    )
    table.add_column("learning rate", justify="right")
    columns = []
    for size in sweep.sizes:
        table.add_column(f"{sweep.axis} {size}", justify="right")
        at_rates = [
            [None if math.isnan(loss) else float(loss) for loss in of_rate]
            for of_rate in sweep.losses[size].T
        ]
        means = [found[0] for of in at_rates if (found := mean_and_error(of))]
        best = min(means, default=None)
        columns.append([_cell(of, best, errors=errors) for of in at_rates])
    for rate, *cells in zip(sweep.rates, *columns, strict=True):
        table.add_row(f"{rate:.4g}", *cells)
    return table


def _cell(losses: Sequence[float | None], best: float | None, *, errors: bool) -> Text:
    found = mean_and_error(losses)
    if errors or found is None:
        return loss_cell(losses, best)
    return loss_cell([found[0]], best)


def verdict_table(verdict: TransferVerdict) -> Table:
    """Return sizes x what is known of their best rates."""
    table = Table(
        title=f"{verdict.optimizer}, {verdict.parametrization}: best learning rate, by "
        f"{verdict.measure} loss",
        title_justify="left",
    )
    for heading in (verdict.axis, "tried", "estimate", "95 % interval", "loss"):
        table.add_column(heading, justify="right")
    for best in verdict.optima:
        table.add_row(f"{best.size}", *_cells(best))
    return table


def _cells(best: Optimum) -> tuple[str | Text, ...]:
    if best.rate is None or best.tried is None or best.loss is None:
        return ("all diverged", "-", "-", "-")
    interval = "-" if best.low is None else f"{best.low:.3g} .. {best.high:.3g}"
    where = " beside a diverged one" if best.beside_diverged else ""
    where = " at the border" if best.on_border else where
    return (f"{best.tried:.4g}{where}", f"{best.rate:.3g}", interval, f"{best.loss:.4f}")


def verdict_lines(verdict: TransferVerdict) -> Iterator[str]:
    """Yield the verdict in words, then what was left out."""
    name = f"{verdict.optimizer}, {verdict.parametrization}"
    if verdict.drift is None:
        yield f"{name}: {verdict.verdict}"
    else:
        interval = "" if verdict.low is None else f" [{verdict.low:+.2f}, {verdict.high:+.2f}]"
        yield (
            f"{name}: {verdict.verdict}; log2 of the best rate changes by {verdict.drift:+.2f}"
            f"{interval} per doubling of {verdict.axis} (transfer: within ±{TOLERANCE:g})"
        )
    for note in verdict.notes:
        yield f"  note: {note}"
