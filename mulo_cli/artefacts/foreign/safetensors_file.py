"""Safetensors: eight bytes of length, a JSON header, the numbers; its own library does the work."""

import json
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from mulo_cli.artefacts.foreign.arrays import Malformed, make_array, printable

LENGTH = 8
"""Bytes of the number that says how long the header is."""

LONGEST_HEADER = 2**20
"""Bytes; a small_fc_lopt has about 500."""

DTYPES = {
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BOOL": "bool",
    **{f"{sign}{bits}": f"{name}{bits}" for sign, name in (("I", "int"), ("U", "uint"))
       for bits in (8, 16, 32, 64)},
}  # fmt: skip


def looks_like_safetensors(content: bytes) -> bool:
    """Say whether a file begins like one: a length of at most 4 GiB, then an opening brace."""
    return len(content) > LENGTH and content[4:LENGTH] == b"\0" * 4 and content[8:9] == b"{"


def read_safetensors(content: bytes) -> tuple[dict[str, object], dict[str, str]]:
    """Return tensors by name, and the metadata.

    Raises:
        Malformed: cut off, overlapping, padded, or of a type that is not read.
    """
    length = int.from_bytes(content[:LENGTH], "little")
    if length > LONGEST_HEADER:
        raise Malformed(f"its header declares {length} bytes")
    try:
        tensors = safetensors.deserialize(content)
        metadata = json.loads(content[LENGTH : LENGTH + length]).get("__metadata__") or {}
    except Exception as error:  # the library's, JSON's, and those of absurd numbers
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Malformed(f"it is cut off or damaged ({printable(text)[:80]})") from error
    arrays: dict[str, object] = {}
    for name, found in tensors:
        dtype = DTYPES.get(found["dtype"], found["dtype"])
        arrays[name] = make_array(list(found["shape"]), dtype, bytes(found["data"]))
    return arrays, metadata


def to_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a file; the same arrays and metadata give the same bytes.

    The library writes metadata in an order that changes from call to call, so that the header is
    written again, sorted; offsets in it count from its end.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = safetensors.numpy.save(contiguous, metadata=dict(metadata))
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    header = json.dumps(json.loads(content[LENGTH:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % LENGTH)
    return len(header).to_bytes(LENGTH, "little") + header + content[end:]
