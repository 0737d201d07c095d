"""What flax modules tell about their parameters while they are initialised.

Linen modules are watched through `flax.linen.intercept_methods`; an nnx model is a graph that can
be walked. Both know the layout of a kernel, and its shape *inside* `nn.scan` or `vmap`: an axis
that the stored leaf has besides counts layers.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import flax.linen as nn
import jax
from flax import nnx

from mulo_cli.mup.kinds import Layout
from mulo_cli.mup.modules import Readout

Shape: TypeAlias = tuple[int, ...]

LayoutOf: TypeAlias = Callable[[Any, str, Shape], Layout | None]
"""(module, name of its parameter, shape) -> layout, or None where the module does not tell."""


@dataclass(frozen=True)
class Seen:
    """One parameter as its module knows it.

    Attributes:
        path: names from the module that was initialised down to the parameter.
        shape: within one layer of a stack.
        layout: of that shape, or None.
        forward: whether the module divides the product by the fan-in (`Readout`).
    """

    path: tuple[str, ...]
    shape: Shape
    layout: Layout | None
    forward: bool


fresh_trace = jax.make_user_context(None)
"""Part of the key of every trace cache: a function that was traced before is traced again."""


@contextmanager
def watched_linen() -> Iterator[set[Seen]]:
    """Collect what every linen module tells that is called meanwhile, in jitted functions too."""
    seen: set[Seen] = set()

    def watch(call: Callable, args: tuple, kwargs: Mapping, context: Any) -> Any:
        result = call(*args, **kwargs)
        module = context.module
        if module.scope is not None:
            seen.update(_of_linen(module, _einsum_string(args, kwargs)))
        return result

    with nn.intercept_methods(watch), fresh_trace(object()):
        yield seen


def of_nnx(model: Any) -> set[Seen]:
    """Return what the modules of an nnx graph tell."""
    return {
        Seen(tuple(map(str, (*path, name))), *told)
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.Module)
        for name, told in _of_nnx_module(node)
    }


def _einsum_string(args: tuple, kwargs: Mapping) -> str | None:
    """Return the string of `Einsum`, which may be an argument of the call."""
    return next((x for x in (*args, *kwargs.values()) if isinstance(x, str)), None)


def _of_linen(module: nn.Module, called_with: str | None) -> Iterator[Seen]:
    layout_of = _first(module, LINEN_LAYOUTS)
    if isinstance(module, nn.Einsum) and module.einsum_str is None:
        layout_of = functools.partial(_einsum_of, called_with or "")
    for name, leaf in module.variables.get("params", {}).items():
        value = nn.meta.unbox(leaf)
        if isinstance(value, Mapping) or not hasattr(value, "shape"):
            continue
        layout = layout_of(module, name, value.shape) if layout_of else None
        yield Seen((*module.path, name), value.shape, layout, isinstance(module, Readout))


def _of_nnx_module(module: nnx.Module) -> Iterator[tuple[str, tuple[Shape, Layout | None, bool]]]:
    """Yield names, and what is told: nnx modules keep their sizes as attributes."""
    layout_of = _first(module, NNX_LAYOUTS)
    if layout_of is None:
        return
    for name, leaf in vars(module).items():
        if not isinstance(leaf, nnx.Param):
            continue
        shape = _unstacked(module, name)
        yield name, (shape, layout_of(module, name, shape), False)


def _first(module: Any, table: Mapping[type, LayoutOf]) -> LayoutOf | None:
    return next((rule for kind, rule in table.items() if isinstance(module, kind)), None)


def _vector(module: Any, name: str, shape: Shape) -> Layout | None:
    """Biases, gains and shifts; a parameter that somebody added to the module is not known."""
    del module
    return Layout((), tuple(range(len(shape)))) if name in ("bias", "scale") else None


def _dense(module: Any, name: str, shape: Shape) -> Layout | None:
    """Kernel (in, out); any number of spatial axes before them: a convolution's."""
    if name not in ("kernel", "embedding"):
        return _vector(module, name, shape)
    last = len(shape) - 1
    return Layout(tuple(range(last)), (last,))


