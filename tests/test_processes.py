"""Which of several processes one is."""

import pytest

from mulo_cli.errors import UsageError
from mulo_cli.processes import ALONE, Place, place_of

SLURM = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}


def test_without_a_word_a_process_is_alone():
    assert place_of(None, None, {}) == ALONE


@pytest.mark.parametrize(
    ("environ", "index", "count", "by"),
    [
        (SLURM, 3, 8, "Slurm"),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 1, 2, "Open MPI"),
        ({"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "a,b,c"}, 0, 3, "Cloud TPU"),
        ({"JOB_COMPLETION_INDEX": "4", "MULO_NUM_PROCESSES": "5"}, 4, 5, "Kubernetes"),
    ],
)
def test_launchers_tell_the_place(environ, index, count, by):
    assert place_of(None, None, environ) == Place(index, count, by)


def test_options_win_over_the_environment():
    assert place_of(1, 2, SLURM) == Place(1, 2)


def test_the_environment_can_be_ignored():
    assert place_of(None, None, SLURM, alone=True) == ALONE


def test_an_allocation_of_one_task_is_no_crowd():
    assert place_of(None, None, {**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) == ALONE
    assert place_of(None, None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == ALONE


@pytest.mark.parametrize(("index", "count"), [(1, None), (None, 2), (2, 2), (-1, 2), (0, 0)])
def test_what_is_no_place_is_refused(index, count):
    with pytest.raises(UsageError):
        place_of(index, count, {})


def test_a_pod_that_is_not_told_of_the_others_does_not_take_itself_for_alone():
    environ = {"JOB_COMPLETION_INDEX": "0"}
    with pytest.raises(UsageError, match="one pod of a job"):
        place_of(None, None, environ)
    assert place_of(None, None, environ, alone=True) == ALONE


@pytest.mark.parametrize(("index", "count"), [(1, 2), (0, 1), (1, None), (None, 2)])
def test_who_is_to_be_alone_is_not_one_of_several(index, count):
    with pytest.raises(UsageError, match="--alone does not go with --process-id"):
        place_of(index, count, {}, alone=True)


@pytest.mark.parametrize("text", ["", "two", "-1", "1e9", "²", "9" * 5_000])
def test_a_variable_that_is_no_number_is_named(text):
    with pytest.raises(UsageError, match="SLURM_PROCID"):
        place_of(None, None, {**SLURM, "SLURM_PROCID": text})
