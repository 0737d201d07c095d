"""The machine is described by what its system tells, whatever that is."""

import os

import pytest

from mulo_cli import machine

INTEL = """processor\t: 0
model name\t: Some Processor 9
flags\t\t: fpu avx2 fma
vmx flags\t: vnmi

processor\t: 1
model name\t: Some Processor 9, the small cores
flags\t\t: fpu
"""

ARM = """processor\t: 0
Features\t: fp asimd sve
CPU part\t: 0xd40
"""


@pytest.mark.parametrize(
    ("told", "name", "abilities"),
    [
        (INTEL, "Some Processor 9", {"fpu", "avx2", "fma"}),
        (ARM, "0xd40", {"fp", "asimd", "sve"}),
        ("", "what Python knows", set()),
        ("flags\t\t:\nmodel name\t:\n", "what Python knows", set()),
        (None, "what Python knows", set()),
    ],
)
def test_a_processor_has_a_name_and_abilities_as_far_as_they_are_told(
    monkeypatch, tmp_path, told, name, abilities
):
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "what Python knows")
    assert machine.processor() == machine.Processor(name, frozenset(abilities))


def test_cores_are_those_that_may_be_used_where_the_system_tells_them(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)
    assert machine.usable_cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine.usable_cores() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1
