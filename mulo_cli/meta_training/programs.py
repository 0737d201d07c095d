"""The programs of a meta-training, compiled side by side while the next one is traced.

Tracing is Python and goes on one at a time; XLA compiles without Python's lock, and much of what it
does keeps a single core busy. What was traced for such a run before is not traced again.
"""

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import jax
from jax import export
from jax.stages import Compiled, Lowered

from mulo_cli.machine import usable_cores
from mulo_cli.meta_training.kept_programs import KeptPrograms

NOT_EXPORTED = (ValueError, NotImplementedError)
"""What jax raises for a program that cannot be kept: one that calls Python, for example."""

FlatFunction: TypeAlias = Callable[..., Any]
"""Leaves of arguments -> leaves of the outcome."""


class Source(NamedTuple):
    """What a program is made of."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    """Those it will be called with, or their shapes."""
    outcome: Any
    """A pytree like the one that the function returns; what its leaves are does not matter."""
    donates_first: bool = False
    """Whether the first argument's memory is given away."""


class Program(NamedTuple):
    """A program that may still be compiling; a call waits until it is ready."""

    compiled: "Future[Compiled]"
    structure: Any
    """Of the outcome, as jax describes trees."""

    def __call__(self, *arguments: Any) -> Any:
        """Run it on arguments of the shapes and types it was compiled for."""
        leaves = self.compiled.result()(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(self.structure, leaves)


CompileLater: TypeAlias = Callable[[Source], Program]
"""Traces now, compiles meanwhile."""


@contextmanager
def compiling_side_by_side(kept: KeptPrograms | None) -> Iterator[CompileLater]:
    """Compile programs beside each other.

    At the end, what has not been begun is forgotten; compilations under way cannot be stopped: the
    process waits for them before it ends.

    Args:
        kept: where programs that were traced before are looked for, and others are kept.
    """
    threads = ThreadPoolExecutor(max_workers=usable_cores(), thread_name_prefix="compile")

    def compile_later(source: Source) -> Program:
        with _no_garbage_collected():
            lowered = _lower(source, kept)
        return Program(threads.submit(lowered.compile), jax.tree.structure(source.outcome))

    try:
        yield compile_later
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _lower(source: Source, kept: KeptPrograms | None) -> Lowered:
    """Return a program of flat arguments and a flat outcome; traced, if it was not kept."""
    leaves = jax.tree.leaves(source.arguments)
    function = _flat(source) if kept is None else _kept_or_traced(source, leaves, kept)

    def program(*leaves: Any) -> Any:
        return function(*leaves)

    program.__name__ = source.name  # which profiles and caches tell
    donated = len(jax.tree.leaves(source.arguments[0])) if source.donates_first else 0
    return jax.jit(program, donate_argnums=tuple(range(donated))).lower(*leaves)


def _kept_or_traced(source: Source, leaves: list[Any], kept: KeptPrograms) -> FlatFunction:
    """Return what need not be traced again; the function itself, if it cannot be kept."""
    traced = kept.find(source.name, leaves)
    if traced is None:
        function = _flat(source)
        try:
            traced = export.export(jax.jit(function))(*leaves)
            kept.keep(source.name, leaves, traced)
        except NOT_EXPORTED:
            return function
    return traced.call


def _flat(source: Source) -> FlatFunction:
    """Return the function of a source, from leaves to leaves."""
    structure = jax.tree.structure(source.arguments)
    expected = jax.tree.structure(source.outcome)

    def flat(*leaves: Any) -> Any:
        outcome = source.function(*jax.tree.unflatten(structure, leaves))
        if jax.tree.structure(outcome) != expected:  # leaves would change places
            raise TypeError(f"{source.name} returns another tree than was said")
        return jax.tree.leaves(outcome)

    return flat


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Let Python look for no cycles: tracing makes millions of objects and keeps nearly all."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
