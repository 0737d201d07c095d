"""Which of several processes this one is: told by whoever started them, or by options.

Slurm, Open MPI, TPU pods and Kubernetes' indexed jobs tell each process its number in variables of
the environment. Read here once, because a meta-training, whose processes work together, and a
study, whose processes do not know of each other, must understand them alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mulo_cli.errors import UsageError, shortened


@dataclass(frozen=True)
class Place:
    """A process among others.

    Attributes:
        index: its number, from 0.
        count: how many there are.
        told_by: whose word this is.
    """

    index: int
    count: int
    told_by: str = "options"

    def __post_init__(self) -> None:
        """Refuse what is no place.

        Raises:
            UsageError: an index outside of the count.
        """
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"process {self.index} is not one of {self.count} ({self.told_by})",
                "processes are numbered from 0",
            )


ALONE = Place(0, 1)

MOST_DIGITS = 9
"""Of a number of processes."""


@dataclass(frozen=True)
class _Launcher:
    """Something that starts processes: its name, and the variables with a process' place."""

    name: str
    index: str
    count: str


KUBERNETES = _Launcher("Kubernetes", "JOB_COMPLETION_INDEX", "MULO_NUM_PROCESSES")
"""It tells no count: the manifest must set `MULO_NUM_PROCESSES`."""

LAUNCHERS = (
    _Launcher("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    _Launcher("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    _Launcher("Cloud TPU", "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"),
    KUBERNETES,
)
"""Slurm tells the tasks of a step: in an allocation without `srun` there is but one process."""


def place_of(
    index: int | None, count: int | None, environ: Mapping[str, str], *, alone: bool = False
) -> Place:
    """Return this process' place: that of the options, else that of the environment.

    Args:
        index: as an option says; None where it says nothing.
        count: likewise.
        environ: variables of the environment.
        alone: whether the environment is to be ignored.

    Raises:
        UsageError: options that do not go together, or numbers that make no place.
    """
    if alone and not (index is None and count is None):
        raise UsageError(
            "--alone does not go with --process-id and --num-processes",
            "leave --alone away, or these",
        )
    if (index is None) != (count is None):
        raise UsageError(
            "--process-id and --num-processes go together", "give both, or none of them"
        )
    if index is not None and count is not None:
        return Place(index, count)
    told = None if alone else place_in_environment(environ)
    return told or ALONE


def place_in_environment(environ: Mapping[str, str]) -> Place | None:
    """Return the place that a launcher tells; None where there is none, or but one process.

    Raises:
        UsageError: the variables hold something that is no place, or half of one.
    """
    if KUBERNETES.index in environ and KUBERNETES.count not in environ:
        raise UsageError(
            f"{KUBERNETES.index} says that this is one pod of a job, and nobody tells of how many",
            f"set {KUBERNETES.count} to the job's completions, or give --alone",
        )
    for launcher in LAUNCHERS:
        if launcher.index in environ and launcher.count in environ:
            count = _count(launcher, environ)
            if count > 1:
                return Place(_number(launcher.index, environ), count, launcher.name)
    return None


def _count(launcher: _Launcher, environ: Mapping[str, str]) -> int:
    """Return how many processes there are; hosts' names, where these are told, are counted."""
    if launcher.count.endswith("HOSTNAMES"):
        return len(environ[launcher.count].split(","))
    return _number(launcher.count, environ)


def _number(variable: str, environ: Mapping[str, str]) -> int:
    text = environ[variable]
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise UsageError(
            f"{variable} is {shortened(text)}, which is not a number of processes",
            "unset it, or give --process-id and --num-processes",
        )
    return int(text)
