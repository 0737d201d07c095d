"""A network's parameters without their numbers: names, shapes, and what its modules tell."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from mulo_cli.mup.kinds import Layout, leaf_name
from mulo_cli.mup.observed import Seen, Shape, of_nnx, watched_linen
from mulo_cli.types import Params, PRNGKey

Init: TypeAlias = Callable[[PRNGKey], Params | nnx.Module]
"""key -> params: any pytree (boxed leaves too), or the nnx model itself."""

STACK_NAMES = frozenset({"layer", "layers", "block", "blocks", "stack", "scan"})
"""Names of an axis, given by `nn.PARTITION_NAME`, that say that it counts layers."""


@dataclass(frozen=True)
class Sketch:
    """What is known about a network before any number is drawn.

    Attributes:
        structure: of its params, boxes included.
        shapes: of every leaf by name, in the order of the leaves.
        floating: leaves that are trained numbers (not counters or keys).
        stacks: axes that a leaf's metadata says count layers.
        seen: what its modules told, by path.
    """

    structure: Any
    shapes: dict[str, Shape]
    floating: frozenset[str]
    stacks: dict[str, tuple[int, ...]]
    seen: dict[str, frozenset[Seen]]


@dataclass(frozen=True)
class Told:
    """What a module tells about a leaf as it is stored.

    Attributes:
        layout: None if it only tells how layers are stacked.
        stack: axes that count layers.
        forward: whether it is the kernel or the bias of a `Readout`.
    """

    layout: Layout | None
    stack: tuple[int, ...]
    forward: bool


def sketch(init: Init) -> Sketch:
    """Evaluate an initialisation for its shapes alone."""
    with watched_linen() as seen:

        def params(key: PRNGKey) -> Params:
            made = init(key)
            if isinstance(made, nnx.Module):
                seen.update(of_nnx(made))
            return params_of(made)

        tree = jax.eval_shape(params, jax.eval_shape(lambda: jax.random.key(0)))
    leaves = list(_boxes_and_leaves(tree))
    return Sketch(
        structure=jax.tree.structure(tree),
        shapes={name: leaf.shape for name, _, leaf in leaves},
        floating=frozenset(
            name for name, _, leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)
        ),
        stacks={name: _stack_of_box(box) for name, box, _ in leaves},
        seen=_by_path(seen),
    )


def params_of(made: Params | nnx.Module) -> Params:
    """Return what is trained: of an nnx model the state of its `nnx.Param`s."""
    return nnx.state(made, nnx.Param) if isinstance(made, nnx.Module) else made


def told_by_modules(name: str, small: Sketch, large: Sketch) -> set[Told]:
    """Return what modules tell about a leaf; more than one answer contradict each other.

    A leaf belongs to the module whose path is the longest end of the leaf's name, if its shapes at
    both widths are the module's, axes that count layers aside.
    """
    parts = name.split("/")
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        found = {
            told
            for one in small.seen.get(end, ())
            for other in large.seen.get(end, ())
            if (told := _told(one, other, small.shapes[name], large.shapes[name])) is not None
        }
        if found:
            return found
    return set()


def _told(one: Seen, other: Seen, small: Shape, large: Shape) -> Told | None:
    if (one.layout, one.forward) != (other.layout, other.forward):
        return None
    kept = _axes_of_one_layer(one.shape, other.shape, small, large)
    if kept is None:
        return None
    stack = tuple(axis for axis in range(len(large)) if axis not in kept)
    return Told(one.layout and _lifted(one.layout, kept, stack), stack, one.forward)


def _axes_of_one_layer(
    one: Shape, other: Shape, small: Shape, large: Shape
) -> tuple[int, ...] | None:
    """Return the axes of a stored leaf that one layer has, None if it is not that layer's.

    They are the last ones that fit: layers are stacked in front unless shapes say otherwise.
    """
    kept: list[int] = []
    inner = list(zip(one, other, strict=True)) if len(one) == len(other) else None
    if inner is None:
        return None
    for axis in reversed(range(len(large))):
        sizes = (small[axis], large[axis])
        if inner and sizes == inner[-1]:
            inner.pop()
            kept.append(axis)
        elif sizes[0] != sizes[1]:
            return None  # the number of layers does not grow with width
    return None if inner else tuple(reversed(kept))


def _lifted(layout: Layout, kept: tuple[int, ...], stack: tuple[int, ...]) -> Layout:
    """Return a layout of one layer as that of the stack."""

    def stored(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(kept[axis] for axis in axes)

    of_stack = tuple(sorted((*stored(layout.stack_axes), *stack)))
    return Layout(stored(layout.in_axes), stored(layout.out_axes), of_stack)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by name, in their order; boxed or not, a leaf has one name."""
    return {name: leaf for name, _, leaf in _boxes_and_leaves(tree)}


def _boxes_and_leaves(tree: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, box (or leaf) and leaf; what is inside a box has the box's name."""
    for path, box in jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_box):
        for inner, leaf in jax.tree_util.tree_leaves_with_path(box):
            alone = len(jax.tree.leaves(box)) == 1
            yield leaf_name(path if alone else (*path, *inner)), box, leaf


def _is_box(node: Any) -> bool:
    return isinstance(node, nn.meta.AxisMetadata | nnx.Variable)


def _stack_of_box(box: Any) -> tuple[int, ...]:
    """Return the axes that a box's metadata names as counting layers."""
    if isinstance(box, nnx.Variable):
        kept = box.get_metadata()
        names = kept.get("out_sharding") or kept.get("sharding_names") or kept.get("sharding")
    else:
        names = getattr(box, "names", None)
    return tuple(axis for axis, name in enumerate(names or ()) if name in STACK_NAMES)


def _by_path(seen: set[Seen]) -> dict[str, frozenset[Seen]]:
    grouped: dict[str, set[Seen]] = {}
    for one in seen:
        grouped.setdefault("/".join(one.path), set()).add(one)
    return {path: frozenset(ones) for path, ones in grouped.items()}
