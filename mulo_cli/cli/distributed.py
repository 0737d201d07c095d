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

from mulo_cli.cli.aborts import abort_ends_by
from mulo_cli.cli.outcome import ExitCode
from mulo_cli.cli.render import file_error, render_crash, render_error
from mulo_cli.cli.terminal import Terminal, flush_stdout
from mulo_cli.errors import MuloError, UsageError, shortened
from mulo_cli.processes import ALONE, Place, place_of

MEETING_SECONDS = 300
"""How long processes wait for each other at the beginning."""

HEARTBEAT_SECONDS = 30
"""Silence after which a process is taken for dead."""

PARTING_SECONDS = 300
"""How long a process that is done waits for the others to be: one may still write the artefact."""

ADDRESS = r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(\d{1,5})"
"""HOST:PORT; an IPv6 host has brackets."""

MOST_PORT = 65_535

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
    _refuse_bad_address(coordinator)
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


def _refuse_bad_address(coordinator: str | None) -> None:
    """Refuse what is no HOST:PORT: jax would wait for it, or end in C++.

    Raises:
        UsageError: always then.
    """
    if coordinator is None:
        return
    found = re.fullmatch(ADDRESS, coordinator, re.ASCII)
    if found is None or not 1 <= int(found[2]) <= MOST_PORT:
        raise UsageError(
            f"--coordinator {shortened(coordinator)} is no HOST:PORT",
            "give an address of process 0, for example first.example:1234",
        )


@contextmanager
def together(terminal: Terminal, crew: Crew) -> Iterator[None]:
    """Work with the other processes for as long as the context lasts; call before jax is used.

    An error in it is told here, and ends the process at once.
    """
    if crew.alone:
        yield
        return
    if_aborted = _not_met(crew, f"they were not found within {MEETING_SECONDS} s")
    with abort_ends_by(lambda: _end_at_once(render_error(terminal, if_aborted))):
        try:
            _meet(crew)
            if_aborted = LOST
            yield
        except KeyboardInterrupt:
            _end_at_once(ExitCode.INTERRUPTED)
        except Exception as error:
            _end_at_once(_render(terminal, error))
        _part()


def _render(terminal: Terminal, error: Exception) -> int:
    """Tell an error of one of several processes; return the exit code."""
    if isinstance(error, MuloError):
        return render_error(terminal, error)
    if _is_from_afar(error):
        return render_error(terminal, LOST)
    if isinstance(error, OSError):
        return render_error(terminal, file_error(error))
    return render_crash(terminal, error)


def refuse_unlike(crew: Crew, digest: str, what: str) -> None:
    """Stop, in all processes alike, where they have not all been told the same.

    Args:
        crew: of this command.
        digest: of what must be equal, in hexadecimal digits.
        what: the name of that, for the error.

    Raises:
        UsageError: a process has another digest.
    """
    if crew.alone:
        return
    from mulo_cli.meta_training.crossing import same_everywhere

    if same_everywhere(digest):
        return
    _part()  # all raise: nobody need take the others' end for an accident
    raise UsageError(
        f"the processes of this run have different {what}",
        "start all of them with the same options and the same versions",
    )


def _meet(crew: Crew) -> None:
    """Join the others; if they are not found in time, jax ends the process by SIGABRT.

    Raises:
        MuloError: nobody tells where they are.
    """
    import jax

    one_device = os.environ.get("CUDA_VISIBLE_DEVICES", "").isdecimal()
    try:
        jax.distributed.initialize(
            coordinator_address=crew.coordinator,
            num_processes=crew.place.count,
            process_id=crew.place.index,
            # a launcher that shows each process one device calls it 0 everywhere; jax asks for the
            # device that has the process' number on its host
            local_device_ids=[0] if one_device else None,
            initialization_timeout=MEETING_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=PARTING_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _not_met(crew, first) from error


def _not_met(crew: Crew, why: str) -> MuloError:
    return MuloError(
        f"process {crew.place.index} of {crew.place.count} cannot join the others: {why}",
        "give --coordinator HOST:PORT, an address of process 0 that all processes can reach, and "
        f"start all of them within {MEETING_SECONDS // 60} minutes",
    )


def _part() -> None:
    """Leave the others in peace; one that has gone already is no error."""
    import jax

    try:
        jax.distributed.shutdown()
    except jax.errors.JaxRuntimeError:
        return


def _is_from_afar(error: Exception) -> bool:
    """Whether an error is that of a connection; jax raises several kinds, by version."""
    kind = isinstance(error, (RuntimeError, ValueError, ConnectionError))
    return kind and re.search(CONNECTION, str(error)) is not None


def _end_at_once(code: int) -> NoReturn:
    """End without waiting for anybody: the others wait for us, or are gone."""
    flush_stdout()
    os._exit(code)
