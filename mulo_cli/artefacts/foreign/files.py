"""A foreign file of weights: which container it is, told by its first bytes, and what is in it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mulo_cli.artefacts.foreign.arrays import Malformed, Refused, flatten, printable
from mulo_cli.artefacts.foreign.msgpack_file import read_msgpack
from mulo_cli.artefacts.foreign.pickle_file import read_pickle
from mulo_cli.artefacts.foreign.pylo import from_pylo, is_pylo, read_note
from mulo_cli.artefacts.foreign.safetensors_file import looks_like_safetensors, read_safetensors
from mulo_cli.errors import ArtefactError

LARGEST = 512 * 2**20
"""Bytes of a file; Google's VeLO has about 9 MB."""

Container = Literal["flax msgpack", "VeLO container", "pickle", "safetensors", "PyLO safetensors"]

NOT_UNPACKED = {
    b"PK\x03\x04": "a zip archive (NumPy .npz, PyTorch .pt)",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"7z\xbc\xaf": "a 7-zip archive",
    b"\x93NUMPY": "a NumPy .npy file",
    b"\x89HDF": "an HDF5 file",
}
"""Recognised, and refused as they are: nothing is ever unpacked."""

TAR_MARK = slice(257, 262)

MSGPACK_MAPS = (*range(0x81, 0x90), 0xDE, 0xDF)
"""First bytes of a mapping that is not empty."""

PICKLE_PROTOCOL = 0x80
OLD_PICKLES = b"(}]c"
"""First bytes of a pickle: its protocol is announced, or is 0 or 1 and begins with one of these."""

VELO_CONTAINER = {"params", "gen_id", "step"}
"""Google's released VeLO: theta under `params`."""

READ = "flax msgpack (theta.state), VeLO's params, muLO's pickles, PyLO's safetensors, artefacts"


@dataclass(frozen=True)
class ForeignFile:
    """What a file holds.

    Attributes:
        name: of the file, without its folder.
        container: what kind of file it is.
        sha256: of its bytes.
        size: in bytes.
        arrays: by name, `nn/w0`; PyLO's under our names.
        notes: everything else in it, as text.
        own: what a file written by `mulo weights export` says about itself.
    """

    name: str
    container: Container
    sha256: str
    size: int
    arrays: Mapping[str, np.ndarray]
    notes: Mapping[str, str]
    own: Mapping[str, Any] | None = None


def read_foreign(path: Path) -> ForeignFile:
    """Read a file of weights without executing, unpacking or believing anything.

    Raises:
        ArtefactError: it is missing, too large, damaged, hostile, or none of the known containers.
    """
    content = _content(path)
    name = printable(path.name)
    try:
        container, arrays, notes, own = _parse(content)
    except Refused as error:
        raise ArtefactError(
            f"{name!r} is refused: {error}, and only arrays and mappings are read; nothing was "
            "executed",
            "do not load this file with anything else either, unless you trust who made it",
        ) from error
    except Malformed as error:
        raise ArtefactError(
            f"{name!r} cannot be read: {error}", "get the file again, from where it was published"
        ) from error
    return ForeignFile(
        name, container, hashlib.sha256(content).hexdigest(), len(content), arrays, notes, own
    )


def _content(path: Path) -> bytes:
    """Return the bytes of an ordinary file of bearable size."""
    if path.exists() and not path.is_file():
        raise ArtefactError(f"{str(path)!r} is not a file", f"what is read: {READ}")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ArtefactError(
            f"cannot read {str(path)!r}: {error.strerror}", f"what is read: {READ}"
        ) from error
    if len(content) > LARGEST:
        raise ArtefactError(
            f"{str(path)!r} has more than {LARGEST // 2**20} MiB",
            "no learned optimizer is that large; is it a network?",
        )
    return content


def _parse(
    content: bytes,
) -> tuple[Container, dict[str, np.ndarray], dict[str, str], dict[str, Any] | None]:
    """Return container, arrays, notes, and what we wrote about ourselves."""
    if looks_like_safetensors(content):
        return _parse_safetensors(content)
    for mark, what in NOT_UNPACKED.items():
        if content.startswith(mark):
            raise Refused(f"it is {what}, which is not unpacked")
    if content[TAR_MARK] == b"ustar":
        raise Refused("it is a tar archive, which is not unpacked")
    first = content[0] if content else 0
    if first in MSGPACK_MAPS:
        return _parse_msgpack(content)
    if first == PICKLE_PROTOCOL or first in OLD_PICKLES:
        return "pickle", *flatten(read_pickle(content), LARGEST), None
    raise Malformed(f"it is none of the files that are read ({READ})" if content else "it is empty")


def _parse_msgpack(content: bytes) -> tuple[Container, dict, dict, None]:
    tree = read_msgpack(content)
    if isinstance(tree, dict) and "params" in tree and tree.keys() <= VELO_CONTAINER:
        arrays, notes = flatten(tree["params"], LARGEST)
        around = flatten({k: v for k, v in tree.items() if k != "params"}, LARGEST)
        told = {k: str(v) for k, v in around[0].items() if v.ndim == 0} | around[1]
        return "VeLO container", arrays, notes | told, None
    return "flax msgpack", *flatten(tree, LARGEST), None


def _parse_safetensors(content: bytes) -> tuple[Container, dict, dict, dict | None]:
    tensors, metadata = read_safetensors(content)
    arrays, _ = flatten(tensors, LARGEST)
    notes = {printable(k): printable(v) for k, v in metadata.items()}
    if is_pylo(arrays):
        return "PyLO safetensors", from_pylo(arrays), notes, read_note(metadata)
    return "safetensors", arrays, notes, None
