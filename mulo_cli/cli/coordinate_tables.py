"""A coordinate check for people: layers in forward order, what fails and why, in few lines."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from mulo_cli.cli.sparklines import sparkline
from mulo_cli.results.coordinate_fits import CONFIDENCE, CoordinateFit, Measure, Verdict
from mulo_cli.results.coordinates import CoordinateCheck, worst_of

SIGNS: dict[Verdict, tuple[str, str]] = {
    "stable": ("✓", "green"),
    "grows": ("↑", "red"),
    "vanishes": ("↓", "red"),
    "diverged": ("!", "red"),
    "not enough data": ("?", "yellow"),
}
"""Sign and colour of a verdict; the word stands beside them."""

WORDS: dict[Measure, str] = {
    "reads": "reads",
    "start": "{tensor} starts",
    "change": "{tensor} moves",
    "shrinkage": "{tensor} decays",
    "spectral_start": "{tensor} starts, spectral norm",
    "spectral_change": "{tensor} moves, spectral norm",
    "change_std": "output moves",
    "size": "output before training",
    "change_l1": "output moves, L1",
    "size_after": "output in training, L1",
    "mean": "mean output over step 1's",
    "effect": "effect on the loss",
}
"""What was measured, in a table."""

WIDE = "more --seeds or a wider range of sizes make intervals smaller"
STILL = "more --steps: something has not moved in every network"
DIVERGED = "a lower learning rate keeps numbers finite"
"""What may help where the parametrization need not be wrong."""

NOTHING = "-"

UNLIMITED = 10_000
"""Characters of a screen on which every table has room."""

DISPENSABLE: tuple[tuple[int, ...], ...] = ((), (3, 4), (2, 3, 4, 5))
"""Columns that a screen may have no room for, the widest screen first."""

Row: TypeAlias = tuple[str | Text, ...]
"""Layer, what, of how many it is the steepest, numbers at both ends, line, slope, verdict."""

FEW_LAYERS = 12
"""So many layers have a line each; of more, those that are stable share one."""

MOST_FAILING = 12
"""Lines about what is not stable; --all shows the others."""

OF_ONE_LAYER = 3
"""Lines about one layer."""

NAMED_LAYERS = 4
"""Layers that the closing line names."""

CULPRIT = "◀"
"""Sign of what a check names."""


def coordinate_report(
    check: CoordinateCheck, console: Console, *, everything: bool = False
) -> Iterator[RenderableType]:
    """Yield what is shown of a check: its table, the verdict in a sentence, notes.

    Args:
        check: of one optimizer.
        console: on which it is shown.
        everything: every measure of every layer and tensor.
    """
    yield _table(check, console, everything=everything)
    verdict = check.verdict
    if verdict.culprit is not None:
        yield Text.assemble(
            (f"{CULPRIT} {verdict.culprit.layer}", "bold red"), f": {verdict.diagnosis}"
        )
    for note in verdict.notes:
        yield Text(f"  {note}", style="dim")
    yield ""


def conclusions(checks: Sequence[CoordinateCheck], how_long: str, kept_in: str) -> tuple[str, ...]:
    """Return the closing lines: what came out of each check, and what may help."""
    lines = [f"{called(check)}: {check.verdict.verdict}" + _told(check) for check in checks]
    hints = [f"hint: {hint}" for hint in _hints(checks)]
    return (*lines, *hints, f"{how_long}; measurements are in {kept_in}")


def _hints(checks: Sequence[CoordinateCheck]) -> Iterator[str]:
    """Yield what may help; a failure that is decided needs no more data."""
    unclear = [
        fit
        for check in checks
        if check.verdict.verdict == "not enough data"
        for fit in check.fits
        if fit.judged and fit.verdict == "not enough data"
    ]
    if any(fit.steps for fit in unclear):
        yield WIDE
    if any(not fit.steps for fit in unclear):
        yield STILL
    if any(fit.judged and fit.verdict == "diverged" for check in checks for fit in check.fits):
        yield DIVERGED


def called(check: CoordinateCheck) -> str:
    """Name a check: its optimizer and the parametrization."""
    return f"{check.verdict.optimizer} ({check.verdict.parametrization})"


def slope_in_words(fit: CoordinateFit) -> str:
    """Return slope and interval, as `+0.01 ± 0.03`."""
    if fit.slope is None:
        return NOTHING
    half = "" if fit.high is None else f" ± {fit.high - fit.slope:.2f}"
    return f"{fit.slope:+.2f}{half}"


def _told(check: CoordinateCheck) -> str:
    verdict = check.verdict
    if verdict.culprit is not None:
        return f": {verdict.culprit.layer}: {verdict.diagnosis}"
    open_ = [layer for layer, of in verdict.layers.items() if of != "stable"]
    if not open_:
        return "" if check.passed else ": nothing moved the logits"
    more = f" and {len(open_) - NAMED_LAYERS} more" if len(open_) > NAMED_LAYERS else ""
    return f": {', '.join(open_[:NAMED_LAYERS])}{more}"


def _table(check: CoordinateCheck, console: Console, *, everything: bool) -> Table:
    """Return the table; on a narrow screen with fewer columns."""
    blocks = "utf" in console.encoding.lower()
    rows = list(_all_rows(check, blocks) if everything else _some_rows(check, blocks))
    for dispensable in DISPENSABLE:
        table = _filled(check, rows, without=dispensable)
        if Console(width=UNLIMITED).measure(table).maximum <= console.width:
            break
    return table


def _filled(check: CoordinateCheck, rows: Sequence[Row], *, without: Sequence[int]) -> Table:
    first, sizes, axis = check.records[0], check.verdict.sizes, check.verdict.axis
    seeds = len({record.seed for record in check.records})
    table = Table(
        title=f"{called(check)} on {first.task}, {first.dataset}:\n{first.steps} steps, {seeds} "
        f"seeds, {axis}s {', '.join(map(str, sizes))}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    headings = (
        ("layer", False),
        ("what", False),
        ("of", True),
        (f"{axis}\n{sizes[0]}", True),
        (f"{axis}\n{sizes[-1]}", True),
        (f"over\n{axis}s", False),
        (f"slope\n± {CONFIDENCE:.0%}", True),
        ("verdict", False),
    )
    shown = [place for place in range(len(headings)) if place not in without]
    for place in shown:
        heading, number = headings[place]
        foldable = place < 2 and len(without) == len(DISPENSABLE[-1])
        table.add_column(
            heading,
            justify="right" if number else "left",
            no_wrap=not foldable,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    return table


def _all_rows(check: CoordinateCheck, blocks: bool) -> Iterator[Row]:
    former = None
    for fit in check.fits:
        name = "" if fit.layer == former else fit.layer
        former = fit.layer
        yield _row(check, fit, name, blocks=blocks)


def _some_rows(check: CoordinateCheck, blocks: bool) -> Iterator[Row]:
    """Yield lines of what is not stable, and one for each layer that is, or for all of them."""
    by_layer = {
        layer: [fit for fit in check.fits if fit.judged and fit.layer == layer]
        for layer in check.verdict.layers
    }
    each = len(by_layer) <= FEW_LAYERS
    lines = left_out = 0
    for layer, fits in by_layer.items():
        if worst_of(fits) == "stable":
            if each:
                steepest = max(fits, key=_steepness)
                yield _row(check, steepest, layer, others=len(fits) - 1, blocks=blocks)
            continue
        bad = [fit for fit in fits if fit.verdict != "stable"]
        shown = [fit for fit in bad if _is_named(check, fit)] + [
            fit for fit in bad if not _is_named(check, fit)
        ]
        shown = sorted(shown[:OF_ONE_LAYER], key=fits.index)
        if lines >= MOST_FAILING and not any(_is_named(check, fit) for fit in shown):
            left_out += 1
            continue
        for place, fit in enumerate(shown):
            lines += 1
            yield _row(check, fit, "" if place else layer, blocks=blocks)
    if left_out:
        yield (f"{left_out} more layers", "not stable: --all shows", *[""] * 6)
    if not each:
        yield from _stable_in_one(check, by_layer, blocks)


def _stable_in_one(
    check: CoordinateCheck, by_layer: dict[str, list[CoordinateFit]], blocks: bool
) -> Iterator[Row]:
    stable = {layer: fits for layer, fits in by_layer.items() if worst_of(fits) == "stable"}
    if stable:
        steepest = max((fit for fits in stable.values() for fit in fits), key=_steepness)
        yield _row(
            check,
            steepest,
            f"{len(stable)} of {len(by_layer)} layers, {steepest.layer}",
            others=sum(map(len, stable.values())) - 1,
            blocks=blocks,
        )


def _row(
    check: CoordinateCheck,
    fit: CoordinateFit,
    name: str,
    *,
    blocks: bool,
    others: int = 0,
) -> Row:
    """Return the cells of one line.

    Args:
        check: the fit is of.
        fit: that is shown.
        name: in the first cell.
        blocks: whether the screen knows Unicode.
        others: judged fits that are less steep, and for which this one stands.
    """
    sizes = check.verdict.sizes
    what = WORDS[fit.measure].format(tensor=_short(fit))
    ends = [fit.values.get(size) for size in (sizes[0], sizes[-1])]
    line = sparkline([(size, fit.values.get(size)) for size in sizes], blocks=blocks)
    style = "" if fit.judged else "dim"
    return (
        Text(name),
        Text(what, style=style),
        Text(str(others + 1) if others else "", style="dim"),
        *(Text(NOTHING if end is None else f"{end:.2g}", style=style) for end in ends),
        Text(line, style=style),
        Text(slope_in_words(fit), style=style),
        _signed(fit, named=_is_named(check, fit)),
    )


def _short(fit: CoordinateFit) -> str:
    """Return a tensor's name without its layer's."""
    return (fit.tensor or "").removeprefix(f"{fit.layer}/")


def _is_named(check: CoordinateCheck, fit: CoordinateFit) -> bool:
    culprit = check.verdict.culprit
    return culprit is not None and (fit.place, fit.measure) == (culprit.seen_at, culprit.measure)


def _steepness(fit: CoordinateFit) -> float:
    return abs(fit.slope or 0.0)


def _signed(fit: CoordinateFit, *, named: bool) -> Text:
    sign, colour = SIGNS[fit.verdict]
    if not fit.judged:
        return Text(fit.note.partition(":")[0] or f"({fit.verdict})", style="dim")
    text = Text(f"{sign} {fit.verdict}", style=colour)
    if fit.dropped:
        text.append(f" without {', '.join(map(str, fit.dropped))}", style="dim")
    return text.append(f" {CULPRIT}", style="bold red") if named else text
