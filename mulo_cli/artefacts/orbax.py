"""Orbax as we use it: one process writes and reads, whoever else takes part in its work.

Left to itself Orbax lets all processes of `jax.distributed` write together, and waits for them.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import orbax.checkpoint as ocp

LOOP_CLOSED = "Event loop is closed"
NOT_RETRIEVED = "exception was never retrieved"
"""What asyncio says of arrays whose reading ends after that of another one has failed."""


def checkpointer() -> ocp.Checkpointer:
    """Return what writes and reads trees of arrays in this process alone."""
    handler = ocp.StandardCheckpointHandler
    if jax.process_count() == 1:
        return ocp.Checkpointer(handler())
    us = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=us, active_processes={us}, barrier_sync_key_prefix=f"process-{us}"
    )
    return ocp.Checkpointer(handler(multiprocessing_options=alone), multiprocessing_options=alone)


@contextmanager
def reading() -> Iterator[None]:
    """Read files that may be damaged without tracebacks on stderr.

    Orbax reads arrays side by side and gives up at the first that fails. The others end later, some
    of them after the context: where it has failed, nobody is told of them from then on.
    """
    logger, former = logging.getLogger("asyncio"), sys.unraisablehook
    sys.unraisablehook = former if isinstance(former, _Unraisable) else _Unraisable(former)
    logger.addFilter(_is_news)
    yield
    sys.unraisablehook = former
    logger.removeFilter(_is_news)


class _Unraisable:
    """What Python calls where an exception reaches nobody.

    Args:
        former: is told of all but arrays that come too late.
    """

    def __init__(self, former: Callable[[Any], object]) -> None:
        self._former = former

    def __call__(self, told: Any) -> None:
        if str(told.exc_value) != LOOP_CLOSED:
            self._former(told)


def _is_news(record: logging.LogRecord) -> bool:
    return NOT_RETRIEVED not in record.getMessage()
