"""The bits of theta do not depend on where pairs are unrolled: devices, processes, or both."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.programs import TINY, environment, free_port

ROOT = Path(__file__).parents[2]
TIMEOUT = 300
SCRIPT = ("-m", "tests.meta_training.one_layout")
ALL = "1000"


class Told(NamedTuple):
    """What a process printed."""

    devices: int
    steps: int
    checksum: str
    best: float


QUICK = "--xla_backend_optimization_level=1"
"""Compiles a quarter faster; the slow tests compile as users do."""

SLOW = pytest.mark.slow
"""Two devices and two processes are part of the run that goes on elsewhere."""


def begin(*command: str, devices: int = 1, flags: str = "") -> subprocess.Popen[str]:
    given = os.environ.get("XLA_FLAGS", "")
    flags = f"{given} {flags} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(XLA_FLAGS=flags, JAX_PLATFORMS="cpu"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends_well(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Return the last line of each; none outlives the test."""
    try:
        told = [process.communicate(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, stderr) in zip(processes, told, strict=True):
        assert process.returncode == 0, stderr
    return [(out.splitlines() or [""])[-1] for out, _ in told]


def train(
    folder: Path, *, devices: int = 1, processes: int = 1, most: str = ALL, flags: str = QUICK
) -> Told:
    """Train on a layout; all processes must say the same."""
    crew = ("localhost:" + str(free_port()), str(processes))
    lines = ends_well(
        [
            begin(
                *SCRIPT, str(folder), most, *((*crew, str(i)) if processes > 1 else ()),
                devices=devices, flags=flags,
            )
            for i in range(processes)
        ]
    )  # fmt: skip
    (line,) = set(lines)
    words = line.split()
    return Told(int(words[0]), int(words[1]), words[2], float(words[3]))


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory) -> Told:
    told = train(tmp_path_factory.mktemp("one"))
    assert (told.devices, told.steps) == (1, 20)
    return told


@pytest.mark.parametrize("devices", [pytest.param(2, marks=SLOW), 8])
def test_devices_change_no_bit(tmp_path, on_one_device, devices):
    told = train(tmp_path, devices=devices)
    assert told.devices > devices // 2, "nearly all of them had something to do"
    assert told[1:] == on_one_device[1:]


@pytest.mark.parametrize("processes", [pytest.param(2, marks=SLOW), 4])
def test_processes_change_no_bit(tmp_path, on_one_device, processes):
    told = train(tmp_path, processes=processes)
    assert told.devices == processes
    assert told[1:] == on_one_device[1:]


def test_a_run_goes_on_on_another_layout_to_the_same_bits(tmp_path, on_one_device):
    assert train(tmp_path, devices=2, most="7").steps == 7
    assert train(tmp_path, processes=2, most="6").steps == 13
    assert train(tmp_path)[1:] == on_one_device[1:]


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "processes"), [(3, 1), (4, 1), (2, 2), (2, 4), (16, 1)])
def test_more_devices_and_processes_with_several_devices_change_no_bit(
    tmp_path, devices, processes
):
    alone = train(tmp_path / "alone", flags="")
    told = train(tmp_path / "many", devices=devices, processes=processes, flags="")
    assert told.devices > devices * processes // 2
    assert told[1:] == alone[1:]


def command(folder: Path, *more: str) -> tuple[str, ...]:
    apart = ("--set", "estimator.pairs_per_block=1")
    return ("-m", "mulo_cli", "meta-train", *TINY, *apart, "--out", str(folder), *more)


TWO_WIDTHS = ("--set", "task.widths=[8,16]")


def checksums(folder: Path) -> tuple[str, str]:
    card = json.loads((folder / "artefact" / "card.json").read_text())
    return card["checksum"], card["last_checksum"]


@pytest.mark.slow
def test_mulo_meta_train_itself_gives_the_same_bits_on_every_layout(tmp_path):
    for devices in (1, 2, 4):
        alone = command(tmp_path / f"devices-{devices}", *TWO_WIDTHS)
        ends_well([begin(*alone, devices=devices)])
    for count in (2, 4):
        crew = ("--coordinator", f"localhost:{free_port()}", "--num-processes", str(count))
        folder = tmp_path / f"processes-{count}"
        started = [
            begin(*command(folder, *TWO_WIDTHS, *crew, "--process-id", str(i)))
            for i in range(count)
        ]
        ends_well(started)
    assert len({checksums(folder) for folder in tmp_path.iterdir()}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_dies_the_others_end_and_the_run_goes_on_to_the_same_bits(tmp_path, victim):
    """What the others say is held by the tests of crews; here, that nothing is lost."""
    steps = ("--set", "meta_optimizer.steps=60", "--set", "checkpoint.every=10")

    def crew(folder: Path) -> list[subprocess.Popen[str]]:
        meet = ("--coordinator", f"localhost:{free_port()}", "--num-processes", "2")
        return [
            begin(*command(folder, *steps, *meet, "--process-id", str(i)), flags=QUICK)
            for i in range(2)
        ]

    ends_well(crew(tmp_path / "whole"))
    broken = crew(tmp_path / "broken")
    end = time.monotonic() + TIMEOUT
    while not (tmp_path / "broken" / "checkpoints" / "10").exists():
        assert time.monotonic() < end
        time.sleep(0.001)
    broken[victim].kill()
    other = broken[1 - victim]
    try:
        assert other.wait(timeout=60) == 1
    finally:
        other.kill()
    assert not (tmp_path / "broken" / "artefact").exists(), "it was killed on its way"
    ends_well(crew(tmp_path / "broken"))
    assert checksums(tmp_path / "broken") == checksums(tmp_path / "whole")
