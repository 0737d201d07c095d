"""What a result was computed under is told as far as bits depend on it, and nothing private."""

import pytest

from mulo_cli import machine as machine_module
from mulo_cli.results import environment
from mulo_cli.results.environment import (
    describe_environment,
    determinism_hint,
    environment_changes,
    flags_without_paths,
)

CPU = """processor\t: 0
model name\t: Some Processor 9
flags\t\t: fpu sse avx2 fma avx512f rdrand
"""

DRIVER = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build
GCC version:  gcc version 12.3.0
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that makes a machine with these files in place of this one's."""

    def make(cpu: str | None, driver: str | None = None, **variables: str) -> None:
        for owner, name, text in (
            (machine_module, "CPU_INFO", cpu),
            (environment, "DRIVER_INFO", driver),
        ):
            path = tmp_path / name
            if text is not None:
                path.write_text(text)
            monkeypatch.setattr(owner, name, path)
        for variable in ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)

    return make


def test_the_processor_is_told_with_its_vector_instructions_and_the_driver_where_there_is_one(
    machine,
):
    machine(CPU, DRIVER)
    told = describe_environment(["NVIDIA H100"], {"jax_enable_x64": False})
    assert told["cpu"] == "Some Processor 9"
    assert told["vector_instructions"] == "avx2 avx512f fma"
    assert told["nvidia_driver"] == "575.57.08"
    assert told["devices"] == ["NVIDIA H100"]
    assert told["jax_enable_x64"] is False


def test_a_system_that_tells_nothing_is_no_error(machine):
    machine(None)
    told = describe_environment(["cpu"])
    assert told["vector_instructions"] == ""
    assert "nvidia_driver" not in told


def test_flags_are_told_in_any_order_and_paths_are_not(machine):
    flags = "--xla_gpu_load_autotune_results_from=/home/ann/tuned.pb --xla_cpu_x=true"
    machine(CPU, XLA_FLAGS=flags, NVIDIA_TF32_OVERRIDE="0")
    told = describe_environment(["cpu"])
    assert told["xla_flags"] == "--xla_cpu_x=true --xla_gpu_load_autotune_results_from=(path)"
    assert told["tf32_override"] == "0"
    assert flags_without_paths(" ".join(reversed(flags.split()))) == told["xla_flags"]


def test_changes_are_of_what_bits_depend_on_and_was_told_then():
    then = {"jax": "1", "cpu_count": 2, "devices": ["cpu"]}
    now = {"jax": "2", "cpu_count": 64, "devices": ["cpu"], "cpu": "told since"}
    assert environment_changes(then, now) == {"jax": "2", "cpu_count": 64}
    then["devices"] = now["devices"] = ["NVIDIA H100"]
    assert environment_changes(then, now) == {"jax": "2"}, "the processor computes nothing"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--a=true --b=1 --a=false", "--a=false --b=1"),
        ("--a=false --a=true --b=1", "--a=true --b=1"),
        ("--a --a=false", "--a=false"),
        ("--a=false --a", "--a"),
        ("", ""),
    ],
)
def test_of_a_flag_that_is_set_twice_the_last_counts(flags, told):
    assert flags_without_paths(flags) == told


@pytest.mark.parametrize("flags", ["/home/ann/flags", "ann.txt", "--dump_to='/home/ann/a b'"])
def test_no_path_is_told_wherever_it_stands_in_the_flags(flags):
    told = flags_without_paths(flags)
    assert "(path)" in told
    assert "ann" not in told


def test_cores_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(environment, "usable_cores", lambda: 1)
    assert describe_environment(["cpu"])["cpu_count"] == 1


@pytest.mark.parametrize(
    ("backend", "flags", "repeats"),
    [
        ("cpu", "", True),
        ("tpu", "", True),
        ("gpu", "", False),
        ("cuda", "--xla_gpu_autotune_level=0", False),
        ("gpu", "--xla_gpu_deterministic_ops", True),
        ("gpu", "--xla_cpu_x=1 --xla_gpu_deterministic_ops=true", True),
        ("rocm", "--xla_gpu_exclude_nondeterministic_ops=True", True),
        ("gpu", "--xla_gpu_deterministic_ops=false", False),
        ("gpu", "--xla_gpu_deterministic_ops=true --xla_gpu_deterministic_ops=false", False),
        ("gpu", "--xla_gpu_deterministic_ops_of_another_name=true", False),
    ],
)
def test_a_gpu_repeats_itself_only_if_it_is_told_to(backend, flags, repeats):
    hint = determinism_hint(backend, flags)
    assert (hint is None) is repeats
    if hint is not None:
        assert hint == "XLA_FLAGS=--xla_gpu_deterministic_ops=true"
        assert determinism_hint(backend, hint.removeprefix("XLA_FLAGS=")) is None
