"""What a pickle gets instead of the classes and functions that it names.

Each stand-in checks every argument and makes a plain dict, or the description of an array; none of
them runs anything of NumPy's, JAX's or Haiku's.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mulo_cli.artefacts.foreign.arrays import (
    DTYPES,
    MOST_NODES,
    Malformed,
    Refused,
    make_array,
    printable,
)

ARRAY_STATE = 5
"""Entries of a NumPy array's state: version, shape, dtype, Fortran order, bytes."""


def text_name(name: Any) -> str:
    """Return what can be hashed at once, and is all that a branch of a tree is called by.

    Raises:
        Malformed: it is something else than text.
    """
    if not isinstance(name, str):
        raise Malformed(f"a name is a {type(name).__name__}, not text")
    return name


class Standin:
    """Stands for a class or a function; a program can call it, and nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> object:
        """Do what it does in place of what was asked for."""
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused("it changes a class")


class DtypeStandin:
    """Stands for a dtype: a letter and a size, then a byte order."""

    __slots__ = ("_name", "_order")

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        del align, copy
        names = {np.dtype(name).str[1:]: name for name in DTYPES}
        # hashing or showing what is not text may take for ever
        if not isinstance(code, str) or code not in names:
            told = printable(code) if isinstance(code, str) else f"({type(code).__name__})"
            raise Malformed(f"an array has type {told!r}, which is not read")
        self._name, self._order = names[code], "<"

    def __setstate__(self, state: Any) -> None:
        order, subtype, fields = state[1], state[2], state[3]
        if order not in ("<", ">", "|", "=") or subtype is not None or fields is not None:
            raise Malformed("an array is not of plain numbers")
        self._order = order if order == ">" else "<"

    @property
    def name(self) -> str:
        """Byte order and NumPy's name."""
        return self._order + self._name


class _Declared(NamedTuple):
    """What an array is said to be; it is made when all is read, if it is still wanted then."""

    shape: Any
    dtype: str
    content: Any
    fortran: bool = False

    def make(self) -> np.ndarray:
        """Return the array."""
        return make_array(self.shape, self.dtype, self.content, fortran=self.fortran)


class ArrayStandin:
    """Stands for an array: empty, until it is given its state."""

    __slots__ = ("declared",)

    def __init__(self, declared: _Declared | None = None) -> None:
        self.declared = declared

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != ARRAY_STATE:
            raise Malformed("an array's state is not one of NumPy's")
        _, shape, dtype, fortran, content = state
        self.declared = _Declared(shape, _name_of(dtype), content, fortran is True)


def _name_of(dtype: Any) -> str:
    if not isinstance(dtype, DtypeStandin):
        raise Malformed("an array's type is not a dtype")
    return dtype.name


def _reconstruct(kind: Any, shape: Any, code: Any) -> ArrayStandin:
    """`numpy._core.multiarray._reconstruct`: an array to be given its state."""
    del shape, code
    if kind is not NDARRAY:
        raise Malformed("an array is of an unknown kind")
    return ArrayStandin()


def _from_buffer(
    content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> ArrayStandin:
    """`numpy._core.numeric._frombuffer`: what protocol 5 makes of an array."""
    if order not in ("C", "F") or axes is not None:
        raise Malformed("an array has an unknown order of axes")
    return ArrayStandin(_Declared(shape, _name_of(dtype), content, order == "F"))


def _scalar(dtype: Any, content: Any) -> ArrayStandin:
    """`numpy._core.multiarray.scalar`: a number with a dtype."""
    return ArrayStandin(_Declared((), _name_of(dtype), content))


def _jax_array(rebuild: Any, arguments: Any, state: Any, abstract: Any) -> ArrayStandin:
    """`jax._src.array._reconstruct_array`: a NumPy array, and what JAX knows about it besides."""
    del abstract
    if rebuild is not RECONSTRUCT or not isinstance(arguments, tuple):
        raise Malformed("an array of JAX holds something else than an array")
    array = _reconstruct(*arguments)
    array.__setstate__(state)
    return array


def _encode(text: Any, encoding: Any = None) -> bytes:
    """`_codecs.encode`: how protocols before 3 spell bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Malformed("bytes are spelled in an unknown way")
    return text.encode("latin-1")


def _mapping(content: Any = ()) -> dict[Any, Any]:
    """A mapping of any kind becomes a dict."""
    if not isinstance(content, dict | list | tuple) or len(content) > MOST_NODES:
        raise Malformed("a mapping is made of something else")
    pairs = content.items() if isinstance(content, dict) else content
    return {text_name(name): value for name, value in pairs}


def _nothing() -> bytes:
    """`bytes()`: how protocols before 3 spell no bytes."""
    return b""


NDARRAY = Standin(lambda *_: ArrayStandin())
RECONSTRUCT = Standin(_reconstruct)
MAPPING = Standin(_mapping)
ENCODE = Standin(_encode)

COPYING = (MAPPING, ENCODE)
"""Those that make something of what they are given that is as large."""

STANDINS: Mapping[tuple[str, str], Standin] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): Standin(DtypeStandin),
    **{
        (f"numpy.{core}.{module}", name): standin
        for core in ("core", "_core")
        for module, name, standin in (
            ("multiarray", "_reconstruct", RECONSTRUCT),
            ("multiarray", "scalar", Standin(_scalar)),
            ("numeric", "_frombuffer", Standin(_from_buffer)),
        )
    },
    ("jax._src.array", "_reconstruct_array"): Standin(_jax_array),
    ("jax._src.device_array", "reconstruct_device_array"): Standin(_jax_array),
    **{
        ("haiku._src.data_structures", name): MAPPING
        for name in ("FlatMapping", "FlatMap", "frozendict")
    },
    ("collections", "OrderedDict"): MAPPING,
    **{
        (module, name): standin
        for module in ("builtins", "__builtin__")
        for name, standin in (("dict", MAPPING), ("bytes", Standin(_nothing)))
    },
    ("_codecs", "encode"): ENCODE,
}
"""Everything that a pickle may ask for, and what it gets instead."""
