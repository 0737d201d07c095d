"""Several processes that work together: how they find each other, and how they part.

Finding each other is jax's own business (`jax.distributed`): a coordinator's address and a number,
or what Slurm, Open MPI, a TPU pod or Kubernetes tell. Parting is ours: a process that ends before
its time ends at once, so that the others notice, and say so instead of waiting for it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from mulo_cli.cli.outcome import ExitCode
from mulo_cli.cli.render import render_crash, render_error
from mulo_cli.cli.terminal import Terminal, flush_stdout
from mulo_cli.errors import MuloError, UsageError
from mulo_cli.processes import ALONE, Place, place_of

HEARTBEAT_SECONDS = 30
"""Silence after which a process is taken for dead."""

PARTING_SECONDS = 300
"""How long a process that is done waits for the others to be: one may still write the artefact."""

CONNECTION = r"(?i)gloo|nccl|unavailable|deadline|connection|coordination service|socket|peer"
"""What errors of connections speak of."""

LOST = MuloError(
    "another process of this run has ended, or cannot be reached any more",
    "its own messages say why; run the same command again in all processes: it resumes from the "
    "last checkpoint",
)


@dataclass(frozen=True)
class Crew:
    """The processes of one command.

    Attributes:
        place: of this one.
        coordinator: HOST:PORT of process 0; None: jax finds it out.
    """

    place: Place
    coordinator: str | None = None

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        return self.place.count == 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and tells people."""
        return self.place.index == 0


def crew_of(
    index: int | None,
    count: int | None,
    coordinator: str | None,
    environ: Mapping[str, str],
    *,
    distributed: bool,
    alone: bool,
) -> Crew:
    """Return the processes that options and environment tell of.

    Args:
        index: --process-id.
        count: --num-processes.
        coordinator: --coordinator.
        environ: variables of the environment.
        distributed: --distributed: there must be several.
        alone: --alone: there is only this one.

    Raises:
        UsageError: options that do not go together, or nobody tells where the others are.
    """
    if alone and (distributed or coordinator is not None):
        raise UsageError("--alone does not go with --distributed or --coordinator", "give one")
    place = place_of(index, count, environ, alone=alone)
    if distributed and place == ALONE:
        raise UsageError(
            "--distributed, but nobody tells which process this is",
            "start it with srun, mpirun or on a TPU pod, or give --coordinator HOST:PORT, "
            "--num-processes and --process-id",
        )
    if place.count == 1 and coordinator is not None:
        raise UsageError(
            "--coordinator is for several processes", "add --num-processes and --process-id"
        )
    if place.count > 1 and place.told_by == ALONE.told_by and coordinator is None:
        raise UsageError(
            f"{place.count} processes need a place to meet",
            "add --coordinator HOST:PORT, an address of process 0 that all of them can reach",
        )
    return Crew(place, coordinator)


@contextmanager
def together(terminal: Terminal, crew: Crew) -> Iterator[None]:
    """Work with the other processes for as long as the context lasts; call before jax is used.

    An error in it is told here, and ends the process at once.
    """
    if crew.alone:
        yield
        return
    try:
        _meet(crew)
        yield
    except KeyboardInterrupt:
        _end_at_once(ExitCode.INTERRUPTED)
    except MuloError as error:
        _end_at_once(render_error(terminal, error))
    except Exception as error:
        if _is_from_afar(error):
            _end_at_once(render_error(terminal, LOST))
        _end_at_once(render_crash(terminal, error))
    _part()


def _meet(crew: Crew) -> None:
    """Join the others.

    Raises:
        MuloError: they were not found in time.
    """
    import jax

    explicit = {} if crew.coordinator is None else {
        "coordinator_address": crew.coordinator,
        "num_processes": crew.place.count,
        "process_id": crew.place.index,
    }  # fmt: skip
    try:
        jax.distributed.initialize(
            **explicit,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=PARTING_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MuloError(
            f"process {crew.place.index} of {crew.place.count} cannot join the others: {first}",
            "give --coordinator HOST:PORT, an address of process 0 that all processes can reach, "
            "and start all of them within five minutes",
        ) from error


def _part() -> None:
    """Leave the others in peace; one that has gone already is no error."""
    import jax

    try:
        jax.distributed.shutdown()
    except jax.errors.JaxRuntimeError:
        return


def _is_from_afar(error: Exception) -> bool:
    """Whether an error is that of a connection; jax raises several kinds, by version."""
    return re.search(CONNECTION, str(error)) is not None


def _end_at_once(code: int) -> NoReturn:
    """End without waiting for anybody: the others wait for us, or are gone."""
    flush_stdout()
    os._exit(code)
