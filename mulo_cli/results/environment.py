"""Under what a result was computed: versions and machine, without paths or names of people."""

import os
import platform
from importlib import metadata
from typing import Any

PACKAGES = ("jax", "jaxlib", "optax", "flax", "orbax-checkpoint", "numpy")


def describe_environment(devices: list[str]) -> dict[str, Any]:
    """Return versions of what computes, and the machine.

    Args:
        devices: kinds of the devices in use, as jax names them.
    """
    return {
        "mulo": code_version(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "devices": devices,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def code_version() -> str:
    """Return the version of this package."""
    return metadata.version("mulo-cli")
