"""Grids of hyper-parameters: TOML files of lists, some of them in the library.

A grid is the product of its lists; a single number is a list of one. The library's files are named
`OPTIMIZER-GRID.toml`, or `GRID.toml` where one serves all optimizers.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mulo_cli.bounded_files import read_bounded
from mulo_cli.errors import RecipeError, shortened
from mulo_cli.recipes.toml_files import MOST, parse_toml

LIBRARY = Path(__file__).parent / "grids"

SAME_AS = {"paper": "paper-widths", "paper-v2": "paper"}
"""Where an optimizer has no file of a name, the one it has: the paper that is cited for AdamW and
muAdam tuned no others, another one gives their learning rates; version 2 searched AdamW's values
(Table 4) as version 4 did.
"""

MAX_CONFIGURATIONS = 100_000


@dataclass(frozen=True)
class Grid:
    """Values per hyper-parameter, in the order of the file."""

    values: Mapping[str, tuple[float, ...]]

    def configurations(self) -> list[dict[str, float]]:
        """Return every combination; the last hyper-parameter varies fastest."""
        return [
            dict(zip(self.values, chosen, strict=True))
            for chosen in itertools.product(*self.values.values())
        ]

    def on_border(self, configuration: Mapping[str, float]) -> tuple[str, ...]:
        """Name the hyper-parameters that have the lowest or highest of three values or more."""
        return tuple(
            name
            for name, values in self.values.items()
            if len(values) > 2 and configuration[name] in (min(values), max(values))
        )


def load_grid(reference: str, optimizer: str) -> Grid:
    """Read a grid of the library, which may differ by optimizer, or a TOML file.

    Raises:
        RecipeError: unknown, unreadable, or not lists of numbers.
    """
    path = _path(reference, optimizer)
    hint = "a grid is TOML like: learning_rate = [1e-3, 1e-2]"
    try:
        values = parse_toml(read_bounded(path, MOST).decode("utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read grid {reference!r}: {error.strerror}", hint) from error
    except ValueError as error:  # of TOML, of UTF-8, of a file's name
        raise RecipeError(f"grid {reference!r} is not TOML: {error}", hint) from error
    grid = Grid({name: _numbers(name, given, reference) for name, given in values.items()})
    size = math.prod(len(of) for of in grid.values.values())
    if not grid.values or size > MAX_CONFIGURATIONS:
        raise RecipeError(
            f"grid {reference!r} has {size if grid.values else 'no'} configurations",
            f"from 1 to {MAX_CONFIGURATIONS} are possible",
        )
    return grid


def known_grids(optimizer: str) -> tuple[str, ...]:
    """Return the names of the library's grids for an optimizer."""
    stems = {path.stem for path in LIBRARY.glob("*.toml")}
    own = {stem.removeprefix(f"{optimizer}-") for stem in stems if stem.startswith(f"{optimizer}-")}
    shared = {stem for stem in stems if "-" not in stem}
    return tuple(sorted(own | shared | {name for name, same in SAME_AS.items() if same in own}))


def _path(reference: str, optimizer: str) -> Path:
    """Return the file that a user means.

    Raises:
        RecipeError: neither the library's nor a path.
    """
    known = known_grids(optimizer)
    if reference in known:
        names = (f"{optimizer}-{reference}", reference, f"{optimizer}-{SAME_AS.get(reference)}")
        paths = [LIBRARY / f"{name}.toml" for name in names]
        return next(path for path in paths if path.is_file())
    if not reference.endswith(".toml"):
        raise RecipeError(
            f"unknown grid {reference!r}" + (f" for {optimizer}" if optimizer else ""),
            f"known are: {', '.join(known)}, or give the path of a TOML file",
        )
    return Path(reference)


def _numbers(name: str, given: Any, reference: str) -> tuple[float, ...]:
    listed = given if isinstance(given, list) else [given]
    if not listed or not all(_is_number(value) for value in listed):
        raise RecipeError(
            f"grid {reference!r}: {name} = {shortened(given)} is not a list of finite numbers",
            "for example learning_rate = [1e-3, 1e-2]",
        )
    numbers = tuple(float(value) for value in listed)
    if len(set(numbers)) < len(numbers):
        raise RecipeError(
            f"grid {reference!r}: {name} = {shortened(given)} has a value twice", "give it once"
        )
    return numbers


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
