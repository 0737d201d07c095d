"""Which axes of a parameter count layers that are stacked into one array.

Shapes at two widths cannot tell; a third network of another depth can, and so can the metadata that
flax's `nn.scan` leaves on a leaf.
"""

from mulo_cli.errors import RoleError
from mulo_cli.mup.layouts import Shape
from mulo_cli.mup.sketches import Sketch


def stacks_of(small: Sketch, large: Sketch, deep: Sketch | None) -> dict[str, Shape]:
    """Return the axes of every leaf that count layers, as far as metadata and another depth tell.

    Args:
        small: the network at one width.
        large: the network at the other.
        deep: the same network, at one of these widths, with another number of layers.

    Raises:
        RoleError: the third network differs in more than its depth, or in nothing.
    """
    stacks = {name: set(axes) for name, axes in large.stacks.items()}
    if deep is not None:
        for name, axes in _changed_by_depth(small, large, deep).items():
            stacks[name] |= axes
    for name, axes in stacks.items():
        both = [axis for axis in axes if small.shapes[name][axis] != large.shapes[name][axis]]
        if both:
            raise RoleError(
                f"axis {both[0]} of parameter {name!r} counts layers, and changes with width",
                "the third network differs from one of the others in nothing but its depth; both "
                "others have the same depth",
            )
    return {name: tuple(sorted(axes)) for name, axes in stacks.items()}


def _changed_by_depth(small: Sketch, large: Sketch, deep: Sketch) -> dict[str, set[int]]:
    """Return the axes that differ from the network of the same width.

    Layers that are leaves of their own are there or not; what both networks have is compared.
    """
    by_width = [_changed(one, deep) for one in (large, small)]
    changed = min(by_width, key=lambda found: sum(map(len, found.values())))
    same_leaves = large.shapes.keys() == deep.shapes.keys()
    if same_leaves and not any(changed.values()):
        raise RoleError(
            "the third network has the same shapes as one of the other two",
            "init_deep is the same architecture with another number of layers",
        )
    return changed


def _changed(one: Sketch, deep: Sketch) -> dict[str, set[int]]:
    common = one.shapes.keys() & deep.shapes.keys()
    for name in common:
        if len(one.shapes[name]) != len(deep.shapes[name]):
            raise RoleError(
                f"parameter {name!r} changes its number of axes with depth",
                "give the same architecture at another depth",
            )
    return {
        name: {
            axis
            for axis, sizes in enumerate(zip(one.shapes[name], deep.shapes[name], strict=True))
            if sizes[0] != sizes[1]
        }
        for name in common
    }
