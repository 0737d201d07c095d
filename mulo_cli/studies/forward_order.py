"""In which order a network uses its parameters, read off the equations it is traced to."""

from collections.abc import Callable, Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var
from jaxtyping import PyTree

SENT = "sharding_constraint"
"""Name of an equation that says where an array lies, and uses it for nothing."""

Place = tuple[int, ...]
"""Number of an equation; of one inside of it; and so on."""


def first_uses(function: Callable, params: PyTree, *arguments: PyTree) -> list[Place]:
    """Return for each leaf of the params where it is used first; places are ordered as tuples.

    Args:
        function: of params and arguments; it is traced, not run.
        params: arrays, or their shapes.
        arguments: further ones.
    """
    program = jax.make_jaxpr(function)(params, *arguments).jaxpr
    leaves = program.invars[: len(jax.tree.leaves(params))]
    return [_first_use(program, leaf) or (len(program.eqns),) for leaf in leaves]


def _first_use(program: Jaxpr, leaf: Var) -> Place | None:
    for number, equation in enumerate(program.eqns):
        for place, read in enumerate(equation.invars):
            if read is leaf and equation.primitive.name == SENT:
                return _first_use(program, equation.outvars[0])
            if read is leaf:
                return (number, *_inside(equation, place))
    return None


def _inside(equation: JaxprEqn, place: int) -> Place:
    """Return where an equation's own program uses an argument; nothing if it has none."""
    for body in _bodies(equation):
        if len(body.invars) == len(equation.invars):
            return _first_use(body, body.invars[place]) or ()
    return ()


def _bodies(equation: JaxprEqn) -> Iterator[Jaxpr]:
    for value in equation.params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
