"""Where a failed coordinate check points to: the first layer, in forward order, at fault itself.

What a layer puts out depends on all that lies before it, so that one mistake shows in many layers.
What is a layer's own does not: the size its tensors start with, how far they move and shrink, what
its inputs were multiplied by. The rule is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mulo_cli.results.coordinate_fits import CoordinateFit, Measure
from mulo_cli.results.coordinate_stacks import stack_of

STEEP = 0.35
"""A slope of this size is a cause of its own: mistakes are powers of one half at least."""

SHARE = 0.5
"""Of the steepest slope; what is less steep may be its echo."""


@dataclass(frozen=True)
class Culprit:
    """What a failed check names.

    Attributes:
        layer: the layer at fault (where depths are compared, maybe a whole stack).
        tensor: the tensor at fault; null where it is none.
        measure: that told.
        seen_at: the tensor, the layer or the shown value at which it told; a layer that reads too
            much is not at fault itself, the one before it is.
        slope: of the measure.
        low, high: ends of its interval.
    """

    layer: str
    tensor: str | None
    measure: Measure
    seen_at: str
    slope: float | None
    low: float | None
    high: float | None


def first_fault(fits: Sequence[CoordinateFit]) -> CoordinateFit | None:
    """Return what comes first among what grows or vanishes; None if nothing does.

    What is a layer's own comes before all consequences; what diverges says least.

    Args:
        fits: in forward order.
    """
    failed = [fit for fit in fits if fit.failed]
    ordered = [[fit for fit in failed if fit.own], by_end([f for f in failed if not f.own])]
    for candidates in ordered:
        steepest = max((abs(fit.slope) for fit in candidates if fit.slope), default=0.0)
        for fit in candidates:
            if fit.slope and abs(fit.slope) >= min(STEEP, SHARE * steepest):
                return fit
    return next((fit for candidates in ordered for fit in candidates), None)


def culprit_of(fault: CoordinateFit, fits: Sequence[CoordinateFit]) -> Culprit:
    """Return which layer is to blame for a fault.

    Args:
        fault: one of `fits`.
        fits: in forward order.
    """
    layer = fault.layer
    if fault.measure == "reads":
        layer = layer_before(layer, fits) or layer
    elif fault.tensor is None and fault.own and fault.measure in ("change_std", "size"):
        layer = layer.rpartition("/")[0] or layer  # a value that the module above it shows
    return Culprit(
        layer=stack_of(layer) or layer,
        tensor=fault.tensor,
        measure=fault.measure,
        seen_at=fault.place,
        slope=fault.slope,
        low=fault.low,
        high=fault.high,
    )


def layer_before(layer: str, fits: Sequence[CoordinateFit]) -> str | None:
    """Return the layer whose output a layer reads, as far as names and order tell.

    That is the last one that is complete when it is entered; None before the first.
    """
    outputs = [fit for fit in fits if fit.measure == "change_std"]
    entered = next((n for n, fit in enumerate(outputs) if fit.layer == layer), 0)
    complete = [fit for fit in outputs[:entered] if not layer.startswith(f"{fit.layer}/")]
    if not complete:
        return None
    last = by_end(complete)[-1]
    return last.layer.rpartition("/")[0] or last.layer if last.own else last.layer


def by_end(fits: Sequence[CoordinateFit]) -> list[CoordinateFit]:
    """Order by where layers end: a module that has called others puts out after them.

    Args:
        fits: in the order in which modules are entered.
    """
    last: dict[str, int] = {}
    for place, fit in enumerate(fits):
        parts = fit.layer.split("/")
        for depth in range(1, len(parts) + 1):
            last["/".join(parts[:depth])] = place
    return sorted(fits, key=lambda fit: (last[fit.layer], -fit.layer.count("/")))
