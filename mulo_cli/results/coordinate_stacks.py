"""Layers of networks of different depth, brought together: the first and the last of each stack."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mulo_cli.results.coordinate_records import CoordinateRecord

FIRST, LAST = "[first]", "[last]"
"""Behind the name of a stack: which of its blocks."""

BEHIND = "[last+{}]"
"""What is numbered as a stack goes on, but is none of its blocks."""

_NUMBERED = re.compile(r"(?:(?P<stack>.+)_)?(?P<number>\d+)", re.ASCII)
"""A part of a name that counts blocks: `blocks_0`, or `0` where blocks are a list."""


class _Block(NamedTuple):
    """A reading of a name as a block's.

    Attributes:
        stack: name of the stack it would be of.
        number: of the block.
        rest: what follows, with its slash.
    """

    stack: str
    number: int
    rest: str


def aligned(records: Sequence[CoordinateRecord]) -> list[CoordinateRecord]:
    """Name layers and tensors of networks of different depth by their position.

    `blocks_0/up` becomes `blocks[first]/up`, the last block's layers become `blocks[last]/...`, and
    those between are left out. A stack is what has more blocks in a deeper network; other numbered
    layers keep their names. So do those before its first block whose tensors are of a shape that
    deeper networks have no more of (`Dense_0` where flax names all layers); such ones behind its
    last block are called `Dense[last+1]`.
    """
    by_depth = _growing_stacks(records)
    return [_renamed(record, by_depth[record.depth]) for record in records]


def stack_effects(
    records: Sequence[CoordinateRecord],
) -> dict[str, dict[tuple[int, int], float]]:
    """Return for each stack, depth and seed what the changes of all its blocks did to the loss.

    That is to first order, and relative to what all other tensors did. Under both depth scalings
    blocks keep their share: L of them, each with a gradient and a change whose product falls like
    1/L.
    """
    by_depth = _growing_stacks(records)
    found: dict[str, dict[tuple[int, int], float]] = {}
    for record in records:
        for stack in by_depth[record.depth]:
            ratio = _effect_of(stack, by_depth[record.depth][stack], record)
            found.setdefault(stack, {})[record.depth, record.seed] = ratio
    return {
        stack: of
        for stack, of in found.items()
        if len(of) == len(records) and all(ratio > 0.0 for ratio in of.values())
    }


def stack_of(layer: str) -> str | None:
    """Return the stack that an aligned layer or tensor belongs to; None outside of stacks."""
    for position in (FIRST, LAST):
        before, found, _ = layer.partition(position)
        if found:
            return before
    return None


def is_last_block(layer: str) -> bool:
    """Say whether an aligned layer is the last block of a stack itself and not a part of it."""
    return layer.endswith(LAST)


def _blocks(name: str) -> Iterator[_Block]:
    """Yield every reading of a name as a block's, the outermost first."""
    parts = name.split("/")
    for place, part in enumerate(parts):
        match = _NUMBERED.fullmatch(part)
        before = [*parts[:place], *([match["stack"]] if match and match["stack"] else [])]
        if match and before:
            rest = "".join(f"/{part}" for part in parts[place + 1 :])
            yield _Block("/".join(before), int(match["number"]), rest)


def _stacks(names: Iterable[str]) -> dict[str, frozenset[int]]:
    """Return what may be stacks, with the numbers of their blocks."""
    found: dict[str, set[int]] = {}
    for name in names:
        for block in _blocks(name):
            found.setdefault(block.stack, set()).add(block.number)
    return {stack: frozenset(numbers) for stack, numbers in found.items()}


