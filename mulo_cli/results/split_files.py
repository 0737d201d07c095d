"""One output of several processes: each has a file of its own, whose name tells its place.

`rows.jsonl` of four processes is `rows.0-of-4.jsonl` to `rows.3-of-4.jsonl`: no two of them write
one file, and what is known is what is in any of them, however many processes there were before.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mulo_cli.processes import Place

PLACE = re.compile(r"\.(\d+)-of-(\d+)")
"""Between the name of an output and its ending, the file of one of its processes."""


def own_file(path: Path, place: "Place") -> Path:
    """Return the file of one process; whoever is alone writes the output itself.

    Args:
        path: of the output.
        place: of the process.
    """
    if place.count == 1:
        return path
    return path.with_name(f"{path.stem}.{place.index}-of-{place.count}{path.suffix}")


def files_of(path: Path) -> list[Path]:
    """Return the files of an output that are there: itself first, then those of processes.

    Those of one number of processes follow each other, in their order.
    """
    try:
        beside = {entry: told for entry in path.parent.iterdir() if (told := _place(entry, path))}
    except OSError:  # nobody can look into the folder; the file itself may be readable
        beside = {}
    here = [path] if os.path.exists(path) else []  # of no name, however odd, an error
    return [*here, *sorted(beside, key=lambda entry: beside[entry])]


def other_files(path: Path, place: "Place") -> list[Path]:
    """Return the files of an output that are there, but that of one process."""
    own = own_file(path, place)
    return [file for file in files_of(path) if file != own]


def earlier_files(path: Path, place: "Place") -> list[Path]:
    """Return the files of an output that a process finds there from an earlier start.

    Those of its fellows, whose number of processes is the same, may have been begun just now.
    """
    own = own_file(path, place)
    return [
        file
        for file in files_of(path)
        if file == own or (_place(file, path) or (1, 0))[0] != place.count
    ]


def rival_files(path: Path, place: "Place", locked: Iterable[str]) -> list[Path]:
    """Return the files of an output that commands with another number of processes write.

    Processes of one number share the work. One of another number would do the same work again.

    Args:
        path: of the output.
        place: of the process whose rivals they are.
        locked: names of files in the output's folder that somebody may be about to begin.
    """
    own = own_file(path, place)
    begun = [name for name in locked if (_named(name, path) or (place.count, 0))[0] != place.count]
    named = [path, *earlier_files(path, place), *map(path.with_name, begun)]
    return [file for file in dict.fromkeys(named) if file != own]


def _place(entry: Path, path: Path) -> tuple[int, int] | None:
    """Return number of processes and process of a file, None where it is not one of an output."""
    told = _named(entry.name, path)
    return told if told is not None and entry.is_file() else None


def _named(name: str, path: Path) -> tuple[int, int] | None:
    """Return number of processes and process that a name tells, None if it is another output's."""
    middle = name.removeprefix(path.stem).removesuffix(path.suffix)
    found = PLACE.fullmatch(middle)
    if found is None or name != f"{path.stem}{middle}{path.suffix}":
        return None
    index, count = int(found[1]), int(found[2])
    return (count, index) if index < count else None
