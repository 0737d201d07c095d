"""Which device does what: blocks of pairs, dealt out over the devices of all processes.

A block is one call of one program, compiled for one device: the result does not depend on where
that is, nor on what else is done there. What crosses devices are a few numbers of every pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

Device: TypeAlias = Any
"""A device of jax, whose class is no type to type checkers."""


class Item(NamedTuple):
    """A piece of work: one block of pairs of one task."""

    task: int
    block: int


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a meta-training are done.

    Attributes:
        owners: of every piece, the device that does it; in the order of tasks and blocks.
        lead: the device of this process on which theta learns; every process does that alike.
        process: number of this process.
    """

    owners: dict[Item, Device]
    lead: Device
    process: int

    @property
    def here(self) -> dict[Item, Device]:
        """The pieces that this process does."""
        return {
            item: device
            for item, device in self.owners.items()
            if device.process_index == self.process
        }

    def validator(self, task: int) -> Device:
        """Return the device that validates theta on a task: the one that has its first block."""
        return self.owners[Item(task, 0)]

    def idle(self, devices: Sequence[Device]) -> int:
        """Return how many of some devices have nothing to do."""
        return len(set(devices) - set(self.owners.values()))


def plan(
    devices: Sequence[Device], process: int, blocks: Sequence[int], costs: Sequence[int]
) -> Layout:
    """Deal the blocks of all tasks out, such that devices have about as much to do.

    The dearest blocks first, each to the device that has least to do (R. L. Graham, "Bounds on
    multiprocessing timing anomalies", 1969); of several such, to one that has blocks of this task
    already: it compiles a program for each of its tasks.

    Args:
        devices: of all processes.
        process: number of this one.
        blocks: of each task.
        costs: of a block of each task, in any unit.
    """
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    items = [Item(task, block) for task, count in enumerate(blocks) for block in range(count)]
    load = dict.fromkeys(ordered, 0)
    has: set[tuple[Device, int]] = set()
    owners: dict[Item, Device] = {}
    for item in sorted(items, key=lambda item: -costs[item.task]):
        task = item.task
        device = min(ordered, key=lambda d, task=task: (load[d], (d, task) not in has))
        owners[item] = device
        load[device] += costs[task]
        has.add((device, task))
    lead = next(device for device in ordered if device.process_index == process)
    return Layout({item: owners[item] for item in items}, lead, process)
