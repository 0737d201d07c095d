"""What every stored tree of arrays needs: a checksum, a place to be restored to, a short error."""

import hashlib
import os
import re

import jax
import numpy as np
from jaxtyping import PyTree

from mulo_cli.mup.roles import leaf_name


def tree_checksum(tree: PyTree) -> str:
    """Return the SHA-256 (hex) over names, types, shapes and bytes of all leaves."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(jax.device_get(tree)):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{leaf_name(path)} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def named_leaves(tree: PyTree) -> dict[str, np.ndarray]:
    """Return the leaves of a tree on the host, by name."""
    leaves = jax.tree.leaves_with_path(jax.device_get(tree))
    return {leaf_name(path): np.asarray(leaf) for path, leaf in leaves}


def on_first_device(abstract: PyTree) -> PyTree:
    """Return the same shapes and types, to be restored to the default device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )


def reason(error: Exception) -> str:
    """Return why a read or a write failed, in one line: Orbax and TensorStore are verbose."""
    system_error = re.search(r"os_error_code='(\d+)'", str(error))
    if system_error:
        return os.strerror(int(system_error[1]))
    return (str(error).strip() or type(error).__name__).splitlines()[0]
