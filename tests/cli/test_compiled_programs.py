"""Compiled programs are kept among the user's caches, unless that cannot be or is not wanted."""

import os
import warnings

import pytest

from mulo_cli.cli import app, compiled_programs, render
from mulo_cli.cli.compiled_programs import FOLDER_VARIABLE, folder_name, keep_compiled_programs
from mulo_cli.machine import Processor


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_programs, "user_caches", lambda: tmp_path)
    return tmp_path


def test_programs_are_kept_by_machine_and_nothing_is_written_before_there_are_any(caches):
    environ = {}
    keep_compiled_programs(environ)
    assert environ[FOLDER_VARIABLE] == str(caches / "mulo" / "programs" / folder_name())
    assert not any(caches.iterdir())


def test_each_command_keeps_its_programs(caches, monkeypatch):
    seen = {}
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(app, "silence_libraries", lambda: None)
    monkeypatch.setattr(app, "run", lambda terminal: seen.update(os.environ) or 0)
    with pytest.raises(SystemExit):
        app.main()
    assert seen[FOLDER_VARIABLE].startswith(str(caches))


def test_another_number_of_cores_or_another_processor_has_another_folder(monkeypatch):
    monkeypatch.setattr(compiled_programs, "usable_cores", lambda: 2)
    two = folder_name()
    assert two.endswith("-2-cores")
    monkeypatch.setattr(compiled_programs, "usable_cores", lambda: 12)
    assert folder_name() == two.replace("-2-cores", "-12-cores")
    names = set()
    for processor in (("one", {"avx"}), ("other", {"avx"}), ("one", {"avx", "avx2"})):
        monkeypatch.setattr(
            compiled_programs, "processor", lambda p=processor: Processor(p[0], frozenset(p[1]))
        )
        names.add(folder_name())
    assert len(names) == 3


@pytest.mark.parametrize("chosen", ["/elsewhere", ""])
def test_what_the_user_has_set_wins(caches, chosen):
    environ = {FOLDER_VARIABLE: chosen}
    keep_compiled_programs(environ)
    assert environ == {FOLDER_VARIABLE: chosen}


def test_without_a_folder_that_can_be_made_there_is_no_cache(caches):
    (caches / "mulo").write_text("a file where the folder should be")
    environ = {}
    keep_compiled_programs(environ)
    assert environ == {}


def test_the_programs_that_were_not_used_for_longest_are_forgotten(caches, monkeypatch):
    monkeypatch.setattr(compiled_programs, "MAX_BYTES", 25)
    folder = caches / "mulo" / "programs" / "some-processor"
    folder.mkdir(parents=True)
    for age, name in enumerate(["new", "middle", "old"]):
        (folder / name).write_bytes(b"0123456789")
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    keep_compiled_programs({})
    assert {path.name for path in folder.iterdir()} == {"new", "middle"}


def test_a_folder_that_others_tidy_at_the_same_time_is_used_all_the_same(caches, monkeypatch):
    def vanished(folder, most):
        raise FileNotFoundError(folder)

    monkeypatch.setattr(compiled_programs, "_forget_oldest", vanished)
    environ = {}
    keep_compiled_programs(environ)
    assert environ[FOLDER_VARIABLE].startswith(str(caches))


@pytest.mark.parametrize("variable", ["", "1"])
def test_of_a_damaged_program_only_those_who_look_for_errors_are_told(monkeypatch, variable):
    monkeypatch.setenv(render.DEBUG_VARIABLE, variable)
    for hook in ("sys.excepthook", "sys.unraisablehook", "threading.excepthook"):
        monkeypatch.setattr(hook, None)
    monkeypatch.setattr("logging.disable", lambda level: None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        render.silence_libraries()
        warnings.warn("Error reading persistent compilation cache entry for 'x'", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert len(told) == 1 + bool(variable)
