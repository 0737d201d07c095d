"""Flax's msgpack: `theta.state` of learned_optimization and Celo, Google's released VeLO.

Arrays are extensions of type 1, (shape, dtype, bytes) packed once more; `flax.serialization`.
"""

from typing import Any

import msgpack

from mulo_cli.artefacts.foreign.arrays import MOST_NODES, Malformed, make_array

ARRAY, SCALAR = 1, 3
"""Flax's codes of the extensions that are read."""


def read_msgpack(content: bytes) -> object:
    """Return the tree of a file.

    Raises:
        Malformed: cut off, going on after its end, or holding something that is not data of flax.
    """
    budget = _Budget()
    try:
        return msgpack.unpackb(
            content,
            ext_hook=_extension,
            object_pairs_hook=budget.mapping,
            list_hook=budget.sequence,
            max_array_len=MOST_NODES,
            max_map_len=MOST_NODES,
        )
    except Malformed:
        raise
    except msgpack.ExtraData as error:
        raise Malformed("it goes on after its end") from error
    except Exception as error:  # a hostile file reaches every corner of the parser
        raise Malformed(f"it is cut off or damaged ({_reason(error)})") from error


class _Budget:
    """Counts what is unpacked, so that a small file cannot become a large tree."""

    def __init__(self) -> None:
        self._left = MOST_NODES

    def mapping(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._spend(len(pairs))
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Malformed("a name occurs twice in one level")
        return found

    def sequence(self, items: list[Any]) -> list[Any]:
        self._spend(len(items))
        return items

    def _spend(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise Malformed(f"it holds more than {MOST_NODES} things")


def _extension(code: int, content: bytes) -> object:
    if code not in (ARRAY, SCALAR):
        raise Malformed(f"it holds an extension of type {code}, which is not read")
    declared = msgpack.unpackb(content, raw=False, max_array_len=MOST_NODES)
    if not isinstance(declared, list) or len(declared) != len(("shape", "dtype", "bytes")):
        raise Malformed("an array is not (shape, type, bytes)")
    return make_array(*declared)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:80]