def _general(module: Any, name: str, shape: Shape) -> Layout | None:
    """`DenseGeneral`, `LinearGeneral`: (batch ..., in ..., out ...)."""
    if name not in ("kernel", "bias"):
        return None
    if isinstance(module, nn.DenseGeneral):
        batch, outs = _count(module.batch_dims), _count(module.features)
    else:
        batch, outs = len(module.batch_axis), len(module.out_features)
    axes, first_out = tuple(range(len(shape))), len(shape) - outs
    return Layout(axes[batch:first_out], axes[first_out:], axes[:batch])


def _count(one_or_more: Any) -> int:
    return 1 if isinstance(one_or_more, int) else len(one_or_more)


def _transposed(module: Any, name: str, shape: Shape) -> Layout | None:
    """`ConvTranspose`: (spatial ..., in, out), or (spatial ..., out, in)."""
    if name != "kernel" or not module.transpose_kernel:
        return _dense(module, name, shape)
    last = len(shape) - 1
    return Layout((*range(last - 1), last), (last - 1,))


def _local(module: Any, name: str, shape: Shape) -> Layout | None:
    """`ConvLocal`: (place ..., spatial x in, out), one kernel for each place."""
    if name != "kernel":
        return _vector(module, name, shape)
    last = len(shape) - 1
    return Layout((last - 1,), (last,), tuple(range(last - 1)))


def _einsum(module: Any, name: str, shape: Shape) -> Layout | None:
    """`Einsum`: letters of the kernel that the result lacks are summed over."""
    return _einsum_of(module.einsum_str or "", module, name, shape)


def _einsum_of(string: str, module: Any, name: str, shape: Shape) -> Layout | None:
    if name != "kernel":
        return _vector(module, name, shape)
    operands, _, result = string.replace(" ", "").partition("->")
    inputs, _, letters = operands.partition(",")
    if len(letters) != len(shape):
        return None
    places = {axis: (letter in inputs, letter in result) for axis, letter in enumerate(letters)}
    return Layout(
        in_axes=tuple(axis for axis, (_, kept) in places.items() if not kept),
        out_axes=tuple(axis for axis, place in places.items() if place == (False, True)),
        stack_axes=tuple(axis for axis, place in places.items() if place == (True, True)),
    )


LINEN_LAYOUTS: Mapping[type, LayoutOf] = {
    Readout: _dense,
    nn.Dense: _dense,
    nn.DenseGeneral: _general,
    nn.ConvLocal: _local,
    nn.Conv: _dense,
    nn.ConvTranspose: _transposed,
    nn.Einsum: _einsum,
    nn.Embed: _dense,
    nn.LayerNorm: _vector,
    nn.RMSNorm: _vector,
    nn.BatchNorm: _vector,
    nn.GroupNorm: _vector,
    nn.InstanceNorm: _vector,
}
"""Modules whose layouts are known; a subclass has its parent's."""

NNX_LAYOUTS: Mapping[type, LayoutOf] = {
    nnx.Linear: _dense,
    nnx.LinearGeneral: _general,
    nnx.Conv: _dense,
    nnx.ConvTranspose: _transposed,
    nnx.Einsum: _einsum,
    nnx.Embed: _dense,
    nnx.LayerNorm: _vector,
    nnx.RMSNorm: _vector,
    nnx.BatchNorm: _vector,
    nnx.GroupNorm: _vector,
    nnx.InstanceNorm: _vector,
}


def _unstacked(module: Any, name: str) -> Shape:
    """Return the shape that one layer's parameter has, from the sizes its nnx module keeps."""
    if isinstance(module, nnx.Embed):
        return (module.num_embeddings, module.features)
    if isinstance(module, nnx.Linear):
        return (module.in_features, module.out_features)[0 if name == "kernel" else 1 :]
    if isinstance(module, nnx.LinearGeneral):
        ins = tuple(module.in_features) if name == "kernel" else ()
        return (*module.batch_axis.values(), *ins, *module.out_features)
    if isinstance(module, nnx.Einsum):
        return tuple(module.kernel_shape if name == "kernel" else module.bias_shape or ())
    if isinstance(module, nnx.Conv | nnx.ConvTranspose):
        return tuple(module.kernel_shape) if name == "kernel" else (module.out_features,)
    return (module.num_features,)
