"""What a coordinate check looks at, in forward order: numbers by size, seed and step.

How far training moves a layer is a consequence of all that lies before it. What is *its own* is how
large its tensors start, how far they move, how they shrink, and by what its inputs were multiplied.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from mulo_cli.results.coordinate_fits import Measure
from mulo_cli.results.coordinate_networks import LOGITS, Table
from mulo_cli.results.coordinate_records import CoordinateRecord, LayerTrace, Numbers, TensorTrace
from mulo_cli.results.coordinate_stacks import is_last_block, stack_of

EARLY_STEPS = 3
"""Steps at which tensors are judged: one update decides how it scales (spectral paper, section 2);
later ones feed back, each in its own way."""

NOISE_EFFECT = 1e-10
"""Share of what all changes did to the loss below which a tensor moves by rounding alone."""

NOISE_GRADIENT = 1e-4
"""The same for its gradient, as a share of the largest in its layer: that of a key's bias, to which
softmax is blind, is 1e-6 of that of the key's kernel; others are of one size."""

DECAY_OVER_CHANCE = 4.0
"""How far shrinkage must stand out from what a random change of that size gives."""

WEIGHT_DECAY = "weight_decay"
"""What hand-designed optimizers call their decay, as optax does."""

CONSTANT_STEPS = 3
"""What has not moved after so many steps at any size never will: it is a constant."""

CONSTANT = "never moves: not judged"
NOT_YET = "has not moved yet, more --steps may tell"
NOISE = "moves by rounding alone: not judged"
"""What is said of a change that is not judged, or cannot be judged yet."""

Judged: TypeAlias = Literal["always", "failing", "growing", "never"]
"""When a fit counts: always; if it grows or vanishes; if it grows."""


@dataclass(frozen=True)
class Evidence:
    """One series of numbers.

    Attributes:
        layer: it belongs to.
        tensor: it is of; null where it is of the layer itself.
        measure: what was measured.
        judged: when it counts.
        steps: what the steps are called (0: before training).
        values: sizes x seeds x steps; nan where a number was not finite.
        own: whether it is its layer's own, and no consequence of what lies before.
        note: why it is not judged though its like is, or cannot be judged yet.
        most_steps: of those that are not zero so many count; all if null.
    """

    layer: str
    tensor: str | None
    measure: Measure
    judged: Judged
    steps: tuple[int, ...]
    values: np.ndarray
    own: bool = False
    note: str = ""
    most_steps: int | None = None


def collected(table: Table) -> Iterator[Evidence]:
    """Yield all evidence in forward order."""
    stacks = dict(table.effects)
    for layer in table.order:
        stack = stack_of(layer)
        if stack in stacks:
            values = stacks.pop(stack)[:, :, None]
            yield Evidence(stack, None, "effect", "failing", (table.first.steps,), values)
        trace = table.first.layers.get(layer)
        if trace is not None and not trace.sown:
            yield from _reads(table, layer)
        for tensor in table.tensors.get(layer, ()):
            yield from _of_tensor(table, layer, tensor)
        if trace is not None:
            yield from _of_output(table, layer, sown=trace.sown)


def _reads(table: Table, layer: str) -> Iterator[Evidence]:
    values = table[lambda record: (record.layers[layer].reads,)]
    told = all(
        table.records[size, seed].layers[layer].reads is not None
        for size in table.sizes
        for seed in table.seeds
    )
    if told and values.any():
        judged: Judged = "always" if _at_any_depth(table, layer) else "never"
        yield Evidence(layer, None, "reads", judged, (0,), values, own=True)


def _at_any_depth(table: Table, name: str) -> bool:
    """Say whether something is there once in networks of any depth: whatever is in no stack."""
    return table.axis == "width" or stack_of(name) is None


def _of_tensor(table: Table, layer: str, name: str) -> Iterator[Evidence]:
    def read(what: Callable[[TensorTrace], Sequence[float | None]]) -> np.ndarray:
        return table[lambda record: what(record.tensors[name])]

    steps = _numbers(table)
    known = _at_any_depth(table, layer) and _at_any_depth(table, name)
    judged: Judged = "always" if known else "never"
    start, change = read(lambda t: (t.start,)), read(lambda t: t.change)
    note = _standstill(change) or (NOISE if _moves_by_noise(table, name) else "")
    aside = note in (CONSTANT, NOISE)
    if start.any():
        yield Evidence(layer, name, "start", judged, (0,), start, own=True)
    yield Evidence(
        layer, name, "change", "never" if aside else judged, steps, change,
        own=True, note=note, most_steps=EARLY_STEPS,
    )  # fmt: skip
    shrinkage = read(lambda t: t.shrinkage)
    if not note and shrinkage.any() and _decays(table, name, shrinkage):
        yield Evidence(layer, name, "shrinkage", judged, steps, shrinkage, own=True, most_steps=1)
    yield from _spectral(table, layer, name, steps)


