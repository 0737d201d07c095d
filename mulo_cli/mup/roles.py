"""Which part a parameter plays when the network grows: input, hidden or output.

A role is read off two shapes of the same parameter, at two widths: an axis that changes is a width
axis. Which axes are summed over is told by flax's modules where the network has such, else by the
shapes; what neither tells is an error. Tensor Programs V (Yang et al., 2022), Table 8; muLO
(Therien et al., 2025), section 4.
"""

import dataclasses
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeAlias

import jax

from mulo_cli.errors import RoleError
from mulo_cli.mup.kinds import (
    Layout,
    ParamRole,
    RoleKind,
    Roles,
    leaf_name,
    role_of,
    role_of_kind,
    size,
)
from mulo_cli.mup.layouts import (
    ORDERS,
    VECTOR_NAMES,
    WEIGHT_OF_BIAS,
    Order,
    Shape,
    axis_words,
    in_words,
    readings,
    told_apart,
)
from mulo_cli.mup.readouts import (
    READOUT_FORMS,
    ReadoutForm,
    check_readouts,
    with_divisors,
    with_forms,
)
from mulo_cli.mup.rules import is_scaled_output
from mulo_cli.mup.sketches import Init, Sketch, Told, sketch, told_by_modules
from mulo_cli.mup.stacks import stacks_of

__all__ = [
    "Init",
    "Layout",
    "Override",
    "ParamRole",
    "RoleKind",
    "Roles",
    "infer_roles",
    "leaf_name",
]

Override: TypeAlias = RoleKind | Layout | ParamRole
"""What a user says about a leaf: its kind, what its axes are for, or everything."""

HOW_TO_OVERRIDE = (
    "say what its axes are for: overrides={{{name!r}: Layout(in_axes=..., out_axes=...)}} in Python"
    " (mulo_cli.Layout), --axes {name}={axes} on the command line, or as it applies"
)


