"""Which processes a command belongs to, as options and the environment tell it."""

import pytest

from mulo_cli.cli.distributed import Crew, crew_of
from mulo_cli.errors import UsageError
from mulo_cli.processes import Place
from tests.cli.programs import inside

SLURM = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}
HERE = "localhost:1234"


def asked(index=None, count=None, coordinator=None, environ=(), distributed=False, alone=False):
    return crew_of(index, count, coordinator, dict(environ), distributed=distributed, alone=alone)


def test_without_a_word_there_is_one_process_and_it_leads():
    assert asked().alone
    assert asked().leads


def test_launchers_are_recognised_and_meet_where_jax_finds_out():
    assert asked(environ=SLURM) == Crew(Place(1, 4, "Slurm"), None)
    assert asked(environ=SLURM, distributed=True) == asked(environ=SLURM)
    assert not asked(environ=SLURM).leads


def test_an_explicit_place_to_meet_goes_with_a_launcher():
    assert asked(environ=SLURM, coordinator=HERE) == Crew(Place(1, 4, "Slurm"), HERE)


@pytest.mark.parametrize("address", ["10.0.0.1:1", "first.example:65535", "[::1]:1234"])
def test_hosts_have_names_or_numbers(address):
    assert asked(index=1, count=2, coordinator=address).coordinator == address


def test_alone_ignores_launchers():
    assert asked(environ=SLURM, alone=True).alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distributed": True}, "nobody tells"),
        ({"coordinator": HERE}, "several processes"),
        ({"index": 0, "count": 2}, "--coordinator|place to meet"),
        ({"index": 0}, "go together"),
        ({"index": 2, "count": 2, "coordinator": HERE}, "not one of"),
        ({"alone": True, "distributed": True}, "does not go"),
        ({"alone": True, "coordinator": HERE}, "does not go"),
        ({"alone": True, "index": 0, "count": 2}, "--alone does not go with --process-id"),
        ({"index": 0, "count": 2, "coordinator": "first"}, "no HOST:PORT"),
        ({"index": 0, "count": 2, "coordinator": "first:0"}, "no HOST:PORT"),
        ({"index": 0, "count": 2, "coordinator": "first:99999"}, "no HOST:PORT"),
        ({"index": 0, "count": 2, "coordinator": "::1:1234"}, "no HOST:PORT"),
        ({"environ": SLURM, "coordinator": "first second:1"}, "no HOST:PORT"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        asked(**options)


def test_a_command_says_so_before_it_touches_anything(tmp_path):
    done = inside("meta-train", "--distributed", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "nobody tells which process this is" in done.stderr
    assert not list(tmp_path.iterdir())
