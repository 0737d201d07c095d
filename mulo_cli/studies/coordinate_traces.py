"""From numbers of single moments to what a record tells of each layer and tensor."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, SupportsFloat

import numpy as np

from mulo_cli.results.coordinate_records import LayerTrace, Numbers, TensorTrace
from mulo_cli.studies.check_programs import Anatomy
from mulo_cli.studies.layers import LayerNumbers
from mulo_cli.studies.tensors import Leaf, TensorNumbers


@dataclass(frozen=True)
class Series:
    """Everything that was measured of one network; lists grow with its training.

    Attributes:
        layers: before training, and after each step.
        reads: of each layer, before training.
        added: of each output leaf: itself before training, its change after each step.
        tensors: of each leaf: itself before training, its change after each step.
        pushes: of each leaf, after the first and after the last step: root mean square of the
            gradient, and its norm times that of the change.
        losses: of each step's batch.
    """

    layers: list[LayerNumbers] = field(default_factory=list)
    reads: list[float | None] = field(default_factory=list)
    added: list[list[float]] = field(default_factory=list)
    tensors: list[list[TensorNumbers]] = field(default_factory=list)
    pushes: list[list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def layer_traces(anatomy: Anatomy, series: Series) -> dict[str, LayerTrace]:
    """Return what each layer did, in forward order."""
    told = LayerNumbers(*(np.stack(of_all) for of_all in zip(*series.layers, strict=True)))
    return {
        name: LayerTrace(
            sown=sown,
            reads=series.reads[place],
            mean=numbers(told.mean[:, place]),
            size=numbers(told.size[:, place]),
            change_std=numbers(told.change_std[1:, place]),
            change_l1=numbers(told.change_l1[1:, place]),
        )
        for place, (name, sown) in enumerate(anatomy.layers.items())
    }


def tensor_traces(anatomy: Anatomy, series: Series) -> dict[str, TensorTrace]:
    """Return what became of each tensor, in forward order."""
    outputs = [number for number, leaf in enumerate(anatomy.leaves) if leaf.output]
    all_effects = _shares([effect for _, effect in series.pushes[-1]])
    found = {}
    for number, leaf in enumerate(anatomy.leaves):
        added = outputs.index(number) if leaf.output else None
        for place, name in enumerate(leaf.names):
            found[name] = _trace(leaf, series, number, place, added, all_effects[number][place])
    return {name: found[name] for name in anatomy.tensors}


def numbers(values: Iterable[SupportsFloat]) -> Numbers:
    """Return numbers as a record has them: null where they are not finite."""
    return tuple(finite(value) for value in values)


def finite(value: SupportsFloat) -> float | None:
    """Return a number, or None if it is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None


class _Moment(NamedTuple):
    """The numbers of one tensor; see `TensorNumbers`."""

    rms: float
    spectral: float
    along: float
    square: float


def _trace(
    leaf: Leaf, series: Series, number: int, place: int, added: int | None, effect: float
) -> TensorTrace:
    """Return what became of one tensor of a leaf."""
    at_start, *later = (_Moment(*(float(x[place]) for x in of[number])) for of in series.tensors)
    start, change = at_start.rms, [one.rms for one in later]
    if leaf.hidden:
        start = at_start.spectral / leaf.spectral_unit_at_start
        change = [one.spectral / leaf.spectral_unit for one in later]
    elif added is not None:
        start = series.added[0][added] * math.sqrt(leaf.role.fan_in)
        change = [of_all[added] for of_all in series.added[1:]]
    spectral = [] if leaf.vector else [one.spectral / leaf.spectral_unit for one in later]
    return TensorTrace(
        layer=leaf.layers[place],
        kind=leaf.role.kind.value,
        vector=leaf.vector,
        fan_in=leaf.role.fan_in,
        fan_out=leaf.role.fan_out,
        start=finite(start),
        change=numbers(change),
        spectral_start=None if leaf.vector else finite(at_start.spectral / leaf.spectral_unit),
        spectral_change=numbers(spectral),
        shrinkage=numbers(-one.along / one.square if one.square else math.nan for one in later),
        gradient=finite(series.pushes[0][number][0][place]),
        effect=finite(effect),
    )


def _shares(of_leaves: Sequence[np.ndarray]) -> list[list[float]]:
    """Return parts as shares of their sum; if that is zero, nothing had any."""
    parts = [[float(part) for part in of_leaf] for of_leaf in of_leaves]
    total = sum(map(sum, parts)) or 1.0
    return [[part / total for part in of_leaf] for of_leaf in parts]
