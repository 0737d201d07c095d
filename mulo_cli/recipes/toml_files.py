"""TOML files by name or by path: what ships with the package is found by its name.

Recipes and suites are read alike; only what they are called differs.
"""

import os
import re
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from mulo_cli.bounded_files import read_bounded
from mulo_cli.errors import RecipeError, shortened_path
from mulo_cli.recipes.nearest import nearest_hint

SUFFIX = ".toml"

MOST = 2**20
"""Bytes of a file; the longest that ships has some thousand."""

DEEPEST = 32
"""Levels of tables and lists; recipes have three."""

BESIDES_KEYS = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+"{0,5}'
    r"|'''(?:[^']|'(?!''))*+'{0,5}"
    r'|"(?:[^"\\\n]|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+",
    re.DOTALL,
)
"""Strings and comments; one that is not closed is taken to its end, where TOML's reader stops."""

MOST_DOTS = 8
"""Of one key; recipes have four. TOML's reader takes the square of their number in steps."""

DOTTED_KEY = re.compile(rf"(?:\.[^.=,\[\]{{}}\n]*+){{{MOST_DOTS + 1}}}")

LARGEST = 2**63
"""TOML's whole numbers have 64 bits; Python's reader takes any."""


def names_in(library: Traversable) -> list[str]:
    """Return the names of the files that ship in a folder of the package."""
    found = (file.name for file in library.iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))


def read_toml(reference: str, what: str, library: Traversable) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        reference: a name in the library, else a path.
        what: what an error calls it, "recipe" or "suite".
        library: folder of the files that ship.

    Raises:
        RecipeError: there is none, or it is no TOML.
    """
    shown, names = shortened_path(reference), names_in(library)
    if "\0" in reference:
        raise RecipeError(f"{shown} is not a file name", f"give a {what}'s name or file")
    try:
        if reference in names:
            return parse_toml((library / f"{reference}{SUFFIX}").read_text("utf-8"))
        return parse_toml(read_bounded(Path(reference), MOST).decode("utf-8"))
    except UnicodeDecodeError:
        raise RecipeError(f"{what} {shown} is not a text file", "give a TOML file") from None
    except ValueError as error:
        raise RecipeError(
            f"{what} {shown} is not valid TOML: {error}", "mend the file at that place"
        ) from None
    except OSError as error:
        there = os.path.exists(reference) and not os.path.isdir(reference)
        if there or reference.endswith(SUFFIX) or "/" in reference:
            raise RecipeError(
                f"{what} {shown} cannot be read: {error.strerror}",
                f"give a readable TOML file, or one of {', '.join(names)}",
            ) from None
        raise RecipeError(
            f"there is no {what} {shown}",
            nearest_hint(reference, names) + ", or give the path of a TOML file",
        ) from None


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML within bounds that whoever goes through it can rely on.

    Raises:
        ValueError: it is no TOML, is too long, nests too deep, or has a number beyond 64 bits.
    """
    if len(text) > MOST:
        raise ValueError(f"it has more than {MOST // 2**20} MiB")
    if DOTTED_KEY.search(BESIDES_KEYS.sub("", text)):
        raise ValueError(f"it has a key with more than {MOST_DOTS} dots")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"it nests deeper than {DEEPEST} levels") from None
    waiting: list[tuple[int, Any]] = [(0, values)]
    while waiting:
        depth, value = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"it nests deeper than {DEEPEST} levels")
        if isinstance(value, int) and not -LARGEST <= value < LARGEST:
            raise ValueError("it has a whole number of more than 64 bits")
        if isinstance(value, dict):
            waiting += [(depth + 1, one) for one in value.values()]
        elif isinstance(value, list):
            waiting += [(depth + 1, one) for one in value]
    return values
