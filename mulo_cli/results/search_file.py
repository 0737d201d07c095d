"""How many networks a search trains side by side: kept, because another number rounds differently.

`search.json` lies beside the rows. A search that goes on after an interruption, with less memory
free than before, thus ends in the same bits.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from mulo_cli.errors import DataError
from mulo_cli.results.records import to_plain
from mulo_cli.results.store import replace_text
from mulo_cli.results.turns import in_turn

Facts = Mapping[str, str | int]
"""What a program is compiled for, in words and numbers."""


@dataclass(frozen=True)
class ProgramLanes:
    """One program of a search: what for, and how many lanes it has."""

    of: Facts
    lanes: int


@dataclass(frozen=True)
class _Content:
    programs: tuple[ProgramLanes, ...]
    kind: Literal["search"] = "search"


class SearchFile:
    """Remembers the lanes of every program of a search.

    Args:
        path: of the file; it need not be there.

    Raises:
        DataError: it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._programs = _read(path)

    def find(self, facts: Facts) -> int | None:
        """Return the lanes of a program, None if it was never compiled."""
        return next((one.lanes for one in self._programs if one.of == facts), None)

    def keep(self, facts: Facts, lanes: int, *, insisted: bool = True) -> int:
        """Remember the lanes of a program, on disk before this returns.

        Processes that share a search write one after the other, and none forgets another's lines.

        Args:
            facts: what the program is compiled for.
            lanes: how many it has.
            insisted: whether they take the place of those that are there by now.

        Returns:
            The lanes that are remembered.

        Raises:
            DataError: the file holds something else by now.
            OutputError: it cannot be written.
        """
        with in_turn(self.path):
            self._programs = _read(self.path)
            found = self.find(facts)
            if found is not None and (found == lanes or not insisted):
                return found
            self._programs = [one for one in self._programs if one.of != facts]
            self._programs.append(ProgramLanes(facts, lanes))
            content = to_plain(_Content(tuple(self._programs)))
            replace_text(self.path, json.dumps(content, indent=2) + "\n")
        return lanes


def _read(path: Path) -> list[ProgramLanes]:
    """Return what a file holds; nothing if it is not there."""
    try:
        content = TypeAdapter(_Content).validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"cannot read {str(path)!r}: {error.strerror}", "choose another --out"
        ) from error
    except ValidationError as error:
        raise DataError(
            f"{str(path)!r} does not tell how a search was made",
            "delete it (rows stay; new ones may differ from them in the last digits), or "
            "choose another --out",
        ) from error
    return list(content.programs)
