"""What this machine computes with: which processor it has, and on how many of its cores we may run.

Read once here because both results (under what they were computed) and compiled programs (where
they may run) depend on it.
"""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux describes its processors; no other system has it."""


@dataclass(frozen=True)
class Processor:
    """A kind of processor.

    Attributes:
        name: its model, as its maker calls it; ARM has a number instead. Elsewhere than on Linux,
            what Python knows.
        abilities: sets of instructions and other features, by Linux' names; elsewhere none.
    """

    name: str
    abilities: frozenset[str]


def usable_cores() -> int:
    """Return on how many cores this process may run, which may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> Processor:
    """Return this machine's processor, as far as the system tells (the first, of several kinds)."""
    try:
        told = CPU_INFO.read_text("utf-8", errors="replace")
    except OSError:
        told = ""
    name = _told(told, "model name") or _told(told, "CPU part") or platform.processor()
    abilities = _told(told, "flags") or _told(told, "Features")
    return Processor(name, frozenset(abilities.split()))


def _told(text: str, field: str) -> str:
    """Return the first value of a field of Linux' description; empty where there is none."""
    found = re.search(rf"^{field}[^\S\n]*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""
