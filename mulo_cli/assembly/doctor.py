"""What `mulo doctor` finds out: whether this machine can do what mulo wants of it.

Nothing is imported before a check needs it: an engine that cannot be imported is a finding.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mulo_cli.datasets.files.memory import available_memory
from mulo_cli.errors import MuloError, shortened
from mulo_cli.machine import processor, usable_cores
from mulo_cli.processes import place_in_environment
from mulo_cli.results.environment import DRIVER_INFO, PACKAGES, code_version
from mulo_cli.results.run_directory import RUNS

State: TypeAlias = Literal["ok", "warning", "problem"]

SCARCE_MEMORY = 2**30
"""Bytes below which even small networks, with jax itself, may not fit."""

SCARCE_DISK = 2**30
"""Bytes below which checkpoints and prepared data may not fit."""

GIB = 2**30

COORDINATION = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Variables by which people tell jax where the processes of a run meet."""

NUMBERS = 1_000
"""How many numbers the tiny computation adds up; their sum is exact in float32."""

SMALLEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of the thing.
        state: ok, a warning (works, but see the hint), or a problem.
        value: what was found, in words.
        hint: what to do about it; empty where nothing needs to be done.
        facts: what was found, for programs.
    """

    name: str
    state: State
    value: str
    hint: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["check"] = "check"


def examine() -> Iterator[Check]:
    """Look at everything, and yield each finding; what cannot be looked at is a problem."""
    for name, look in CHECKS.items():
        yield _carefully(name, look)


def _carefully(name: str, look: Callable[[str], Check]) -> Check:
    """Return a finding whatever happens."""
    try:
        return look(name)
    except MuloError as error:
        return Check(name, "problem", error.message, error.hint)
    except Exception as error:  # libraries that are broken fail in every way that there is
        said = (str(error).strip() or "no reason given").splitlines()[0]
        return Check(name, "problem", f"{type(error).__name__}: {said}", _hint_of(error))


def _hint_of(error: Exception) -> str:
    if isinstance(error, ImportError | metadata.PackageNotFoundError):
        return "install it again: `pip install --force-reinstall mulo-cli`"
    if isinstance(error, OSError):
        return "check the permissions, and the free space on the disk"
    return "what cannot be looked at will not work either; the message tells where to begin"


def _python(name: str) -> Check:
    version = platform.python_version()
    facts = {"mulo": code_version(), "python": version, "system": platform.platform()}
    told = f"mulo {facts['mulo']}, Python {version}, {platform.system()} {platform.machine()}"
    if sys.version_info < SMALLEST_PYTHON:
        return Check(name, "problem", told, "mulo needs Python 3.11 or newer", facts)
    return Check(name, "ok", told, facts=facts)


def _libraries(name: str) -> Check:
    """Tell versions; whether jax and jaxlib fit together jax itself says when it is imported."""
    found = {package: _version(package) for package in PACKAGES}
    told = ", ".join(f"{package} {version or 'missing'}" for package, version in found.items())
    absent = [package for package, version in found.items() if version is None]
    if absent:
        hint = f"install what is missing: `pip install {' '.join(absent)}`"
        return Check(name, "problem", told, hint, found)
    import jax  # refuses a jaxlib that does not fit

    if found["jax"] != found["jaxlib"] or jax.__version__ != found["jax"]:
        hint = f"they are not of one release: `pip install jaxlib=={found['jax']}`"
        return Check(name, "warning", told, hint, found)
    return Check(name, "ok", told, facts=found)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices(name: str) -> Check:
    import jax

    devices = [_device(device) for device in jax.local_devices()]
    backend = jax.default_backend()
    counts: dict[str, int] = {}
    for device in devices:
        memory = f" with {_in_gib(device['memory'])}" if device["memory"] else ""
        words = f"{device['device']}{memory}"
        counts[words] = counts.get(words, 0) + 1
    told = f"{backend}: " + ", ".join(f"{number} x {words}" for words, number in counts.items())
    facts = {"backend": backend, "devices": devices}
    if backend == "cpu" and DRIVER_INFO.exists():
        hint = 'there is a GPU that jax does not use: `pip install "jax[cuda12]"`'
        return Check(name, "warning", told, hint, facts)
    return Check(name, "ok", told, facts=facts)


def _device(device: Any) -> dict[str, Any]:
    """Return kind, and bytes of memory where the device tells them."""
    told = device.memory_stats() or {}
    limit, used = told.get("bytes_limit"), told.get("bytes_in_use", 0)
    free = None if limit is None else limit - used
    return {"device": device.device_kind, "memory": limit, "free": free}


def _memory(name: str) -> Check:
    """Tell what is free for data and, where a processor computes, for networks."""
    import jax

    here = available_memory()
    free = [here, *(_device(device)["free"] for device in jax.local_devices())]
    least = min((one for one in free if one is not None), default=None)
    facts = {"host_free": here, "least_free": least}
    if least is None:
        return Check(name, "ok", "this system does not tell how much is free", facts=facts)
    of_host = f" on the device, {_in_gib(here)} on the host" if here not in (None, least) else ""
    told = f"{_in_gib(least)} free{of_host}"
    if least < SCARCE_MEMORY:
        return Check(name, "warning", told, "end other programs, or use a larger machine", facts)
    return Check(name, "ok", told, facts=facts)


def _cores(name: str) -> Check:
    usable, there = usable_cores(), os.cpu_count() or 1
    facts = {"usable": usable, "there": there, "processor": processor().name}
    named = f" ({facts['processor']})" if facts["processor"] else ""
    return Check(name, "ok", f"{usable} of {there} usable{named}", facts=facts)


def _data(name: str) -> Check:
    from mulo_cli.assembly.data_reports import list_datasets
    from mulo_cli.datasets.prepared import data_folder

    rows = list(list_datasets())
    there = [row.name for row in rows if row.present]
    absent = [row.name for row in rows if not row.present and not row.complaint]
    damaged = [row.name for row in rows if row.complaint]
    facts = {"folder": str(data_folder()), "there": there, "absent": absent, "damaged": damaged}
    told = f"{', '.join(there) or 'none'} (folder of data: {facts['folder']})"
    if damaged:
        hint = f"`mulo data list` tells what is wrong with {', '.join(damaged)}"
        return Check(name, "warning", told, hint, facts)
    return Check(name, "ok", f"{told}; not there: {', '.join(absent) or 'none'}", facts=facts)


def _kept_programs(name: str) -> Check:
    """Tell the folder, and prove that a compiled program can be written there and read back."""
    import jax

    folder = jax.config.values["jax_compilation_cache_dir"]
    facts: dict[str, Any] = {"folder": folder}
    if not folder or not jax.config.values["jax_enable_compilation_cache"]:
        hint = "every start compiles anew; set JAX_COMPILATION_CACHE_DIR to a folder of your own"
        return Check(name, "warning", "none are kept", hint, facts)
    if "://" in folder:
        return Check(name, "ok", f"{folder}, not on this machine: not looked at", facts=facts)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    facts["bytes"] = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    _refuse_other_results(_through_a_file(place))
    told = f"kept and read back in {folder} ({facts['bytes'] / 2**20:.0f} MiB)"
    return Check(name, "ok", told, facts=facts)


def _computes(name: str) -> Check:
    began = time.monotonic()
    _refuse_other_results(_compiled_sum()(_numbers()))
    seconds = time.monotonic() - began
    told = f"a compiled sum is right, after {seconds:.2f} s"
    return Check(name, "ok", told, facts={"seconds": round(seconds, 3)})


def _numbers() -> Any:
    import jax.numpy as jnp

    return jnp.arange(NUMBERS, dtype=jnp.float32)


def _compiled_sum() -> Any:
    import jax

    return jax.jit(lambda numbers: numbers.sum()).lower(_numbers()).compile()


def _through_a_file(folder: Path) -> Any:
    """Return what a compiled program computes after it was a file; the file has no name."""
    from jax.experimental.serialize_executable import deserialize_and_load, serialize

    stored, *trees = serialize(_compiled_sum())
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(stored)
        file.seek(0)
        return deserialize_and_load(file.read(), *trees)(_numbers())


def _refuse_other_results(found: Any) -> None:
    wanted = NUMBERS * (NUMBERS - 1) / 2
    if float(found) != wanted:
        raise MuloError(
            f"the sum of 0..{NUMBERS - 1} is {float(found)} here instead of {wanted}",
            "the device, its driver or jax is broken: trust no result of this machine",
        )


def _output(name: str) -> Check:
    """Write where runs go by default, without leaving anything there."""
    if os.path.lexists(RUNS) and not RUNS.is_dir():
        hint = "move it away, for runs go there; or give commands an --out elsewhere"
        return Check(name, "problem", f"{RUNS.absolute()} is there, and is no folder", hint)
    folder = next(path for path in (RUNS.absolute(), Path.cwd()) if path.is_dir())
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0")
    free = shutil.disk_usage(folder).free
    facts = {"folder": str(folder), "free": free}
    told = f"{folder} can be written, {_in_gib(free)} free"
    if free < SCARCE_DISK:
        hint = "free some space, or give commands an --out on another disk"
        return Check(name, "warning", told, hint, facts)
    return Check(name, "ok", told, facts=facts)


def _processes(name: str) -> Check:
    place = place_in_environment(os.environ)
    said = {key: os.environ[key] for key in COORDINATION if key in os.environ}
    facts: dict[str, Any] = dict(said)
    told = "one process, no launcher"
    if place is not None:
        facts |= {"index": place.index, "count": place.count, "told_by": place.told_by}
        told = f"process {place.index} of {place.count} (told by {place.told_by})"
    if said:
        told += "; " + ", ".join(f"{key}={shortened(value)[1:-1]}" for key, value in said.items())
    return Check(name, "ok", told, facts=facts)


def _determinism(name: str) -> Check:
    from mulo_cli.assembly.environment import missing_determinism

    missing = missing_determinism()
    if missing:
        hint = f"set {missing} before runs that are to repeat themselves bit for bit"
        return Check(name, "warning", "runs may differ in their last digits", hint)
    return Check(name, "ok", "runs on this device repeat themselves bit for bit")


def _in_gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


CHECKS: Mapping[str, Callable[[str], Check]] = {
    "mulo": _python,
    "libraries": _libraries,
    "devices": _devices,
    "memory": _memory,
    "cores": _cores,
    "computing": _computes,
    "compiled programs": _kept_programs,
    "determinism": _determinism,
    "data sets": _data,
    "output": _output,
    "processes": _processes,
}
"""Name -> what looks at it, in the order in which they are told."""
