"""What a coordinate check sees of a network on its probe batch: layers, and what outputs add.

One program looks at the network at the start and later: two programs may round one product
differently, and a layer that has not moved would seem to have moved a little.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.studies.tensors import Leaf
from mulo_cli.tasks.base import Task
from mulo_cli.tasks.layers import LOGITS, Layers
from mulo_cli.types import Batch, Concrete, Params


class Look(NamedTuple):
    """What a network does on the probe batch.

    Attributes:
        outputs: of each layer.
        reads: root mean square of what each layer is called with; None where that is unknown.
        added: of each output tensor: root mean square of what it adds to the logits beside a
            reference, over that of what its layer reads.
    """

    outputs: tuple[Float[Array, "..."], ...]
    reads: tuple[Float[Array, ""] | None, ...]
    added: tuple[Float[Array, ""], ...]


class LayerNumbers(NamedTuple):
    """What is measured of all layers at one time; see `LayerTrace`."""

    mean: Float[Concrete, " layers"]
    size: Float[Concrete, " layers"]
    change_std: Float[Concrete, " layers"]
    change_l1: Float[Concrete, " layers"]


def make_look(
    task: Task, leaves: Sequence[Leaf]
) -> Callable[[Params, tuple[Array, ...], Batch], Look]:
    """Return (params, references of the output leaves, probe batch) -> what the network does.

    What an output tensor adds to the logits is the difference between the network's own and those
    with the reference in its place, whatever comes after it. All these networks are one `vmap`, so
    that what does not depend on outputs is computed once.
    """
    places = [place for place, leaf in enumerate(leaves) if leaf.output]

    def look(params: Params, references: tuple[Array, ...], probe: Batch) -> Look:
        flat, structure = jax.tree.flatten(params)

        def layers_with(outputs: tuple[Array, ...]) -> Layers:
            changed = list(flat)
            for place, output in zip(places, outputs, strict=True):
                changed[place] = output
            return task.loss(jax.tree.unflatten(structure, changed), probe)[1].layers

        own = tuple(flat[place] for place in places)
        if not places:
            return _looked(layers_with(own), ())
        of_all = jax.vmap(layers_with)(_variants(own, references))
        layers = jax.tree.map(lambda x: x[0], of_all)
        logits = of_all[LOGITS].output.astype(jnp.float32)
        added = tuple(
            jnp.where(
                jnp.array_equal(of_own, reference),
                0.0,
                _rms(logits[0] - logits[number]) / _reads_of(leaves[place], layers),
            )
            for number, (place, of_own, reference) in enumerate(
                zip(places, own, references, strict=True), 1
            )
        )
        return _looked(layers, added)

    return look


def compare(
    now: tuple[Float[Array, "..."], ...], at_start: tuple[Float[Array, "..."], ...]
) -> LayerNumbers:
    """Measure outputs of all layers beside those they had at the start."""
    pairs = [
        (new.astype(jnp.float32), old.astype(jnp.float32))
        for new, old in zip(now, at_start, strict=True)
    ]
    return LayerNumbers(
        mean=jnp.stack([jnp.mean(new) for new, _ in pairs]),
        size=jnp.stack([jnp.mean(jnp.abs(new)) for new, _ in pairs]),
        change_std=jnp.stack([jnp.std(new - old) for new, old in pairs]),
        change_l1=jnp.stack([jnp.mean(jnp.abs(new - old)) for new, old in pairs]),
    )


def _variants(own: tuple[Array, ...], references: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return each output leaf in all networks: in the first its own, in one the reference."""
    networks = range(len(own) + 1)
    return tuple(
        jnp.stack([reference if number == place else one for number in networks])
        for place, (one, reference) in enumerate(zip(own, references, strict=True), 1)
    )


def _looked(layers: Layers, added: tuple[Array, ...]) -> Look:
    return Look(
        outputs=tuple(layer.output for layer in layers.values()),
        reads=tuple(
            None if layer.reads is None else _rms(layer.reads) for layer in layers.values()
        ),
        added=added,
    )


def _reads_of(leaf: Leaf, layers: Layers) -> Float[Array, ""]:
    """Return how large what a leaf's layer reads is; 1 where nobody knows.

    A layer that is not listed is the one whose output is the logits.
    """
    reads = layers.get(leaf.layers[0], layers[LOGITS]).reads
    return jnp.float32(1.0) if reads is None else _rms(reads)


def _rms(x: Float[Array, "..."]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32))))
