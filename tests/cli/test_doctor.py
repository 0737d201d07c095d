"""`mulo doctor`: what is well and what is not, and never a crash of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mulo_cli.assembly import doctor
from mulo_cli.cli.outcome import ExitCode
from mulo_cli.errors import DataError
from tests.cli.programs import inside


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict]:
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the doctor look at these things alone: the others take their time."""
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in names})


def test_a_sound_machine_has_no_problem_and_each_check_is_told_once(tmp_path):
    done = inside("doctor", cwd=tmp_path)
    found = findings(done)
    assert done.returncode == ExitCode.DONE
    assert list(found) == list(doctor.CHECKS)
    assert {line["kind"] for line in found.values()} == {"check"}
    assert all(bool(line["hint"]) == (line["state"] != "ok") for line in found.values())
    assert found["data sets"]["facts"]["there"][0] == "digits"
    assert found["compiled programs"]["facts"]["folder"] == os.environ["JAX_COMPILATION_CACHE_DIR"]
    assert list(tmp_path.iterdir()) == []


def test_people_get_a_table_and_how_many_problems_there_are(tmp_path, monkeypatch):
    only(monkeypatch, "mulo", "cores")
    done = inside("doctor", cwd=tmp_path, watched=True)
    assert done.stdout.splitlines()[0].split() == ["check", "state", "found"]
    assert done.stdout.splitlines()[-1] == "no problems, no warnings"


def broken_engine(_name):
    raise ImportError("no module named jax")


def broken_data(_name):
    raise DataError("a data set is broken", "mend it")


def test_a_check_that_raises_is_a_problem_and_the_others_are_done_all_the_same(
    tmp_path, monkeypatch
):
    checks = {"engine": broken_engine, "data": broken_data, "mulo": doctor.CHECKS["mulo"]}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    done = inside("doctor", cwd=tmp_path)
    found = findings(done)
    assert done.returncode == ExitCode.FAILED
    assert [line["state"] for line in found.values()] == ["problem", "problem", "ok"]
    assert found["engine"]["value"] == "ImportError: no module named jax"
    assert "pip install" in found["engine"]["hint"]
    assert (found["data"]["value"], found["data"]["hint"]) == ("a data set is broken", "mend it")
    assert "2 problems, no warnings" in done.stderr


def test_a_device_that_adds_wrongly_is_a_problem(tmp_path, monkeypatch):
    only(monkeypatch, "computing")
    monkeypatch.setattr(doctor, "_compiled_sum", lambda: lambda numbers: numbers.max())
    done = inside("doctor", cwd=tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert "trust no result" in findings(done)["computing"]["hint"]


def test_an_environment_that_makes_no_place_is_a_problem_and_a_place_is_told(tmp_path, monkeypatch):
    only(monkeypatch, "processes")
    told = inside("doctor", cwd=tmp_path, SLURM_PROCID="2", SLURM_STEP_NUM_TASKS="4")
    assert findings(told)["processes"]["value"] == "process 2 of 4 (told by Slurm)"
    odd = inside("doctor", cwd=tmp_path, SLURM_PROCID="second", SLURM_STEP_NUM_TASKS="4")
    assert odd.returncode == ExitCode.FAILED
    assert "SLURM_PROCID" in findings(odd)["processes"]["value"]


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    only(monkeypatch, "output")

    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refused)
    done = inside("doctor", cwd=tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert "permissions" in findings(done)["output"]["hint"]


@pytest.mark.parametrize(
    "make", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "dead link"]
)
def test_something_else_where_runs_go_is_a_problem(tmp_path, monkeypatch, make):
    only(monkeypatch, "output")
    make(tmp_path / "runs")
    done = inside("doctor", cwd=tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert "is no folder" in findings(done)["output"]["value"]
    assert "--out" in findings(done)["output"]["hint"]


def test_a_library_that_is_missing_is_a_problem(tmp_path, monkeypatch):
    only(monkeypatch, "libraries")
    monkeypatch.setattr(doctor, "PACKAGES", ("jax", "no-such-package"))
    done = inside("doctor", cwd=tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert "pip install no-such-package" in findings(done)["libraries"]["hint"]


def test_the_doctor_can_be_called_where_jax_cannot_be_imported(tmp_path):
    """A null in `sys.modules` is how Python spells that a module cannot be imported."""
    script = (
        "import sys\nsys.modules['jax'] = None\nsys.argv = ['mulo', 'doctor']\n"
        "from mulo_cli.cli.app import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == ExitCode.FAILED
    found = findings(done)
    assert list(found) == list(doctor.CHECKS)
    assert found["libraries"]["state"] == "problem"
    assert found["cores"]["state"] == "ok"
