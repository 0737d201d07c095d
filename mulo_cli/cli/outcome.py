"""What a command returns: what to say at the end, and with which exit code."""

import enum
from dataclasses import dataclass


class ExitCode(enum.IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130
    READER_LEFT = 141
    TERMINATED = 143


@dataclass(frozen=True)
class Outcome:
    """The end of a command.

    Attributes:
        summary: lines for stdout: what, how long, where saved, what to run next.
        exit_code: of the process.
    """

    summary: tuple[str, ...] = ()
    exit_code: ExitCode = ExitCode.DONE
