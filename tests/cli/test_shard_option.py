"""`--shard`: the same verdicts and losses from networks that are spread over devices."""

import json

import pytest

from tests.cli.programs import inside, mulo

FOUR = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    "JAX_PLATFORMS": "cpu",
}


@pytest.mark.parametrize("command", ["evaluate", "coord-check"])
def test_one_device_alone_is_nothing_to_spread_over(tmp_path, command):
    done = inside(command, "--shard", "--optimizer", "adamw", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is one alone" in done.stderr


def told(folder, *arguments):
    folder.mkdir()
    done = mulo(*arguments, "--format", "jsonl", cwd=folder, **FOUR)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_coordinate_check_of_spread_networks_comes_to_the_same_verdict(tmp_path):
    arguments = (
        "coord-check", "--optimizer", "muadam:learning_rate=0.1", "--optimizer", "mulo-m-desk",
        "--widths", "64..256", "--depth", "2", "--dataset", "digits", "--steps", "4",
    )  # fmt: skip
    code, alone = told(tmp_path / "one", *arguments)
    spread_code, together = told(tmp_path / "four", *arguments, "--shard")
    assert code == spread_code
    of_kind = [
        [record for record in records if record["kind"].startswith("coordinate-")]
        for records in (alone, together)
    ]
    slopes = 0
    for one, other in zip(*of_kind, strict=True):
        assert one.get("verdict") == other.get("verdict")
        if one.get("slope") is not None:
            slopes += 1
            # powers of the width, of numbers that differ by rounding
            assert other["slope"] == pytest.approx(one["slope"], abs=1e-3)
    assert slopes > 20


@pytest.mark.slow
def test_an_evaluation_of_spread_networks_tells_the_same_losses(tmp_path):
    arguments = (
        "evaluate", "--optimizer", "mulo-m-desk", "--widths", "64", "--steps", "20",
        "--window", "5", "--seeds", "2",
    )  # fmt: skip
    (_, alone), (_, together) = (
        told(tmp_path / "one", *arguments),
        told(tmp_path / "four", *arguments, "--shard"),
    )
    assert len(alone) == len(together) == 2
    for one, other in zip(alone, together, strict=True):
        assert other["curve"] == pytest.approx(one["curve"], abs=1e-5)
        assert other["optimizer_state_bytes"] == one["optimizer_state_bytes"]
