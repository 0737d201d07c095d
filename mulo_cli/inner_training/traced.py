"""What a traced program costs, read off its equations: memory that is in use at once, operations.

Nothing is compiled. XLA fuses and reorders, so memory is an estimate; a loop's body counts as often
as it runs, which XLA's own count of operations does not do.
"""

import math
from collections.abc import Callable, Iterator
from typing import cast

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import PyTree

VIEWS = frozenset(
    {"broadcast_in_dim", "iota", "reshape", "squeeze", "expand_dims", "convert_element_type"}
)
"""Equations whose output is never written: whoever reads it reads their input."""

CALLS = frozenset(
    {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint"}
)
"""Equations that are their inner program: its outputs are theirs."""

MOVES = VIEWS | {
    "concatenate", "copy", "dynamic_slice", "dynamic_update_slice", "gather", "pad", "rev", "slice",
    "split", "stop_gradient", "transpose",
}  # fmt: skip
"""Equations that compute nothing."""

KEY_BYTES = 8
"""Of a key of jax's default kind."""

REDUCTIONS = "reduce_"
"""Beginning of the names of equations whose work is in their input."""


def trace(function: Callable, *arguments: PyTree) -> Jaxpr:
    """Return the equations of a function of such arrays, as far as its result depends on them."""
    return _needed(jax.make_jaxpr(function)(*arguments).jaxpr)


def peak_bytes(program: Jaxpr) -> int:
    """Return the most memory that is in use at once beside the inputs, outputs included.

    An array takes its place when it is written, until its last reader is done.
    """
    dying = _last_uses(program)
    used = {var for equation in dying.values() for var in equation}
    live = most = 0
    size: dict[Var, int] = {}
    for number, equation in enumerate(program.eqns):
        written = (
            {} if _is_view(equation) else {v: bytes_of(v) for v in equation.outvars if v in used}
        )
        inner = max((peak_bytes(body) for body in _bodies(equation)), default=0)
        if equation.primitive.name in CALLS:
            inner = max(0, inner - sum(written.values()))
        size |= written
        live += sum(written.values())
        most = max(most, live + inner)
        live -= sum(size.pop(var, 0) for var in dying.get(number, ()))
    return most


def count_flops(program: Jaxpr) -> int:
    """Return the floating-point operations of a program; one of an unknown number of turns: one."""
    return sum(map(_flops, program.eqns))


def bytes_of(var: Var) -> int:
    """Return the bytes of an array; those of a key are not told by its type."""
    array = _array(var)
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return math.prod(array.shape) * (KEY_BYTES if is_key else array.dtype.itemsize)


def size_in_bytes(tree: PyTree) -> int:
    """Return how many bytes a tree of arrays or shapes takes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _flops(equation: JaxprEqn) -> int:
    if not equation.outvars:  # a call whose results nobody needs is left as an empty one
        return 0
    name, out = equation.primitive.name, _array(equation.outvars[0])
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        lengths = (_array(equation.invars[0]).shape[axis] for axis in contracted)
        return 2 * math.prod(out.shape) * math.prod(lengths)
    bodies = [count_flops(body) for body in _bodies(equation)]
    if bodies:
        turns = equation.params["length"] if name == "scan" else 1
        return turns * (max(bodies) if name == "cond" else sum(bodies))
    if name in MOVES or not jnp.issubdtype(out.dtype, jnp.floating):
        return 0
    worked_on = _array(equation.invars[0]) if name.startswith(REDUCTIONS) else out
    return math.prod(worked_on.shape)


def _array(var: Var | Literal) -> ShapedArray:
    """Return what is known of a variable: all of ours are arrays."""
    return cast(ShapedArray, var.aval)


def _bodies(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """Yield the programs inside an equation."""
    for value in equation.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, Jaxpr):
                yield one


def _needed(program: Jaxpr) -> Jaxpr:
    """Return a program without the equations that none of its outputs depends on."""
    wanted = {var for var in program.outvars if isinstance(var, Var)}
    kept = []
    for equation in reversed(program.eqns):
        if wanted.intersection(equation.outvars):
            wanted.update(var for var in equation.invars if isinstance(var, Var))
            kept.append(equation)
    return program.replace(eqns=kept[::-1])


def _last_uses(program: Jaxpr) -> dict[int, list[Var]]:
    """Return number of an equation -> what is not read after it; views stand for what they show."""
    shown: dict[Var, Var] = {}
    last: dict[Var, int] = {}
    for number, equation in enumerate(program.eqns):
        read = [shown.get(var, var) for var in equation.invars if isinstance(var, Var)]
        last |= dict.fromkeys(read, number)
        if _is_view(equation) and read:
            shown |= dict.fromkeys(equation.outvars, read[0])
    outputs = [shown.get(var, var) for var in program.outvars if not isinstance(var, Literal)]
    last |= dict.fromkeys(outputs, len(program.eqns))
    dying: dict[int, list[Var]] = {}
    for var, number in last.items():
        dying.setdefault(number, []).append(var)
    return dying


def _is_view(equation: JaxprEqn) -> bool:
    return equation.primitive.name in VIEWS