def _spectral(table: Table, layer: str, name: str, steps: tuple[int, ...]) -> Iterator[Evidence]:
    """Yield spectral norms, which are shown: by kind of tensor something sharper is judged."""
    if table.first.tensors[name].vector:
        return
    start = table[lambda record: (record.tensors[name].spectral_start,)]
    if np.nan_to_num(start).any():
        yield Evidence(layer, name, "spectral_start", "never", (0,), start)
    change = table[lambda record: record.tensors[name].spectral_change]
    yield Evidence(layer, name, "spectral_change", "never", steps, change, most_steps=EARLY_STEPS)


def _standstill(change_NxSxT: np.ndarray) -> str:
    """Return what is said of something that has not moved at any size; empty if it has."""
    if change_NxSxT.any():
        return ""
    return CONSTANT if change_NxSxT.shape[2] >= CONSTANT_STEPS else NOT_YET


def _moves_by_noise(table: Table, name: str) -> bool:
    """Say whether what a tensor does in the smallest networks has no bearing on the loss."""
    for seed in table.seeds:
        tensors = table.records[table.sizes[0], seed].tensors
        told = tensors[name]
        beside = [one.gradient or 0.0 for one in tensors.values() if one.layer == told.layer]
        small = told.gradient is not None and told.gradient < NOISE_GRADIENT * max(beside)
        if not small and (told.effect is None or told.effect >= NOISE_EFFECT):
            return False
    return True


def _may_decay(record: CoordinateRecord) -> bool:
    """Say whether there may be a decay at all: the settings tell, or nobody tells.

    A learned optimizer reads parameters, and its updates shrink them by a share that rightly falls
    like width^-1/2.
    """
    return not record.settings or bool(record.settings.get(WEIGHT_DECAY))


def _decays(table: Table, name: str, shrinkage_NxSxT: np.ndarray) -> bool:
    """Say whether a tensor visibly shrinks at the first step: everywhere, and more than by chance.

    Later ones do not tell more: both decay and chance add up, and a decay that is too large by far
    swings. Chance differs from seed to seed, decay does not.
    """
    first_NxS = shrinkage_NxSxT[:, :, 0]
    if not _may_decay(table.first) or not (first_NxS > 0.0).all():  # nan, too
        return False
    if (first_NxS.mean(axis=1) < DECAY_OVER_CHANCE * first_NxS.std(axis=1)).any():
        return False
    return all(
        found > DECAY_OVER_CHANCE * _chance(table.records[size, seed].tensors[name])
        for size, of_size in zip(table.sizes, first_NxS, strict=True)
        for seed, found in zip(table.seeds, of_size, strict=True)
    )


def _chance(tensor: TensorTrace) -> float:
    """Return the shrinkage <D, W>/<W, W> that a random change D of a tensor W has by chance.

    It is about |D|/|W|/sqrt(elements). Of hidden matrices `start` and `change` are spectral norms
    in different units; a change of low rank has a Frobenius norm not far above its spectral norm.
    """
    if not tensor.start or tensor.change[0] is None:
        return math.inf
    ratio = tensor.change[0] / tensor.start
    if tensor.kind == "hidden" and not tensor.vector:
        ratio /= math.sqrt(tensor.fan_in)
    elements = tensor.fan_out if tensor.vector else tensor.fan_in * tensor.fan_out
    return ratio / math.sqrt(elements)


def _of_output(table: Table, layer: str, *, sown: bool) -> Iterator[Evidence]:
    """Yield what a layer puts out.

    What a module shows of itself, attention scores above all, may vanish: products of vectors that
    are not aligned with each other do. So may the logits before training. The size of an output
    before training shows once more in what the next layer reads, and counts where it clearly fails.
    Of a stack, what the last block puts out counts: the whole stream. That of the first block falls
    with the depth where embeddings are small beside branches.
    """

    def read(what: Callable[[LayerTrace], Numbers]) -> np.ndarray:
        return table[lambda record: what(record.layers[layer])]

    steps = _numbers(table)
    change, size, mean = map(read, (_change_std, _size, _mean))
    known = _at_any_depth(table, layer) or is_last_block(layer)
    note = "" if layer == LOGITS else _standstill(change)
    moved: Judged = "growing" if sown else "always"
    before: Judged = "growing" if sown or layer == LOGITS else "failing"
    if size[:, :, :1].any():
        judged = before if known else "never"
        yield Evidence(layer, None, "size", judged, (0,), size[:, :, :1], own=sown)
    yield Evidence(
        layer, None, "change_std", moved if known and note != CONSTANT else "never", steps, change,
        own=sown, note=note,
    )  # fmt: skip
    yield Evidence(layer, None, "change_l1", "never", steps, read(lambda t: t.change_l1))
    yield Evidence(layer, None, "size_after", "never", steps, size[:, :, 1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.abs(mean[:, :, 2:] / mean[:, :, 1:2])
    if relative.size and np.isfinite(relative).all():
        yield Evidence(layer, None, "mean", "never", steps[1:], relative)


def _change_std(trace: LayerTrace) -> Numbers:
    return trace.change_std


def _size(trace: LayerTrace) -> Numbers:
    return trace.size


def _mean(trace: LayerTrace) -> Numbers:
    return trace.mean


def _numbers(table: Table) -> tuple[int, ...]:
    return tuple(range(1, table.first.steps + 1))
