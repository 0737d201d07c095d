"""Compiled programs are kept on disk: a command's second start need not compile them again.

JAX has such a cache and reads its settings from the environment when it is imported, so setting
them needs no engine. What the user has set wins; without a folder that can be written there is
simply no cache. Programs are machine code and must not run on another processor: each kind has a
folder of its own.
"""

import hashlib
import os
import platform
import re
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from mulo_cli.folders import user_caches

FOLDER_VARIABLE = "JAX_COMPILATION_CACHE_DIR"

THRESHOLD_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

THRESHOLD_SECONDS = "0.3"
"""What compiles faster is not kept: reading it back would save next to nothing."""

MAX_BYTES = 2**30
"""Of all kept programs together; one takes some 1 MB."""

CPU_INFO = Path("/proc/cpuinfo")


def keep_compiled_programs(environ: MutableMapping[str, str]) -> None:
    """Let JAX keep what it compiles in the user's folder for caches, and keep that folder small.

    Call before jax is imported; nothing is written yet.

    Args:
        environ: the environment variables; those that the user has set are left as they are.
    """
    if FOLDER_VARIABLE in environ:
        return
    try:
        programs = user_caches() / "mulo" / "programs"
        if not _can_be_written(programs):
            return
        _forget_oldest(programs, MAX_BYTES)
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        return
    environ[FOLDER_VARIABLE] = str(programs / processor())
    environ.setdefault(THRESHOLD_VARIABLE, THRESHOLD_SECONDS)


def processor() -> str:
    """Name this kind of processor: its architecture, and a digest of its model and features."""
    told = ""
    with suppress(OSError):
        told = CPU_INFO.read_text("utf-8", errors="replace")
    described = [platform.processor()]
    for field in ("model name", "flags", "CPU part", "Features"):
        described += re.findall(rf"^{field}\s*:(.*)$", told, re.MULTILINE)[:1]
    digest = hashlib.sha256("\n".join(described).encode()).hexdigest()
    return f"{platform.machine() or 'processor'}-{digest[:12]}"


def _can_be_written(folder: Path) -> bool:
    """Whether a folder, or the nearest one above it that exists, lets us write."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _forget_oldest(folder: Path, most: int) -> None:
    """Delete files, those first that were used least recently, until `most` bytes are left."""
    files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    total = sum(stat.st_size for _, stat in files)
    for path, stat in sorted(files, key=lambda file: max(file[1].st_atime, file[1].st_mtime)):
        if total <= most:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
