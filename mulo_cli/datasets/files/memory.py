"""How much memory this machine has left, so that what does not fit is refused and not begun."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
"""Where Linux tells it; its `MemAvailable` counts what caches would give back."""


def available_memory() -> int | None:
    """Return the bytes of memory that are free, None where nobody tells.

    Only Linux tells it without a call to another program. The bound of a container (a cgroup) is
    not looked at: there this is the whole machine's memory.
    """
    try:
        lines = MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return None
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    available = facts.get("MemAvailable", "").split()
    return int(available[0]) * 1024 if available else None
