"""Compiled programs are kept among the user's caches, unless that cannot be or is not wanted."""

import os

import pytest

from mulo_cli.cli import compiled_programs
from mulo_cli.cli.compiled_programs import FOLDER_VARIABLE, keep_compiled_programs, processor


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_programs, "user_caches", lambda: tmp_path)
    return tmp_path


def test_programs_are_kept_by_processor_and_nothing_is_written_before_there_are_any(caches):
    environ = {}
    keep_compiled_programs(environ)
    assert environ[FOLDER_VARIABLE] == str(caches / "mulo" / "programs" / processor())
    assert not any(caches.iterdir())


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
