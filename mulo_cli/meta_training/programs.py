"""The programs of a meta-training, compiled side by side while the next one is traced.

Tracing is Python and goes on one at a time; XLA compiles without Python's lock, and much of what it
does keeps a single core busy.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

from jax.stages import Compiled, Wrapped


class Program(NamedTuple):
    """A program that may still be compiling; a call waits until it is ready."""

    compiled: "Future[Compiled]"

    def __call__(self, *arguments: Any) -> Any:
        """Run it on arguments of the shapes and types it was compiled for."""
        return self.compiled.result()(*arguments)


CompileLater: TypeAlias = Callable[..., Program]
"""(jitted function, *arguments or their shapes) -> its program; traced now, compiled meanwhile."""


@contextmanager
def side_by_side() -> Iterator[CompileLater]:
    """Compile programs beside each other; at the end, what has not been begun is forgotten."""
    threads = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="compile")

    def compile_later(function: Wrapped, *arguments: Any) -> Program:
        return Program(threads.submit(function.lower(*arguments).compile))

    try:
        yield compile_later
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
