"""What is asked of jax about the bits of a run; the GPU is a pretence."""

import json

import jax
import pytest

from mulo_cli.assembly.environment import SETTINGS, current_environment, missing_determinism
from mulo_cli.cli.commands.meta_train import _prepare
from mulo_cli.cli.terminal import Terminal
from mulo_cli.recipes.loading import load_recipe
from mulo_cli.results.run_directory import RunDirectory


class Card:
    """A GPU that can say its name."""

    device_kind = "NVIDIA A6000"


@pytest.fixture
def pretended_gpu(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [Card()])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def test_settings_of_jax_that_change_numbers_are_told(pretended_gpu):
    with jax.default_matmul_precision("tensorfloat32"):
        told = current_environment()
    assert told["devices"] == ["NVIDIA A6000"]
    assert told["jax_default_matmul_precision"] == "tensorfloat32"
    assert told.keys() >= set(SETTINGS)
    assert json.loads(json.dumps(told)) == told


def test_a_run_on_a_gpu_is_warned_once_and_one_that_moves_there_in_one_line(
    tmp_path, capsys, monkeypatch, request
):
    run, recipe = RunDirectory(tmp_path), load_recipe("multi-width")
    _prepare(Terminal(), run, recipe)
    assert "warning" not in capsys.readouterr().err
    request.getfixturevalue("pretended_gpu")
    assert missing_determinism()
    _prepare(Terminal(), run, recipe)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("warning") == 2
    assert "--xla_gpu_deterministic_ops=true" in said
    assert "devices: ['cpu'] -> ['NVIDIA A6000']" in said
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    assert missing_determinism() is None
