"""How much memory there is for networks, asked before anything is computed."""

from pathlib import Path


def free_memory() -> int | None:
    """Return the bytes that networks can have on the device, None where nobody tells."""
    import jax

    told = jax.devices()[0].memory_stats()
    if told and "bytes_limit" in told:
        return told["bytes_limit"] - told["bytes_in_use"]
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    available = facts.get("MemAvailable", "").split()
    return int(available[0]) * 1024 if available else None
