"""What the bits of a computation depend on, asked of jax."""

import os
from typing import Any

import jax

from mulo_cli.results.environment import describe_environment, determinism_hint

SETTINGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_enable_x64",
)
"""Settings of jax that change numbers."""


def current_environment() -> dict[str, Any]:
    """Return versions, machine, devices, flags and settings under which this process computes."""
    # which kinds, not how many: the layout changes no bit
    devices = sorted({device.device_kind for device in jax.devices()})
    return describe_environment(devices, {name: getattr(jax.config, name) for name in SETTINGS})


def missing_determinism() -> str | None:
    """Return what to set so that runs on this device repeat themselves; None where they do."""
    return determinism_hint(jax.default_backend(), os.environ.get("XLA_FLAGS", ""))
