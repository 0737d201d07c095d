"""One sentence on what a failed coordinate check has found, and what is likely behind it.

A power of the width that is too large or too small by a half or a whole is the trace of a factor
that is missing, or acts twice. A sentence can be wrong: only the measured power is certain.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mulo_cli.results.coordinate_culprits import Culprit
from mulo_cli.results.coordinate_fits import CoordinateFit
from mulo_cli.results.coordinate_networks import Table
from mulo_cli.results.coordinate_records import TensorTrace

CONSTANT_FACTORS = (
    "a mistake by a constant factor is the same at every {axis}: no slope can show it"
)
"""What every report says."""

LETTERS = {"width": "n", "depth": "L"}

HALF = 0.15
"""A slope that is further than this from every multiple of one half has no name."""

MOST = 0.5
"""A decay that makes this part of a change is behind it."""

FALLING = -0.3
"""Slope of gradients that may reach an epsilon."""

SMALL_GRADIENT = 1e-3
"""Root mean square from which on an epsilon may show: small_fc_lopt's 1e-5 is added to squares."""


def diagnosis(culprit: Culprit, fits: Sequence[CoordinateFit], table: Table) -> str:
    """Say what was found, and what is likely behind it.

    Args:
        culprit: what the check names.
        fits: all of the check's, in forward order.
        table: of its records.
    """
    if culprit.slope is None:
        return (
            f"{culprit.seen_at} diverges: numbers overflow before any power of the {table.axis} "
            "can be told; a lower learning rate keeps them finite"
        )
    power = power_in_words(culprit.slope, LETTERS[table.axis])
    if table.axis == "depth":
        return _of_depth(culprit, power)
    if culprit.tensor is None:
        return _of_layer(culprit, power)
    if culprit.measure == "change" and (leak := _epsilon(culprit, table)):
        return f"{culprit.tensor} moves like {power}: {leak}"
    decay = _decay_behind(culprit, fits, table)
    if decay is not None and decay.slope is not None:
        return _of_decay(decay.place, decay.slope)
    return _of_tensor(culprit, table.trace(culprit.tensor), power)


def power_in_words(slope: float, letter: str) -> str:
    """Return `n^0.5`: rounded to halves where it is close to one, else to tenths."""
    half = halves(slope)
    return f"{letter}^{half if abs(slope - half) <= HALF and half else slope:.1f}"


def halves(slope: float) -> float:
    """Return the closest multiple of one half, zero excepted: what is said is not stable."""
    nearest = round(2.0 * slope) / 2.0
    return nearest if nearest else float(np.copysign(0.5, slope))


def _of_tensor(culprit: Culprit, trace: TensorTrace, power: str) -> str:
    if culprit.measure == "start":
        return _of_start(culprit, trace, power)
    what, half = f"{culprit.tensor} moves like {power}", halves(culprit.slope or 0.0)
    if trace.kind == "output":
        what = f"logits {_grow(half)} like {power} through {culprit.tensor}"
        return f"{what}: {_OUTPUT.get(half, _OTHER)}"
    if trace.vector:
        return f"{what}: {_VECTOR.get(half, _OTHER)}"
    return f"{what}: {(_HIDDEN if trace.kind == 'hidden' else _INPUT).get(half, _OTHER)}"


def _of_start(culprit: Culprit, trace: TensorTrace, power: str) -> str:
    what, half = f"{culprit.tensor} starts like {power}", halves(culprit.slope or 0.0)
    if trace.kind == "output":
        return f"{what} in the logits: {_OUTPUT_START.get(half, _OTHER_START)}"
    if trace.kind == "hidden" and not trace.vector:
        return f"{what}: its initial variance is not 1/fan_in"
    return f"{what}: its initial variance must not depend on the width"


_OTHER = "its learning rate, times its multiplier, has the wrong power of the width"
_OTHER_START = "its initial variance and its multiplier do not belong together"

_HIDDEN: Mapping[float, str] = {
    1.0: "its update lacks the factor 1/fan_in",
    0.5: "its update lacks a factor fan_in^-1/2",
    -0.5: "a factor fan_in^-1/2 too many acts on its update",
    -1.0: "the factor 1/fan_in acts twice on its update",
}
_INPUT: Mapping[float, str] = {
    1.0: "its update is multiplied by the width",
    0.5: "its update is multiplied by the root of the width",
    -0.5: "its update is divided by the root of the width",
    -1.0: "an input matrix treated as hidden: its update has a factor 1/width too many (or, with "
    "SGD, lacks the factor width)",
}
_VECTOR: Mapping[float, str] = {
    1.0: "a vector whose update is multiplied by the width",
    0.5: "a vector whose update is multiplied by the root of the width",
    -0.5: "a vector whose update is divided by the root of the width",
    -1.0: "a vector treated as hidden: its update has a factor 1/width too many (or, with SGD, "
    "lacks the factor width)",
}
_OUTPUT: Mapping[float, str] = {
    1.0: "the readout is not multiplied by 1/fan_in, nor its learning rate",
    0.5: "the readout, or its learning rate, is multiplied by fan_in^-1/2 instead of 1/fan_in",
    -0.5: "a factor fan_in^-1/2 too many acts on the readout or its learning rate",
    -1.0: "1/fan_in acts twice: on the readout's product and on its learning rate, or twice on one",
}
_OUTPUT_START: Mapping[float, str] = {
    1.0: "variance 1 needs the factor 1/fan_in on the readout's product, which is missing",
    0.5: "its initial standard deviation is too large by fan_in^1/2",
    -0.5: "its initial standard deviation is too small by fan_in^1/2",
    -1.0: "the factor 1/fan_in acts twice: on the readout's product and on its initial scale",
}


