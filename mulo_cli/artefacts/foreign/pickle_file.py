"""Pickles of the muLO code, read without running anything that a pickle asks for.

A pickle is a program. No global that it names is looked up: those on a short list of containers and
arrays (NumPy's, JAX's, Haiku's) are replaced by stand-ins of this file, which make plain dicts
and check every argument; any other is refused and named. Before that the program is read without
being run, which finds cut and padded files and numbers that would exhaust the memory.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mulo_cli.artefacts.foreign.arrays import (
    DEEPEST,
    DTYPES,
    MOST_NODES,
    Malformed,
    Refused,
    make_array,
    printable,
)

FORBIDDEN = ("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER")
"""Instructions that fetch something from outside of the file."""

NAMING = ("GLOBAL", "INST")
"""Instructions that spell the global they ask for."""

STORING = ("PUT", "BINPUT", "LONG_BINPUT")
"""Instructions with a place in memory that Python would make room for."""

ARRAY_STATE = 5
"""Entries of a NumPy array's state: version, shape, dtype, Fortran order, bytes."""


def read_pickle(content: bytes) -> object:
    """Return the tree of a pickle: dicts, lists and arrays.

    Raises:
        Refused: it asks for something beyond arrays and mappings; the message names it.
        Malformed: it is cut off, damaged, or absurd.
    """
    _read_without_running(content)
    try:
        return _plain(_Unpickler(io.BytesIO(content)).load())
    except Malformed:
        raise
    except Exception as error:  # a hostile program fails in every way that there is
        raise Malformed(f"it is cut off or damaged ({type(error).__name__})") from error


def _read_without_running(content: bytes) -> None:
    """Look at every instruction of the program."""
    end = 0
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            end = (position or 0) + 1
            _check_instruction(opcode.name, argument, count)
    except Malformed:
        raise
    except Exception as error:
        raise Malformed(f"it is cut off or damaged ({type(error).__name__})") from error
    if end != len(content):
        raise Malformed("it goes on after its end")


def _check_instruction(name: str, argument: Any, count: int) -> None:
    if count > MOST_NODES:
        raise Malformed(f"it has more than {MOST_NODES} instructions")
    if name in FORBIDDEN:
        raise Refused(f"it asks for something outside of the file (instruction {name})")
    if name in NAMING:
        _allowed(*argument.split(" ", 1))
    if name in STORING and argument > MOST_NODES:
        raise Malformed("it numbers more things than it can hold")


def _allowed(module: str, name: str) -> "_Standin":
    """Return what stands for a global.

    Raises:
        Refused: it is not on the list.
    """
    found = STANDINS.get((module, name))
    if found is None:
        raise Refused(f"it asks for {printable(f'{module}.{name}')}")
    return found


class _Unpickler(pickle.Unpickler):
    """Python's own machine, with no way out."""

    def find_class(self, module: str, name: str) -> Any:
        return _allowed(module, name)

    def persistent_load(self, pid: Any) -> Any:
        del pid
        raise Refused("it asks for something outside of the file")


class _Standin:
    """Stands for a class or a function; a program can call it, and nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> object:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused("it changes a class")


class _Dtype:
    """Stands for a dtype: a letter and a size, then a byte order."""

    __slots__ = ("_name", "_order")

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        del align, copy
        names = {np.dtype(name).str[1:]: name for name in DTYPES}
        if code not in names:
            raise Malformed(f"an array has type {printable(str(code))!r}, which is not read")
        self._name, self._order = names[code], "<"

    def __setstate__(self, state: Any) -> None:
        order, subtype, fields = state[1], state[2], state[3]
        if order not in ("<", ">", "|", "=") or subtype is not None or fields is not None:
            raise Malformed("an array is not of plain numbers")
        self._order = order if order == ">" else "<"

    @property
    def name(self) -> str:
        return self._order + self._name


class _Array:
    """Stands for an array: empty, until it is given its state."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != ARRAY_STATE:
            raise Malformed("an array's state is not one of NumPy's")
        _, shape, dtype, fortran, content = state
        self.array = make_array(shape, _name_of(dtype), content, fortran=fortran is True)


def _name_of(dtype: Any) -> str:
    if not isinstance(dtype, _Dtype):
        raise Malformed("an array's type is not a dtype")
    return dtype.name


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """`numpy._core.multiarray._reconstruct`: an array to be given its state."""
    del shape, code
    if kind is not NDARRAY:
        raise Malformed("an array is of an unknown kind")
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    """`numpy._core.numeric._frombuffer`: what protocol 5 makes of an array."""
    if order not in ("C", "F") or axes is not None:
        raise Malformed("an array has an unknown order of axes")
    return _Array(make_array(shape, _name_of(dtype), content, fortran=order == "F"))


def _scalar(dtype: Any, content: Any) -> _Array:
    """`numpy._core.multiarray.scalar`: a number with a dtype."""
    return _Array(make_array((), _name_of(dtype), content))


def _jax_array(rebuild: Any, arguments: Any, state: Any, abstract: Any) -> _Array:
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
    return dict(content)


def _nothing() -> bytes:
    """`bytes()`: how protocols before 3 spell no bytes."""
    return b""


NDARRAY = _Standin(lambda *_: _Array())
RECONSTRUCT = _Standin(_reconstruct)
FLAT_MAPPING = _Standin(_mapping)

STANDINS: Mapping[tuple[str, str], _Standin] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _Standin(_Dtype),
    **{
        (f"numpy.{core}.{module}", name): standin
        for core in ("core", "_core")
        for module, name, standin in (
            ("multiarray", "_reconstruct", RECONSTRUCT),
            ("multiarray", "scalar", _Standin(_scalar)),
            ("numeric", "_frombuffer", _Standin(_from_buffer)),
        )
    },
    ("jax._src.array", "_reconstruct_array"): _Standin(_jax_array),
    ("jax._src.device_array", "reconstruct_device_array"): _Standin(_jax_array),
    **{
        ("haiku._src.data_structures", name): FLAT_MAPPING
        for name in ("FlatMapping", "FlatMap", "frozendict")
    },
    ("collections", "OrderedDict"): _Standin(_mapping),
    **{
        (module, name): standin
        for module in ("builtins", "__builtin__")
        for name, standin in (("dict", _Standin(_mapping)), ("bytes", _Standin(_nothing)))
    },
    ("_codecs", "encode"): _Standin(_encode),
}
"""Everything that a pickle may ask for, and what it gets instead."""


def _plain(tree: Any) -> Any:
    """Return a tree with arrays in place of what stood for them; branches may be shared."""
    done: dict[int, Any] = {}

    def visit(node: Any, depth: int) -> Any:
        if depth > DEEPEST:
            raise Malformed("it holds itself, or too many levels")
        if isinstance(node, _Array):
            if node.array is None:
                raise Malformed("an array has no content")
            return node.array
        if isinstance(node, _Standin | _Dtype):
            raise Malformed("it holds a class where an array should be")
        if not isinstance(node, dict | list | tuple):
            return node
        if id(node) not in done:
            if isinstance(node, dict):
                done[id(node)] = {key: visit(child, depth + 1) for key, child in node.items()}
            else:
                done[id(node)] = [visit(child, depth + 1) for child in node]
        return done[id(node)]

    return visit(tree, 0)
