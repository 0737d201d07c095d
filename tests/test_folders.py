"""Caches go where the system has them, and never below wherever a command was started."""

import sys
from pathlib import Path

import pytest

from mulo_cli.folders import user_caches


@pytest.mark.parametrize("said", [None, "", "caches", "./caches", "~/caches"])
def test_on_linux_a_relative_folder_for_caches_is_ignored(monkeypatch, tmp_path, said):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if said is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", said)
    assert user_caches() == tmp_path / ".cache"


def test_on_linux_an_absolute_folder_for_caches_is_obeyed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert user_caches() == tmp_path / "caches"
