"""Compiled programs are kept on disk: a command's second start need not compile them again.

JAX has such a cache and reads its settings from the environment when it is imported, so setting
them needs no engine. What the user has set wins; without a folder that can be written there is
simply no cache. Programs are machine code, and their loops are split over the cores that could be
used when they were compiled, which jax's names of programs do not tell: each kind of processor has
a folder of its own for each number of cores.
"""

import hashlib
import os
import platform
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from mulo_cli.folders import user_caches
from mulo_cli.machine import processor, usable_cores

FOLDER_VARIABLE = "JAX_COMPILATION_CACHE_DIR"

THRESHOLD_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

THRESHOLD_SECONDS = "0.3"
"""What compiles faster is not kept: reading it back would save next to nothing."""

MAX_BYTES = 2**30
"""Of all kept programs together; one takes some 1 MB."""


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
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        return
    with suppress(OSError):  # another command may be deleting the same files
        _forget_oldest(programs, MAX_BYTES)
    environ[FOLDER_VARIABLE] = str(programs / folder_name())
    environ.setdefault(THRESHOLD_VARIABLE, THRESHOLD_SECONDS)


def folder_name() -> str:
    """Name where programs can run: architecture, a digest of the processor, and usable cores."""
    this = processor()
    described = "\n".join((platform.processor(), this.name, *sorted(this.abilities)))
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    return f"{platform.machine() or 'processor'}-{digest}-{usable_cores()}-cores"


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
