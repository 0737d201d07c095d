"""What every layer of a network reads and puts out, by name and in forward order.

flax keeps the outputs of modules (`capture_intermediates`); what a module reads is sown beside
them by an interceptor, which also tells in which order modules are entered. Whatever is not used is
compiled away.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mulo_cli.results.coordinate_networks import LOGITS
from mulo_cli.types import Params

COLLECTION = "intermediates"
"""Where flax keeps what it captures and what modules sow."""

READS = "mulo_reads"
"""Under which a module's first argument is sown."""

OUTPUT = "__call__"
"""Under which flax keeps a module's output, beside the outputs of its own parts."""

NAMESAKE = "logits (module)"
"""What a module is called that has that name, and whose output is not the network's."""

READOUTS = ("readout", LOGITS)
"""Names of modules whose output, if they are called last, is the logits but for constant factors.
The former is the last layer of every optimizee of ours."""

Path: TypeAlias = tuple[str, ...]


class Layer(NamedTuple):
    """What one layer did with a batch.

    Attributes:
        output: what it put out; of a module that is called several times, the last time.
        reads: what it was called with; None where that is no array of floating-point numbers.
        sown: a sign that this is a value which a module sowed, else None. (No boolean: this is
            handed through jax, which would make an array of it.)
    """

    output: Float[Array, "..."]
    reads: Float[Array, "..."] | None = None
    sown: tuple[()] | None = None


Layers: TypeAlias = Mapping[str, Layer]
"""Name -> layer, in forward order; layers of a stack are apart: `blocks_0`, `blocks_1` ...

An ordered dict: jax hands others on in the order of the alphabet.
"""


def watched(
    network: nn.Module, params: Params, inputs: Num[Array, "B *shape"]
) -> tuple[Float[Array, "... C"], Layers]:
    """Apply a network, and keep what its layers do.

    Returns:
        The logits, and every module by its path, with the values that modules sow; the logits
        come last. A module whose output is the logits is not listed beside them: what the innermost
        such one reads is what the logits' layer reads.
    """
    seen = _Seen()
    with seen.interceptor():
        logits, captured = network.apply({"params": params}, inputs, capture_intermediates=True)
    layers = OrderedDict(_apart(list(_entries(seen, dict(captured).get(COLLECTION, {})))))
    reads = None
    for name in _of_logits(seen, layers, logits):
        reads = layers.pop(name).reads
    named = OrderedDict((NAMESAKE if n == LOGITS else n, x) for n, x in layers.items())
    named[LOGITS] = Layer(logits, reads)
    return logits, named


@dataclass(frozen=True)
class _Seen:
    """What an interceptor notes while a network is traced.

    Attributes:
        order: paths of modules as they are entered, and of sown values as they are found.
        ndim: path of a module -> axes of its output, where it is called: a stack has more.
        returned: paths of modules in the order in which they returned for the last time.
    """

    order: dict[Path, None] = field(default_factory=dict)
    ndim: dict[Path, int] = field(default_factory=dict)
    returned: dict[Path, None] = field(default_factory=dict)

    def interceptor(self) -> AbstractContextManager[None]:
        """Watch every module that is called meanwhile."""
        return nn.intercept_methods(self._watch)

    def _watch(self, call: Callable, args: tuple, kwargs: Mapping[str, Any], context: Any) -> Any:
        module = context.module
        if context.method_name != OUTPUT or module.scope is None:
            return call(*args, **kwargs)
        if isinstance(module.parent, nn.Module):
            self._note_sown(module.parent)
        self.order.setdefault(module.path)
        if args and _is_floating(args[0]) and module.path:
            module.sow(
                COLLECTION,
                READS,
                jax.lax.stop_gradient(args[0]),
                init_fn=lambda: None,
                reduce_fn=lambda _, new: new,
            )
        result = call(*args, **kwargs)
        self._note_sown(module)
        self.returned.pop(module.path, None)
        self.returned[module.path] = None
        output = _first_array(result)
        if output is not None:
            self.ndim[module.path] = output.ndim
        return result

    def _note_sown(self, module: nn.Module) -> None:
        """Note the values that a module has sown by now."""
        if module.scope is None:
            return
        for name, collections in module.scope.reservations.items():
            if COLLECTION in collections and name not in (READS, OUTPUT):
                self.order.setdefault((*module.path, name))


