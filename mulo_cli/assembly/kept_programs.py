"""Whether a traced program may be used again: only if nothing has changed that it was made of."""

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import jax
import numpy as np

from mulo_cli.assembly.environment import current_environment
from mulo_cli.meta_training.kept_programs import KeptPrograms
from mulo_cli.meta_training.meta_loop import MetaTraining
from mulo_cli.recipes.schema import Recipe, digest
from mulo_cli.types import Data

TRACED_THROUGH = ("mulo_cli", "jax", "jaxlib", "optax", "flax", "numpy", "jaxtyping")
"""Packages whose code decides what is traced."""

MOST_DATA_BYTES = 2**28
"""Digesting more would take as long as tracing."""


FOLDER = "traced"
"""Where traced programs are, in jax's folder for compiled ones."""


def kept_programs(recipe: Recipe, training: MetaTraining) -> KeptPrograms | None:
    """Return the place for the traced programs of one meta-training.

    They depend on the recipe, on the data (means and deviations are constants of a program), on
    code, of us and of the packages that take part, and on jax and its settings.

    Args:
        recipe: of the meta-training.
        training: built from it.

    Returns:
        None if jax keeps no programs in a folder of this machine, or the data are too large.
    """
    settings = jax.config.values
    folder = settings["jax_compilation_cache_dir"]
    if not folder or "://" in folder or not settings["jax_enable_compilation_cache"]:
        return None
    data = training.tasks[0].data  # of all tasks
    if sum(array.nbytes for array in jax.tree.leaves(data)) > MOST_DATA_BYTES:
        return None
    told = {
        "recipe": digest(recipe),
        "data": _digest_of_data(data),
        "environment": current_environment(),
        "settings": sorted((name, repr(value)) for name, value in settings.items()),
        "code": {package: _state_of_code(package) for package in TRACED_THROUGH},
    }
    identity = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return KeptPrograms(Path(folder) / FOLDER, identity)


def _digest_of_data(data: Data) -> str:
    digest = hashlib.sha256()
    for path, array in jax.tree.leaves_with_path(data):
        stored = np.ascontiguousarray(array)
        digest.update(f"{jax.tree_util.keystr(path)} {stored.dtype} {stored.shape}\n".encode())
        digest.update(stored.data)
    return digest.hexdigest()


def _state_of_code(package: str) -> str:
    """Return a digest of where, how large and how old a package's files are; 1 000 take 20 ms."""
    spec = importlib.util.find_spec(package)
    origin = spec.origin if spec else None
    assert origin is not None  # it has been imported
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(Path(origin).parent)):
        for name in sorted(names):
            if not name.endswith(".pyc"):
                path = os.path.join(folder, name)
                stat = os.stat(path)
                digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
