"""Records of a coordinate check in order: by size and seed, under names that all networks know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mulo_cli.results.coordinate_fits import Axis
from mulo_cli.results.coordinate_records import CoordinateRecord, TensorTrace
from mulo_cli.results.coordinate_stacks import aligned, stack_effects

LOGITS = "logits"
"""What a network's output is called."""

Places: TypeAlias = Mapping[tuple[int, int], CoordinateRecord]
"""Size and seed -> record."""


@dataclass(frozen=True)
class Table:
    """Records of one optimizer by size and seed, under names that all of them know.

    Attributes:
        axis: what the sizes are.
        sizes: ascending.
        seeds: that every size has.
        records: by size and seed.
        order: layers in forward order, those among them that nothing but tensors tells of.
        tensors: layer -> names of its tensors, matrices before vectors.
        left_out: names that not every network has.
        effects: stack -> sizes x seeds: what changes of its blocks did to the loss, over what all
            others did; empty where widths are compared.
    """

    axis: Axis
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    records: Places
    order: tuple[str, ...]
    tensors: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...]
    effects: Mapping[str, np.ndarray]

    def __getitem__(self, read: Callable[[CoordinateRecord], Sequence[float | None]]) -> np.ndarray:
        """Return sizes x seeds x steps of what is read from each record."""
        return np.array(
            [[read(self.records[size, seed]) for seed in self.seeds] for size in self.sizes],
            np.float64,
        )

    @property
    def first(self) -> CoordinateRecord:
        """A record of the smallest network."""
        return self.records[self.sizes[0], self.seeds[0]]

    def trace(self, tensor: str) -> TensorTrace:
        """Return what one of the largest networks tells of a tensor."""
        return self.records[self.sizes[-1], self.seeds[0]].tensors[tensor]

    def gradients(self, tensor: str) -> np.ndarray | None:
        """Return the gradient of a tensor by size, None where it is zero or not finite."""
        found = self[lambda record: (record.tensors[tensor].gradient,)]
        if not (np.isfinite(found) & (found > 0.0)).all():
            return None
        return np.exp(np.log(found).mean(axis=(1, 2)))


def tabulated(records: Sequence[CoordinateRecord]) -> Table:
    """Bring the records of one optimizer into order.

    Sizes are depths if these differ, else widths. Seeds that some size lacks do not count; there is
    at least one that none lacks.
    """
    axis: Axis = "depth" if len({record.depth for record in records}) > 1 else "width"
    effects = stack_effects(records) if axis == "depth" else {}
    records = aligned(records) if axis == "depth" else records
    places = {(getattr(record, axis), record.seed): record for record in records}
    sizes = tuple(sorted({size for size, _ in places}))
    seeds = sorted({seed for _, seed in places})
    complete = tuple(s for s in seeds if all((size, s) in places for size in sizes))
    largest = places[sizes[-1], complete[0]]
    of_all = [places[size, seed] for size in sizes for seed in complete]
    layers = [x for x in largest.layers if all(x in record.layers for record in of_all)]
    tensors = [x for x in largest.tensors if all(x in record.tensors for record in of_all)]
    named = {name for record in of_all for name in (*record.layers, *record.tensors)}
    return Table(
        axis=axis,
        sizes=sizes,
        seeds=complete,
        records=places,
        order=_order(layers, [largest.tensors[name].layer for name in tensors]),
        tensors=_by_layer({name: largest.tensors[name] for name in tensors}),
        left_out=tuple(sorted(named - {*layers, *tensors})),
        effects={
            stack: np.array([[of[size, seed] for seed in complete] for size in sizes], np.float64)
            for stack, of in effects.items()
        },
    )


def _order(layers: Sequence[str], of_tensors: Sequence[str]) -> tuple[str, ...]:
    """Return all layers: those of tensors alone come right before the next one that is called."""
    order = list(layers)
    following = LOGITS
    for layer in reversed(of_tensors):
        if layer not in order:
            place = order.index(following) if following in order else len(order)
            while place and following.startswith(f"{order[place - 1]}/"):
                place -= 1  # before the module that calls it
            order.insert(place, layer)
        following = layer
    return tuple(order)


def _by_layer(tensors: Mapping[str, TensorTrace]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for vectors in (False, True):
        for name, trace in tensors.items():
            if trace.vector is vectors:
                found[trace.layer] = (*found.get(trace.layer, ()), name)
    return found