def _of_logits(seen: _Seen, layers: Layers, logits: Array) -> list[str]:
    """Return the names of the modules whose output is the logits, the innermost last.

    Where constant factors follow, it is the module that returned last (within the innermost), if
    its name is one of `READOUTS`: neither the place nor the name tells alone.
    """
    returned = [path for path in reversed(seen.returned) if "/".join(path) in layers]
    outputs = {path: layers["/".join(path)].output for path in returned}
    found = [path for path in returned if outputs[path] is logits]
    inner = found[-1] if found else ()
    before = returned[returned.index(inner) + 1 :] if found else returned
    for path in before[:1]:
        inside = path[: len(inner)] == inner
        if inside and path[-1] in READOUTS and outputs[path].shape == logits.shape:
            found.append(path)
    return ["/".join(path) for path in found]


class _Entry(NamedTuple):
    """A layer as it was captured.

    Attributes:
        path: of the module, or of the sown value.
        stack: how many names of the path lead to the module that is a stack; 0: it is in none.
    """

    path: Path
    stack: int
    layer: Layer


def _entries(seen: _Seen, captured: Mapping[str, Any]) -> Iterator[_Entry]:
    """Yield what was captured in the order in which it was seen."""
    stacked: dict[Path, bool] = {}
    for path in seen.order:
        inner = _at(captured, path)
        sown = path not in seen.ndim
        output = _first_array(_of_last_call(inner if sown else (inner or {}).get(OUTPUT)))
        if not sown and output is not None:
            stacked[path] = output.ndim > seen.ndim[path]
        if output is None or not path:
            continue
        stack = next((n for n in range(1, len(path) + 1) if stacked.get(path[:n])), 0)
        layer = Layer(output, None, ()) if sown else Layer(output, inner.get(READS))
        yield _Entry(path, stack, layer)


def _apart(entries: Sequence[_Entry]) -> Iterator[tuple[str, Layer]]:
    """Yield names and layers, one block of a stack after the other."""
    left = list(entries)
    while left:
        path, stack, layer = left[0]
        if not stack:
            yield "/".join(path), layer
            left.pop(0)
            continue
        mine = [e.stack == stack and e.path[:stack] == path[:stack] for e in left]
        parts = [entry for entry, own in zip(left, mine, strict=True) if own]
        left = [entry for entry, own in zip(left, mine, strict=True) if not own]
        for number in range(layer.output.shape[0]):
            for part in parts:
                block = f"{path[stack - 1]}_{number}"
                names = (*path[: stack - 1], block, *part.path[stack:])
                yield "/".join(names), jax.tree.map(lambda x, i=number: x[i], part.layer)


def _at(captured: Mapping[str, Any], path: Path) -> Any:
    """Return what was captured under a path, None where nothing was."""
    for name in path:
        if not isinstance(captured, Mapping) or name not in captured:
            return None
        captured = captured[name]
    return captured


def _of_last_call(kept: Any) -> Any:
    """Return what was kept last: flax keeps a tuple with an entry for each call."""
    return (kept[-1] if kept else None) if isinstance(kept, tuple) else kept


def _first_array(output: Any) -> Array | None:
    """Return an array of floats as it is, of several outputs the first; None for anything else."""
    if isinstance(output, tuple | list):
        return _first_array(output[0]) if output else None
    return output if _is_floating(output) else None


def _is_floating(value: Any) -> bool:
    return hasattr(value, "ndim") and jnp.issubdtype(value.dtype, jnp.floating)