def infer_roles(
    init_small: Init,
    init_large: Init,
    overrides: Mapping[str, Override] | None = None,
    *,
    init_deep: Init | None = None,
    base: Init | None = None,
    layout: Order = "in_out",
    readout: ReadoutForm = "auto",
) -> Roles:
    """Tell the role of every parameter by comparing its shapes at two widths.

    Nothing is initialised: functions are evaluated for shapes alone. The exception are outputs
    outside a `Readout`: their initial scales are measured, by themselves.

    Args:
        init_small: key -> params of the network at one width (or the nnx model itself).
        init_large: the same network at another width. The roles returned carry the fans of *this*
            one: it is the network to be trained.
        overrides: leaf path (as in `layer/kernel`), or a pattern (`blocks/*/kernel`) -> kind,
            `Layout` or `ParamRole`, for leaves of which nothing else tells.
        init_deep: the same network with another number of layers, at one of the two widths; an
            axis that changes counts layers.
        base: a network of a base width: multipliers are relative to its fan-ins (microsoft/mup).
        layout: how matrices are stored where no flax module tells.
        readout: what multiplies outputs by 1/fan_in: `forward`, the network itself; `update`, the
            update's multiplier; `auto`, the network where a `Readout` is found, else the update.

    Returns:
        A tree of `ParamRole` with the structure of the large network's params (of an nnx model:
        of its state of `nnx.Param`s).

    Raises:
        RoleError: the networks differ in structure, a leaf's role cannot be told, or an output
            starts at a scale that does not suit its form.
    """
    _refuse_unknown(layout, readout)
    small, large = sketch(init_small), sketch(init_large)
    _refuse_another_structure(small, large)
    said = _overrides_by_leaf(overrides or {}, large)
    stacks = stacks_of(small, large, None if init_deep is None else sketch(init_deep))
    told = {name: _told(name, small, large) for name in large.shapes}
    leaves = {name: Leaf(name, small, large, told[name], stacks[name]) for name in large.shapes}
    roles = {name: _role(leaf, said.get(name), layout) for name, leaf in leaves.items()}
    final = {name: role for name, role in said.items() if isinstance(role, ParamRole)}
    forward = {name: bool(of and of.forward) for name, of in told.items()}
    roles = with_divisors(
        with_forms(roles, forward, readout), (small.shapes, large.shapes), forward
    )
    roles = {**roles, **final}
    if base is not None:
        roles = {**_relative_to(roles, forward, sketch(base), small, large), **final}
    to_check = {
        name: role for name, role in roles.items() if is_scaled_output(role) and name not in final
    }
    check_readouts((init_small, init_large), (small, large), to_check)
    return jax.tree.unflatten(large.structure, list(roles.values()))


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Everything that is known about one parameter before its role is told.

    Attributes:
        name: its path.
        small: the network at one width.
        large: the network at the other.
        told: what its module tells, if there is one.
        stack: axes that count layers, as far as depth and metadata tell.
    """

    name: str
    small: Sketch
    large: Sketch
    told: Told | None
    stack: Shape

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """Its shapes at both widths."""
        return self.small.shapes[self.name], self.large.shapes[self.name]

    @property
    def where(self) -> str:
        """How an error calls it."""
        return f"parameter {self.name!r} with shapes {self.shapes[0]} and {self.shapes[1]}"


def _refuse_unknown(layout: str, readout: str) -> None:
    for word, value, known in (("layout", layout, ORDERS), ("readout", readout, READOUT_FORMS)):
        if value not in known:
            raise RoleError(f"{word}={value!r} is unknown", f"known are: {', '.join(known)}")


def _refuse_another_structure(one: Sketch, other: Sketch) -> None:
    """Compare the leaves' names and numbers of axes.

    Static parts of a structure may differ: many modules keep their width there.
    """
    lone = sorted(one.shapes.keys() ^ other.shapes.keys())
    if lone:
        raise RoleError(
            f"the two networks have different parameters: only one has {lone[0]!r}",
            "give the same architecture at two widths (same depth, same layer names)",
        )
    for name, shape in other.shapes.items():
        if len(one.shapes[name]) != len(shape):
            raise RoleError(
                f"parameter {name!r} changes its number of axes with width "
                f"({one.shapes[name]}, {shape})",
                "give the same architecture at two widths",
            )


def _overrides_by_leaf(overrides: Mapping[str, Override], large: Sketch) -> dict[str, Override]:
    """Return what is said about each leaf: by its own name, else by the first pattern it fits."""
    said: dict[str, Override] = {}
    for pattern, override in overrides.items():
        fitting = [name for name in large.shapes if name == pattern or fnmatchcase(name, pattern)]
        if not fitting:
            raise RoleError(
                f"no parameter is called {pattern!r}",
                "name leaves by their path, for example 'hidden_0/kernel' or 'blocks/*/kernel'",
            )
        for name in fitting:
            if name == pattern or name not in said:
                said[name] = override
    return said


def _told(name: str, small: Sketch, large: Sketch) -> Told | None:
    found = told_by_modules(name, small, large)
    if len(found) > 1:
        raise RoleError(
            f"parameter {name!r} may belong to several modules, which use it differently",
            "give modules that are called in one init different names, or return their params "
            "from different functions",
        )
    return next(iter(found), None)


def _role(leaf: Leaf, said: Override | None, order: Order) -> ParamRole:
    if isinstance(said, ParamRole):
        _refuse_wrong_axes(leaf, said.layout)
        return said
    if isinstance(said, Layout):
        _refuse_wrong_axes(leaf, said)
        return role_of(said, *leaf.shapes)
    if leaf.told is not None and leaf.told.layout is not None:
        layout = leaf.told.layout
        _refuse_contradiction(leaf, layout)
        return role_of_kind(said, layout, leaf.shapes[1]) if said else role_of(layout, *leaf.shapes)
    if said is not None:
        return _role_of_said_kind(leaf, said, order)
    role = _only_reading(leaf, _readings(leaf, order))
    _refuse_objection(leaf, role, order)
    return role


def _readings(leaf: Leaf, order: Order) -> list[ParamRole]:
    stack = set(leaf.stack) | set(leaf.told.stack if leaf.told else ())
    layouts = list(readings(*leaf.shapes, tuple(sorted(stack)), order))
    return told_apart(*leaf.shapes, layouts)


def _only_reading(leaf: Leaf, found: list[ParamRole]) -> ParamRole:
    if len(found) == 1:
        return found[0]
    could_be = "; ".join(in_words(role) for role in found)
    raise RoleError(
        f"the role of {leaf.where} cannot be told from its shapes; its axes could be: {could_be}",
        HOW_TO_OVERRIDE.format(name=leaf.name, axes=axis_words(found[0].layout))
        + "; a stack of layers is also told by the same network at another depth (init_deep, "
        "--depths), flax modules by an init that calls them (linen) or returns the model (nnx)",
    )


def _role_of_said_kind(leaf: Leaf, kind: RoleKind, order: Order) -> ParamRole:
    """Return the reading that has the kind, or the first one under another kind."""
    found = _readings(leaf, order)
    fitting = [role for role in found if role.kind is kind]
    if len(fitting) == 1:
        return fitting[0]
    if fitting or (len(found) > 1 and kind is not RoleKind.INPUT):
        return _only_reading(leaf, fitting or found)
    return role_of_kind(kind, found[0].layout, leaf.shapes[1])


def _refuse_wrong_axes(leaf: Leaf, layout: Layout) -> None:
    named = (*layout.in_axes, *layout.out_axes, *layout.stack_axes)
    axes = tuple(range(len(leaf.shapes[1])))
    if tuple(sorted(named)) != axes:
        raise RoleError(
            f"the axes given for {leaf.where} are not all of its axes, each once: {layout}",
            f"name each of {axes} in one of in_axes, out_axes, stack_axes",
        )


def _refuse_contradiction(leaf: Leaf, layout: Layout) -> None:
    wrong = [axis for axis in leaf.stack if axis not in layout.stack_axes]
    if wrong:
        raise RoleError(
            f"axis {wrong[0]} of {leaf.where} counts layers by its depth or metadata, but its "
            "module uses it as something else",
            "the third network differs in nothing but its depth; an axis is named after layers "
            "only if it counts them",
        )


def _refuse_objection(leaf: Leaf, role: ParamRole, order: Order) -> None:
    """Refuse a matrix that a name, or the bias beside it, speaks against."""
    last = leaf.name.rpartition("/")[2]
    if role.kind is not RoleKind.INPUT and last in VECTOR_NAMES:
        raise RoleError(
            f"{leaf.where} is called like a vector, and looks like an {role.kind.value} matrix",
            f"overrides={{{leaf.name!r}: RoleKind.INPUT}} (--role {leaf.name}=input) if it is one "
            f"(a bias of several heads), RoleKind.{role.kind.name} if not",
        )
    if len(role.in_axes) != 1 or len(role.out_axes) != 1:
        return
    bias = _bias_beside(leaf, role)
    fits = bias is not None and bias == _sizes(leaf, role.out_axes[0])
    turned = bias is not None and bias == _sizes(leaf, role.in_axes[0])
    if turned and not fits:
        other = "out_in" if order == "in_out" else "in_out"
        raise RoleError(
            f"{leaf.where} has a bias as long as its inputs if matrices are stored {order}",
            f"layout={other!r} (--layout {other}) reads them the other way; if this one leaf "
            f"differs: --role {leaf.name}=KIND",
        )
    if order == "out_in" and role.kind is RoleKind.OUTPUT and not fits:
        raise RoleError(
            f"{leaf.where} could be a readout stored (out, in) or an embedding (rows, width): "
            "there is no bias beside it that tells",
            f"overrides={{{leaf.name!r}: RoleKind.OUTPUT}} (--role {leaf.name}=output) for a "
            f"readout, RoleKind.INPUT (--role {leaf.name}=input) for an embedding",
        )


def _bias_beside(leaf: Leaf, role: ParamRole) -> tuple[int, int] | None:
    """Return the length at both widths of the bias that belongs to a matrix by its name."""
    parent, _, last = leaf.name.rpartition("/")
    for bias, weights in WEIGHT_OF_BIAS.items():
        name = f"{parent}/{bias}" if parent else bias
        shape = leaf.large.shapes.get(name)
        if last in weights and shape is not None and len(shape) == 1 + len(role.stack_axes):
            return leaf.small.shapes[name][-1], shape[-1]
    return None


def _sizes(leaf: Leaf, axis: int) -> tuple[int, int]:
    return leaf.shapes[0][axis], leaf.shapes[1][axis]


def _relative_to(
    roles: Mapping[str, ParamRole],
    forward: Mapping[str, bool],
    base: Sketch,
    small: Sketch,
    large: Sketch,
) -> dict[str, ParamRole]:
    """Return roles whose multipliers are relative to a base network's fans."""
    _refuse_another_structure(base, large)
    of_base = {}
    for name, role in roles.items():
        shapes = base.shapes[name], small.shapes[name], large.shapes[name]
        for axis, (reference, narrow, wide) in enumerate(zip(*shapes, strict=True)):
            if narrow == wide != reference and axis not in role.stack_axes:
                raise RoleError(
                    f"axis {axis} of parameter {name!r} is {reference} in the base network and "
                    f"{wide} in the others, at both widths",
                    "a base network differs in nothing but its width",
                )
        of_base[name] = dataclasses.replace(
            role, fan_in=size(shapes[0], role.in_axes), fan_out=size(shapes[0], role.out_axes)
        )
    of_base = with_divisors(of_base, (small.shapes, large.shapes), forward)
    return {
        name: dataclasses.replace(role, base_fan_in=one.fan_in, base_width=one.width)
        for (name, role), one in zip(roles.items(), of_base.values(), strict=True)
    }
