"""An end that C++ decides on, told in our words.

jax's coordination service ends a process that has lost the others by SIGABRT, from a thread of its
own and whatever Python is doing. A handler of Python's would run too late; one of C's may speak.
"""

import ctypes
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)


@contextmanager
def abort_ends_by(end: Callable[[], NoReturn]) -> Iterator[None]:
    """Let SIGABRT call `end`, which ends the process, for as long as the context lasts.

    The signal comes from the thread that gives up, and from no signal-unsafe place of it: Python
    code may run.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    handler = Handler(lambda _: end())
    before = libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, before)
