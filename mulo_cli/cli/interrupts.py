"""Ctrl-C and SIGTERM as a request to save and end; a second one ends at once."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from mulo_cli.cli.outcome import ExitCode

STDERR = 2
"""Its file descriptor."""

EXIT_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class StopRequest:
    """Whether, and by which signal, somebody asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        """Whether somebody did."""
        return self.signal is not None

    @property
    def exit_code(self) -> ExitCode:
        """Of a command that was stopped."""
        return ExitCode.DONE if self.signal is None else EXIT_CODES[self.signal]


class Terminated(BaseException):
    """SIGTERM, where it ends work at once; typer would take a KeyboardInterrupt for Ctrl-C."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let both signals end work at once, such that what it has begun is cleared away.

    A library may take what a signal raised for a failure of its own: it is still the signal's end.
    """
    came: list[type[BaseException]] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        raise came[0]

    with _handler(on_signal):
        try:
            yield
        except Exception:
            if came:
                raise came[0] from None
            raise


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turn the first signal into a request for as long as the context lasts.

    The handler writes to stderr's file itself: it may interrupt somebody who is just printing, and
    whoever read our stderr may have died of the same Ctrl-C.
    """
    request = StopRequest()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        if request():
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)
        with suppress(OSError):
            os.write(STDERR, f"{request.signal.name}: stopping after this step\n".encode())

    with _handler(on_signal):
        yield request


@contextmanager
def _handler(on_signal: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    former = {number: signal.signal(number, on_signal) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