def _of_layer(culprit: Culprit, power: str) -> str:
    half = halves(culprit.slope or 0.0)
    if culprit.measure == "reads":
        if culprit.layer == culprit.seen_at:
            return f"what {culprit.seen_at} reads {_grows(half)} like {power}: the network's inputs"
        return (
            f"what {culprit.seen_at} reads {_grows(half)} like {power}: a factor that depends on "
            f"the width acts on what {culprit.layer} puts out, and none of its tensors is at fault"
        )
    if culprit.layer != culprit.seen_at:
        shown = culprit.seen_at.rpartition("/")[2]
        cause = {
            0.5: "divided by the root of the head size, not by the head size",
            1.0: "not divided by the head size",
            -0.5: "divided by more than the head size",
            -1.0: "divided twice by the head size",
        }
        known = cause.get(half, "") if shown == "scores" else ""
        return f"{culprit.seen_at} {_grow(half)} like {power}: " + (
            known or "a factor with a wrong power of the width"
        )
    when = "before training" if culprit.measure == "size" else "in training"
    return (
        f"what {culprit.layer} puts out {_grows(half)} like {power} {when}, though all of its "
        "tensors are stable: a factor in its forward pass depends on the width"
    )


def _of_decay(tensor: str, slope: float) -> str:
    half = halves(slope)
    why = {
        -1.0: "the multiplier 1/fan_in acts on the decay, which is to be added after it",
        1.0: "the decay is multiplied by the width",
    }
    return f"the decay of {tensor} {_grows(half)} like {power_in_words(slope, 'n')}: " + why.get(
        half, "learning rate times decay is to be the same at every width"
    )


def _decay_behind(
    culprit: Culprit, fits: Sequence[CoordinateFit], table: Table
) -> CoordinateFit | None:
    """Return the fit of a decay that explains why a tensor shrinks or moves."""
    of_tensor = {fit.measure: fit for fit in fits if fit.tensor == culprit.tensor}
    decay = of_tensor.get("shrinkage")
    if decay is None or not decay.failed or culprit.measure == "start":
        return None
    if culprit.measure == "shrinkage":
        return decay
    steps = of_tensor["change"].steps
    share = decayed_share(table.trace(culprit.tensor or ""), steps[-1] if steps else 1)
    return decay if share >= MOST else None


def decayed_share(trace: TensorTrace, step: int) -> float:
    """Return which part of a tensor's change decay has made, in the widest network."""
    start = trace.start if trace.vector else trace.spectral_start
    change = (trace.change if trace.vector else trace.spectral_change)[step - 1]
    shrinkage = trace.shrinkage[step - 1]
    return abs(shrinkage or 0.0) * (start or 0.0) / change if change else 0.0


def _epsilon(culprit: Culprit, table: Table) -> str | None:
    """Tell of an epsilon where a tensor vanishes without a plain power and its gradient is small.

    An epsilon bends curves: the wider the network, the steeper they fall.
    """
    slope = culprit.slope or 0.0
    straight = abs(slope - halves(slope)) <= HALF
    gradients = table.gradients(culprit.tensor or "")
    if slope >= 0.0 or straight or gradients is None or gradients[-1] > SMALL_GRADIENT:
        return None
    sizes = np.log(np.array(table.sizes, np.float64))
    if np.polyfit(sizes, np.log(gradients), 1)[0] > FALLING:
        return None
    return (
        f"gradients fall to {gradients[-1]:.0e} at width {table.sizes[-1]}: likely an epsilon of "
        "the optimizer; try eps=1e-15 or eps_scaling=1"
    )


def _of_depth(culprit: Culprit, power: str) -> str:
    half = halves(culprit.slope or 0.0)
    if culprit.tensor is not None:
        verb = {"start": "starts", "shrinkage": "decays"}.get(culprit.measure, "moves")
        return (
            f"{culprit.tensor} {verb} like {power}: it is in no block, and nothing about it is to "
            "depend on the depth"
        )
    if culprit.measure == "effect":
        what = f"what training does through {culprit.layer} {_grows(half)} like {power}"
    else:
        what = f"what {culprit.layer} puts out {_grows(half)} like {power}"
    return f"{what}: {_BRANCHES.get(half, _OTHER_BRANCHES)}"


_OTHER_BRANCHES = "the factors on branches and on their updates do not belong together"
_BRANCHES: Mapping[float, str] = {
    1.0: "branches or their updates lack a factor 1/L",
    0.5: "branches or their updates lack a factor L^-1/2",
    -0.5: "a factor L^-1/2 too many acts on branches or on their updates",
    -1.0: "a factor 1/L too many acts on branches or on their updates",
}


def _grow(half: float) -> str:
    return "grow" if half > 0.0 else "vanish"


def _grows(half: float) -> str:
    return "grows" if half > 0.0 else "vanishes"
