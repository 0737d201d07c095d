"""Named arrays out of what a foreign file declares: bounded, of plain number types, never guessed.

Every reader of this room turns its container into nested mappings of arrays made here.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from mulo_cli import errors

DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
"""Types of numbers that are read; whether theta can be made of them is asked later."""

MOST_NODES = 10_000
"""Leaves and branches of a tree, or instructions of a pickle; Google's VeLO has about 50."""

DEEPEST = 32
"""Levels of a tree, or axes of an array."""

MOST_ELEMENTS = 2**40
"""Along one axis."""

LONGEST_NAME = 200
"""Characters of a leaf's name."""

WRAPPER = "~"
"""What Haiku calls a module without a name: a level that says nothing."""


class Malformed(Exception):
    """A file is not what it claims to be; the text completes 'FILE cannot be read: ...'."""


class Refused(Malformed):
    """A file asks for more than data."""


def make_array(
    shape: object, dtype: object, content: object, *, fortran: bool = False
) -> np.ndarray:
    """Return an array of declared shape and type over the bytes that are really there.

    Args:
        shape: axes, as declared.
        dtype: NumPy's name of the type, as declared; may begin with `<` or `>`.
        content: its bytes.
        fortran: whether the first axis varies fastest.

    Raises:
        Malformed: shape and bytes disagree, or it is not an array of plain numbers.
    """
    if not isinstance(content, bytes | bytearray):
        raise Malformed(f"an array's content is a {type(content).__name__}, not bytes")
    if not isinstance(dtype, str) or dtype.lstrip("<>") not in DTYPES:
        raise Malformed(f"an array has type {printable(str(dtype))!r}, which is not read")
    if not isinstance(shape, list | tuple) or len(shape) > DEEPEST or not all(map(_is_size, shape)):
        raise Malformed("an array's shape is not a list of sizes")
    plain = np.dtype(dtype.lstrip("<>")).newbyteorder(">" if dtype.startswith(">") else "<")
    declared = math.prod(shape) * plain.itemsize
    if declared != len(content):
        raise Malformed(
            f"an array declares {declared} bytes (shape {tuple(shape)}, {plain.name}) and has "
            f"{len(content)}"
        )
    flat = np.frombuffer(bytes(content), plain).astype(plain.newbyteorder("="))
    try:
        return flat.reshape(tuple(shape), order="F" if fortran else "C")
    except ValueError as error:  # no numbers along one axis, absurdly many along others
        raise Malformed("an array's shape is absurd") from error


def flatten(tree: object, largest: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return a tree's arrays by name, and everything else that it holds.

    Names are paths like `nn/w0`; levels called `~` are left out and a slash in a name is a level.

    Args:
        tree: nested mappings and sequences; may share branches, or hold itself.
        largest: bytes of all arrays together.

    Raises:
        Malformed: too deep or too large, names that are not text, or the same name twice.
    """
    arrays: dict[str, np.ndarray] = {}
    notes: dict[str, str] = {}
    size = 0
    for name, leaf in _walk(tree):
        if name in arrays or name in notes:
            raise Malformed(f"the name {name!r} occurs twice")
        if isinstance(leaf, np.ndarray):
            arrays[name] = leaf
            size += leaf.nbytes
        else:
            notes[name] = note(leaf)
        if size > largest:
            raise Malformed(f"its arrays have more than {largest // 2**20} MiB")
    return arrays, notes


def note(value: object) -> str:
    """Return something that is not an array as it is shown."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise Malformed("it holds an absurdly large number")
    if value is None or isinstance(value, str | int | float):
        return printable(str(value))
    return f"({type(value).__name__})"


def printable(text: str) -> str:
    """Return foreign text such that no terminal obeys it, and cut where it gets tiring."""
    shown = errors.printable(text)
    return shown if len(shown) <= LONGEST_NAME else shown[:LONGEST_NAME] + "..."


def _walk(tree: object) -> Iterator[tuple[str, object]]:
    """Yield every leaf with its name."""
    waiting: list[tuple[tuple[str, ...], int, object]] = [((), 0, tree)]
    for count, (path, depth, node) in enumerate(_pop(waiting)):
        if count > MOST_NODES or depth > DEEPEST:
            raise Malformed(f"it holds more than {MOST_NODES} things or {DEEPEST} levels")
        children = _children(node)
        if children is None:
            yield "/".join(path), node
        else:
            waiting += [
                ((*path, *_levels(name)), depth + 1, child) for name, child in children[::-1]
            ]


def _pop(waiting: list) -> Iterator:
    while waiting:
        yield waiting.pop()


def _children(node: object) -> list[tuple[object, object]] | None:
    """Return what a branch holds; None for a leaf."""
    if not isinstance(node, Mapping | list | tuple):
        return None
    if len(node) > MOST_NODES:
        raise Malformed(f"it holds more than {MOST_NODES} things")
    if isinstance(node, Mapping):
        return list(node.items())
    return [(str(index), child) for index, child in enumerate(node)]


def _levels(name: object) -> list[str]:
    if not isinstance(name, str):
        raise Malformed(f"a name is a {type(name).__name__}, not text")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise Malformed(f"a name is no name: {printable(name)!r}")
    return [level for level in name.split("/") if level not in ("", WRAPPER)]


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < MOST_ELEMENTS
