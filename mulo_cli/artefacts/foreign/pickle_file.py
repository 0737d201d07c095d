"""Pickles of the muLO code, read without running anything that a pickle asks for.

A pickle is a program. No global that it names is looked up: those on a short list of containers and
arrays (NumPy's, JAX's, Haiku's) are replaced by stand-ins of this file, which make plain dicts
and check every argument; any other is refused and named. Before that the program is read without
being run, which finds cut and padded files and numbers that would exhaust the memory. It is run by
Python's machine that is written in Python, because what is written in C would hash any key of a
dict before it asks us: forty tuples, each holding the one before it twice, take for ever.
"""

import functools
import io
import pickle
import pickletools
from collections.abc import Callable, Mapping, Sized
from typing import Any, ClassVar, NamedTuple

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

SETS = ("EMPTY_SET", "ADDITEMS", "FROZENSET")
"""Instructions that hash what they are given, which no tree of arrays has a use for."""

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
        return _plain(_Unpickler(content).load(), len(content))
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
            if opcode.name == "FRAME" and (argument or 0) > len(content) - end:
                raise Malformed("it is cut off")
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
    if name in SETS:
        raise Malformed("it holds a set")
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


class _Unpickler(pickle._Unpickler):
    """Python's own machine, with no way out, and with room for as much as the file can hold.

    A program may make a copy of one thing again and again, thousands of times as large as its file;
    a sound one copies what is in the file once.

    Args:
        content: of the file.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._left = len(content)

    def find_class(self, module: str, name: str) -> Any:
        found = _allowed(module, name)
        if found in COPYING:
            return _Standin(functools.partial(self._copy, found))
        return found

    def _copy(self, standin: "_Standin", *arguments: Any) -> object:
        self._left -= sum(len(one) for one in arguments if isinstance(one, Sized))
        if self._left < 0:
            raise Malformed("it copies one thing again and again")
        return standin(*arguments)

    def persistent_load(self, pid: Any) -> Any:
        del pid
        raise Refused("it asks for something outside of the file")

    def _set_item(self) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        _named(self.stack[-1])[_name(name)] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        _named(self.stack[-1]).update(_pairs(items))

    def _make_dict(self) -> None:
        items = self.pop_mark()
        self.append(_pairs(items))

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _make_dict,
    }
    """Python's instructions; those that hash take names."""


def _named(place: Any) -> dict[str, Any]:
    if not isinstance(place, dict):
        raise Malformed("it names a thing in something that is no mapping")
    return place


def _pairs(items: list[Any]) -> dict[str, Any]:
    return dict(zip(map(_name, items[::2]), items[1::2], strict=True))


def _name(name: Any) -> str:
    """Return what can be hashed at once, and is all that a branch of a tree is called by."""
    if not isinstance(name, str):
        raise Malformed(f"a name is a {type(name).__name__}, not text")
    return name


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


class _Array:
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
    return _Array(_Declared(shape, _name_of(dtype), content, order == "F"))


def _scalar(dtype: Any, content: Any) -> _Array:
    """`numpy._core.multiarray.scalar`: a number with a dtype."""
    return _Array(_Declared((), _name_of(dtype), content))


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
    pairs = content.items() if isinstance(content, dict) else content
    return {_name(name): value for name, value in pairs}


def _nothing() -> bytes:
    """`bytes()`: how protocols before 3 spell no bytes."""
    return b""


NDARRAY = _Standin(lambda *_: _Array())
RECONSTRUCT = _Standin(_reconstruct)
MAPPING = _Standin(_mapping)
ENCODE = _Standin(_encode)

COPYING = (MAPPING, ENCODE)
"""Those that make something of what they are given that is as large."""

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
        ("haiku._src.data_structures", name): MAPPING
        for name in ("FlatMapping", "FlatMap", "frozendict")
    },
    ("collections", "OrderedDict"): MAPPING,
    **{
        (module, name): standin
        for module in ("builtins", "__builtin__")
        for name, standin in (("dict", MAPPING), ("bytes", _Standin(_nothing)))
    },
    ("_codecs", "encode"): ENCODE,
}
"""Everything that a pickle may ask for, and what it gets instead."""


def _plain(tree: Any, most: int) -> Any:
    """Return a tree with arrays in place of what stood for them; branches may be shared.

    Args:
        tree: as the program left it.
        most: bytes of all arrays together.
    """
    done: dict[int, Any] = {}
    left = most

    def made(array: _Array) -> np.ndarray:
        nonlocal left
        if array.declared is None:
            raise Malformed("an array has no content")
        content = array.declared.content
        left -= len(content) if isinstance(content, Sized) else 0
        if left < 0:
            raise Malformed("its arrays have more bytes than the file")
        return array.declared.make()

    def visit(node: Any, depth: int) -> Any:
        if depth > DEEPEST:
            raise Malformed("it holds itself, or too many levels")
        if isinstance(node, _Standin | _Dtype):
            raise Malformed("it holds a class where an array should be")
        if not isinstance(node, _Array | dict | list | tuple):
            return node
        if id(node) not in done:
            if isinstance(node, _Array):
                done[id(node)] = made(node)
            elif isinstance(node, dict):
                done[id(node)] = {key: visit(child, depth + 1) for key, child in node.items()}
            else:
                done[id(node)] = [visit(child, depth + 1) for child in node]
        return done[id(node)]

    return visit(tree, 0)