def _growing_stacks(
    records: Sequence[CoordinateRecord],
) -> dict[int, dict[str, frozenset[int]]]:
    """Return for each depth those stacks that are not equally long in all networks."""
    networks = {record.depth: record for record in records}
    by_depth = {
        depth: _stacks([*record.layers, *record.tensors]) for depth, record in networks.items()
    }
    named = {name for stacks in by_depth.values() for name in stacks}
    growing: dict[int, dict[str, frozenset[int]]] = {depth: {} for depth in by_depth}
    for name in named:
        found = {depth: of[name] for depth, of in by_depth.items() if name in of}
        if len(found) < len(by_depth):
            kept = found
        elif len(set(found.values())) > 1:
            kept = _alike(name, networks, found) or found
        else:
            continue
        for depth, numbers in kept.items():
            growing[depth][name] = numbers
    return growing


def _alike(
    stack: str,
    networks: Mapping[int, CoordinateRecord],
    numbers: Mapping[int, frozenset[int]],
) -> dict[int, frozenset[int]]:
    """Return for each depth a stack's blocks from the first to the last of a kind that grows.

    A block is of the kind that its tensors tell: their names, roles and fans. Empty where some
    network has no such block.

    Args:
        stack: its name.
        networks: by depth.
        numbers: by depth: of all that has the stack's name.
    """
    kinds = {depth: _kinds(stack, record) for depth, record in networks.items()}
    counts = {
        depth: Counter(kinds[depth].get(number, frozenset()) for number in of)
        for depth, of in numbers.items()
    }
    fewest, most = counts[min(counts)], counts[max(counts)]
    found = {}
    for depth, of in numbers.items():
        own = {number: kinds[depth].get(number, frozenset()) for number in of}
        core = [number for number, kind in own.items() if most[kind] > fewest[kind]]
        if not core:
            return {}
        found[depth] = frozenset(number for number in of if min(core) <= number <= max(core))
    return found


def _kinds(stack: str, record: CoordinateRecord) -> dict[int, frozenset[tuple]]:
    """Return number of a block -> names, roles and fans of its tensors."""
    found: dict[int, set[tuple]] = {}
    for name, trace in record.tensors.items():
        for block in _blocks(name):
            if block.stack == stack:
                told = (block.rest, trace.kind, trace.vector, trace.fan_in, trace.fan_out)
                found.setdefault(block.number, set()).add(told)
    return {number: frozenset(told) for number, told in found.items()}


def _effect_of(stack: str, numbers: frozenset[int], record: CoordinateRecord) -> float:
    """Return the effect of a stack's tensors over that of all others; 0 where none is known."""
    inside = outside = 0.0
    for name, trace in record.tensors.items():
        if any(block.stack == stack and block.number in numbers for block in _blocks(name)):
            inside += trace.effect or 0.0
        else:
            outside += trace.effect or 0.0
    return inside / outside if outside else 0.0


def _positions(name: str, stacks: Mapping[str, frozenset[int]]) -> list[str]:
    """Return the names of a layer: none in the middle of a stack, two if it is first and last."""
    for block in _blocks(name):
        if block.stack in stacks:
            ends = {FIRST: min(stacks[block.stack]), LAST: max(stacks[block.stack])}
            if block.number < ends[FIRST]:
                return [name]
            if block.number > ends[LAST]:
                behind = BEHIND.format(block.number - ends[LAST])
                return [f"{block.stack}{behind}{block.rest}"]
            return [
                f"{block.stack}{position}{block.rest}"
                for position, number in ends.items()
                if number == block.number
            ]
    return [name]


def _renamed(record: CoordinateRecord, stacks: Mapping[str, frozenset[int]]) -> CoordinateRecord:
    """Return a record under aligned names; its order stays, the last block after the first."""
    tensors = {}
    for name, trace in record.tensors.items():
        names, layers = _positions(name, stacks), _positions(trace.layer, stacks)
        if len(layers) != len(names):  # a tensor counted by its own name, in a layer that is not
            layers = [trace.layer] * len(names)
        for new, layer in zip(names, layers, strict=True):
            tensors[new] = dataclasses.replace(trace, layer=layer)
    renamed = {
        new: trace for name, trace in record.layers.items() for new in _positions(name, stacks)
    }
    return dataclasses.replace(record, layers=renamed, tensors=tensors)
