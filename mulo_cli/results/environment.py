"""Under what a result was computed: versions and machine, without paths or names of people.

Bits of float32 sums depend on the versions, on the processor's vector instructions and cores, on
the accelerator with its driver and libraries, on XLA's flags and on a few settings of jax. On a GPU
they may differ from one run of a program to the next, unless it was compiled for determinism
(OpenXLA, *Determinism (GPU)*).
"""

import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mulo_cli.machine import processor, usable_cores

PACKAGES = ("jax", "jaxlib", "optax", "flax", "orbax-checkpoint", "numpy")

GPU_PACKAGES = (
    "jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm60-plugin", "jax-rocm7-plugin",
    "nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
)  # fmt: skip
"""What a GPU's products come from; told where they are installed."""

VECTOR_INSTRUCTIONS = frozenset(
    {
        "avx", "avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_bf16",
        "avx512_fp16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "asimdhp", "bf16", "sve",
        "sve2", "svebf16",
    }
)  # fmt: skip
"""Flags of a processor that compiled programs may use, as Linux names them."""

DRIVER_INFO = Path("/proc/driver/nvidia/version")

CPU = "cpu"
"""What jax calls the processor as a device."""

OF_THE_PROCESSOR = ("cpu", "vector_instructions", "cpu_count")
"""What matters where the processor computes. The number of cores does, too: sums over a batch of
4096 had other last bits on one core than on two (those over 128 or 512 had not)."""

GPU_PLATFORMS = ("gpu", "cuda", "rocm")

DETERMINISTIC = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")
"""XLA's flags of which either makes a GPU repeat itself: kernels without atomic sums, and the first
candidate in place of the one that happened to be measured fastest (no autotuning)."""


VIRTUAL_DEVICES = "--xla_force_host_platform_device_count"


def describe_environment(
    devices: list[str], settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return versions of what computes, the machine, and what else bits depend on.

    Args:
        devices: kinds of the devices in use, as jax names them.
        settings: of jax, by name.
    """
    return {
        "mulo": code_version(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        **_installed(GPU_PACKAGES),
        "platform": f"{platform.system()} {platform.machine()}",
        **_processor(),
        "cpu_count": usable_cores(),
        "devices": devices,
        **_driver(),
        "xla_flags": flags_without_paths(os.environ.get("XLA_FLAGS", "")),
        "tf32_override": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
        **(settings or {}),
    }


def environment_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what bits may depend on and is another now; what was not told then is left out."""
    silent = () if CPU in now.get("devices", ()) else OF_THE_PROCESSOR
    return {
        key: value
        for key, value in now.items()
        if key in then and then[key] != value and key not in silent
    }


def determinism_hint(backend: str, flags: str) -> str | None:
    """Return what to set so that a run repeats itself; None where it does.

    Args:
        backend: as jax names it: cpu, gpu, tpu.
        flags: XLA's, as in its environment variable.
    """
    if backend not in GPU_PLATFORMS or any(_is_set(flag, flags) for flag in DETERMINISTIC):
        return None
    return f"XLA_FLAGS=--{DETERMINISTIC[0]}=true"


def flags_without_paths(flags: str) -> str:
    """Return XLA's flags in the order of the alphabet, of each the last value: it counts for XLA.

    Of a path, only that there is one: it may be a flag's value, or a file with flags. How many
    devices a processor pretends to be is left out: it changes no bit.
    """
    last = {}
    for part in flags.split():
        name, is_, value = part.partition("=")
        if name == VIRTUAL_DEVICES:
            continue
        if name.startswith("-"):
            last[name] = f"{name}{is_}{'(path)' if '/' in value else value}"
        else:
            last[name] = "(path)"
    return " ".join(sorted(last.values()))


def code_version() -> str:
    """Return the version of this package."""
    return metadata.version("mulo-cli")


def _is_set(flag: str, flags: str) -> bool:
    """Whether a flag is on; as for XLA, the last one counts."""
    values = re.findall(rf"(?:^|\s)--{flag}(?:=(\S*))?(?=\s|$)", flags)
    return bool(values) and values[-1].lower() in ("", "true", "1")


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> dict[str, str]:
    """Return the processor's name and its vector instructions, as far as the system tells them."""
    this = processor()
    known = VECTOR_INSTRUCTIONS & this.abilities
    return {"cpu": this.name, "vector_instructions": " ".join(sorted(known))}


def _driver() -> dict[str, str]:
    version = re.search(r"Kernel Module[^\n]*?\s(\d+(?:\.\d+)+)\s", _text(DRIVER_INFO))
    return {"nvidia_driver": version[1]} if version else {}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
