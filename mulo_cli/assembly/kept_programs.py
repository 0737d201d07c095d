"""Whether a traced program may be used again: only if nothing has changed that it was made of."""

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp

from mulo_cli.assembly.environment import current_environment
from mulo_cli.meta_training.kept_programs import KeptPrograms
from mulo_cli.meta_training.training import MetaTraining
from mulo_cli.recipes.schema import Recipe, digest
from mulo_cli.tasks.base import Task

TRACED_THROUGH = (
    "mulo_cli", "jax", "jaxlib", "optax", "flax", "numpy", "jaxtyping", "opt_einsum", "ml_dtypes",
)  # fmt: skip
"""Packages whose code decides what is traced."""

FOLDER = "traced"
"""Where traced programs are, in jax's folder for compiled ones."""


def kept_programs(recipe: Recipe, training: MetaTraining) -> KeptPrograms | None:
    """Return the place for the traced programs of one meta-training.

    They depend on the recipe, on how batches are made (statistics of the data are constants of
    programs), on code, of us and of the packages that take part, and on jax and its settings.

    Args:
        recipe: of the meta-training.
        training: built from it.

    Returns:
        None if jax keeps no programs in a folder of this machine, if batches are made by Python
        (of data that stay in their file), or if the code cannot be read.
    """
    settings = jax.config.values
    folder = settings["jax_compilation_cache_dir"]
    if not folder or "://" in folder or not settings["jax_enable_compilation_cache"]:
        return None
    batches = _how_batches_are_made(training.tasks[0])  # in all tasks alike
    if "callback" in batches:
        return None
    try:
        code = {package: _state_of_code(package) for package in TRACED_THROUGH}
    except OSError:
        return None
    told = {
        "recipe": digest(recipe),
        "batches": batches,
        "environment": current_environment(),
        "settings": sorted((name, repr(value)) for name, value in settings.items()),
        "code": code,
    }
    identity = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return KeptPrograms(Path(folder) / FOLDER, identity)


def _how_batches_are_made(task: Task) -> str:
    """Return the program of a batch, with all its constants, as text."""
    arguments = jax.eval_shape(lambda: (task.data, jax.random.key(0), jnp.int32(0)))
    return jax.jit(task.batch).lower(*arguments).as_text()


def _state_of_code(package: str) -> str:
    """Return a digest of where, how large and how old a package's files are; 1 000 take 20 ms."""
    spec = importlib.util.find_spec(package)
    origin = spec.origin if spec else None
    assert origin is not None  # it has been imported
    digest = hashlib.sha256()
    for folder, inner, names in os.walk(Path(origin).parent):
        inner[:] = sorted(set(inner) - {"__pycache__"})
        for name in sorted(names):
            path = os.path.join(folder, name)
            stat = os.lstat(path)  # an editor's lock is a link to nowhere
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
