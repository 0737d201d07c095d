"""Pickles of the muLO code, read without running anything that a pickle asks for.

A pickle is a program. No global that it names is looked up: those on a short list of containers and
arrays (NumPy's, JAX's, Haiku's) are replaced by stand-ins (`pickle_standins`); any other is refused
and named. Before that the program is read without being run, which finds cut and padded files and
numbers that would exhaust the memory. It is run by Python's machine that is written in Python,
because what is written in C would hash any key of a dict before it asks us: forty tuples, each
holding the one before it twice, take for ever.
"""

import functools
import io
import pickle
import pickletools
from collections.abc import Callable, Sized
from typing import Any, ClassVar

import numpy as np

from mulo_cli.artefacts.foreign.arrays import (
    DEEPEST,
    MOST_NODES,
    Malformed,
    Refused,
    printable,
)
from mulo_cli.artefacts.foreign.pickle_standins import (
    COPYING,
    STANDINS,
    ArrayStandin,
    DtypeStandin,
    Standin,
    text_name,
)

FORBIDDEN = ("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER")
"""Instructions that fetch something from outside of the file."""

SETS = ("EMPTY_SET", "ADDITEMS", "FROZENSET")
"""Instructions that hash what they are given, which no tree of arrays has a use for."""

NAMING = ("GLOBAL", "INST")
"""Instructions that spell the global they ask for."""

STORING = ("PUT", "BINPUT", "LONG_BINPUT")
"""Instructions with a place in memory that Python would make room for."""


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


def _allowed(module: str, name: str) -> "Standin":
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
            return Standin(functools.partial(self._copy, found))
        return found

    def _copy(self, standin: "Standin", *arguments: Any) -> object:
        self._left -= sum(len(one) for one in arguments if isinstance(one, Sized))
        if self._left < 0:
            raise Malformed("it copies one thing again and again")
        return standin(*arguments)

    def persistent_load(self, pid: Any) -> Any:
        del pid
        raise Refused("it asks for something outside of the file")

    def _set_item(self) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        _named(self.stack[-1])[text_name(name)] = value

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
    return dict(zip(map(text_name, items[::2]), items[1::2], strict=True))


def _plain(tree: Any, most: int) -> Any:
    """Return a tree with arrays in place of what stood for them; branches may be shared.

    Args:
        tree: as the program left it.
        most: bytes of all arrays together.
    """
    done: dict[int, Any] = {}
    left = most

    def made(array: ArrayStandin) -> np.ndarray:
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
        if isinstance(node, Standin | DtypeStandin):
            raise Malformed("it holds a class where an array should be")
        if not isinstance(node, ArrayStandin | dict | list | tuple):
            return node
        if id(node) not in done:
            if isinstance(node, ArrayStandin):
                done[id(node)] = made(node)
            elif isinstance(node, dict):
                done[id(node)] = {key: visit(child, depth + 1) for key, child in node.items()}
            else:
                done[id(node)] = [visit(child, depth + 1) for child in node]
        return done[id(node)]

    return visit(tree, 0)
