"""How many lanes a program has, how many programs run: as measured best, as memory has room."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, runtime_checkable

import jax

from mulo_cli.errors import MuloError
from mulo_cli.inner_training.state import InnerState
from mulo_cli.inner_training.traced import size_in_bytes
from mulo_cli.machine import usable_cores
from mulo_cli.types import Data

MOST_ON_CPU = 16
"""Measured (three-layer MLPs of width 64, batch 64, two cores with 1 MB of cache each, a program on
each; microseconds per step and lane): 8 lanes 20.9, 16 lanes 19.6, 32 lanes 19.8, 64 lanes 24.4.
Fewer leave less of a wave empty; `docs/reference/performance.md` tells more."""

MOST_ELSEWHERE = 512
"""Of an accelerator: small networks fill it only in hundreds."""

SHARE = 0.5
"""Of the free memory: somebody else may want some, and a compiler's account is not all."""

UNKNOWN = 2 * 2**30
"""Bytes, where nobody tells how much memory is free."""

PROGRAM_BYTES = 2 * 2**30
"""Of one program that trains seeds side by side, as long as it has more than one.

What it is does not depend on the machine, because the last digits depend on the number of lanes.
"""


@runtime_checkable
class Compiled(Protocol):
    """Programs of some lanes."""

    @property
    def memory(self) -> int:
        """Bytes that the lanes take."""
        ...


Programs = TypeVar("Programs", bound=Compiled)


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


def most_lanes(trials: int) -> int:
    """Return how many lanes are of use for so many trials on this device.

    On a CPU there are always two waves, so that two cores have something to do; not as many as
    this machine has cores: the last digits would depend on it.
    """
    if jax.default_backend() != "cpu":
        return MOST_ELSEWHERE
    return min(MOST_ON_CPU, -(-trials // 2))


def waves_at_once(memory: int, budget: int) -> int:
    """Return how many waves train at once: one per core of a CPU if they fit; elsewhere one.

    Args:
        memory: bytes of one.
        budget: bytes for all.
    """
    if jax.default_backend() != "cpu":
        return 1
    return max(1, min(usable_cores(), budget // max(1, memory)))


def largest_programs(
    compile_lanes: Callable[[int], Programs],
    trials: int,
    lane_bytes: int,
    budget: int,
    most: int,
) -> Programs:
    """Compile as many lanes as the budget has room for, but at least one.

    The first guess comes from shapes; what the compiled program says of itself decides: if it is
    too large, half as many lanes are compiled, and so on.

    Args:
        compile_lanes: compiles that many.
        trials: that take turns in them.
        lane_bytes: estimate of one lane.
        budget: bytes for all.
        most: lanes, however small.
    """
    lanes = even_lanes(trials, min(most, budget // max(1, lane_bytes)))
    while (programs := compile_lanes(lanes)).memory > budget and lanes > 1:
        lanes = even_lanes(trials, lanes // 2)
    return programs


def fitting_programs(
    compile_lanes: Callable[[int], Programs],
    trials: int,
    lane_bytes: int,
    budget: int,
    most: int,
) -> Programs:
    """Compile as many lanes as the budget has room for, as `largest_programs` does.

    Raises:
        MuloError: one lane is too large.
    """
    programs = largest_programs(compile_lanes, trials, lane_bytes, budget, most)
    if programs.memory > budget:
        raise MuloError(
            f"one network in training takes {_gigabytes(programs.memory)}, and there are "
            f"{_gigabytes(budget)} for it (half of what is free)",
            "train a smaller network or smaller batches; or set --lanes 1 to try all the same",
        )
    return programs


def bytes_beside_data(programs: Iterable[Callable], state: InnerState, data: Data) -> int:
    """Return the bytes that lanes take in the hungriest of some programs, their data not counted.

    Args:
        programs: that train them.
        state: of all lanes; twice as much is the least, and stands where no compiler tells.
        data: shared, and counted elsewhere.
    """
    told = max(map(compiled_bytes, programs)) - size_in_bytes(data)
    return max(told, 2 * size_in_bytes(state))


def compiled_bytes(compiled: Callable) -> int:
    """Return the memory that a compiled program takes, arguments and results included."""
    assert isinstance(compiled, jax.stages.Compiled)
    told = compiled.memory_analysis()
    if told is None:  # a device that does not tell
        return 0
    return (
        told.argument_size_in_bytes
        + told.output_size_in_bytes
        + told.temp_size_in_bytes
        - told.alias_size_in_bytes
    )


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
