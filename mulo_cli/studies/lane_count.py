"""How many lanes: as many as memory has room for, by the compiled program's own account."""

from collections.abc import Callable

import jax

from mulo_cli.errors import MuloError
from mulo_cli.studies.seats import SeatPrograms

MOST_ON_CPU = 64
"""More lanes do not make better use of a few cores."""

MOST_ELSEWHERE = 512
"""Of an accelerator: small networks fill it only in hundreds."""

SHARE = 0.5
"""Of the free memory: somebody else may want some, and a compiler's account is not all."""

UNKNOWN = 2 * 2**30
"""Bytes, where nobody tells how much memory is free."""


def memory_budget(free: int | None) -> int:
    """Return the bytes that lanes may take.

    Args:
        free: bytes of the device's memory; None where nobody tells.
    """
    return UNKNOWN if free is None else int(SHARE * free)


def even_lanes(trials: int, most: int) -> int:
    """Return a number of lanes that fills every wave as well as the last.

    It depends on the whole grid and not on what is left of it, because a vmap over another number
    of lanes rounds differently.
    """
    most = max(1, min(most, trials))
    waves = -(-trials // most)
    return -(-trials // waves)


def most_lanes() -> int:
    """Return how many lanes are of use on this device."""
    return MOST_ON_CPU if jax.default_backend() == "cpu" else MOST_ELSEWHERE


def fitting_programs(
    compile_lanes: Callable[[int], SeatPrograms],
    trials: int,
    lane_bytes: int,
    budget: int,
    most: int,
) -> SeatPrograms:
    """Compile as many lanes as the budget has room for.

    The first guess comes from shapes; what the compiled program says of itself decides: if it is
    too large, half as many lanes are compiled, and so on.

    Args:
        compile_lanes: compiles that many.
        trials: of the whole search.
        lane_bytes: estimate of one lane.
        budget: bytes for all.
        most: lanes, however small.

    Raises:
        MuloError: one lane is too large.
    """
    lanes = even_lanes(trials, min(most, budget // max(1, lane_bytes)))
    while True:
        programs = compile_lanes(lanes)
        if programs.memory <= budget:
            return programs
        if lanes == 1:
            raise MuloError(
                f"one network in training takes {_gigabytes(programs.memory)}, and there are "
                f"{_gigabytes(budget)} for it (half of what is free)",
                "train a smaller network or smaller batches; or set --lanes 1 to try all the same",
            )
        lanes = even_lanes(trials, lanes // 2)


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
