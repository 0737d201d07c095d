"""A traced program is used again only if nothing has changed that it was made of."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from mulo_cli.assembly import kept_programs as module
from mulo_cli.assembly.kept_programs import kept_programs
from mulo_cli.assembly.meta_training import build_meta_training
from mulo_cli.recipes.loading import load_recipe


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("multi-width", None, None, ["task.widths=[8]"])


@pytest.fixture(scope="module")
def training(recipe):
    return build_meta_training(recipe, with_data=True)


def identity(recipe, training) -> str:
    kept = kept_programs(recipe, training)
    assert kept is not None
    return kept.identity


def test_the_same_has_the_same_identity(recipe, training):
    assert identity(recipe, training) == identity(recipe, build_meta_training(recipe))


def test_another_recipe_has_another_identity(recipe, training):
    other = dataclasses.replace(recipe, seed=recipe.seed + 1)
    assert identity(other, training) != identity(recipe, training)


def normalised_by(mean: float, training):
    """Return the meta-training with other statistics of the same data."""
    task = training.tasks[0]
    constants = np.full((64,), mean, np.float32)

    def batch(data, key, step):
        made = task.batch(data, key, step)
        return made._replace(inputs=made.inputs - constants.reshape(made.inputs.shape[1:]))

    return dataclasses.replace(training, tasks=(task._replace(batch=batch),))


def test_other_statistics_of_the_same_data_make_another_identity(recipe, training):
    first, again, other = (normalised_by(mean, training) for mean in (0.1, 0.1, 0.2))
    assert identity(recipe, first) == identity(recipe, again)
    assert identity(recipe, first) != identity(recipe, other)


def test_batches_that_python_makes_are_not_kept(recipe, training):
    task = training.tasks[0]

    def batch(data, key, step):
        jax.debug.callback(lambda: None)
        return task.batch(data, key, step)

    calling = dataclasses.replace(training, tasks=(task._replace(batch=batch),))
    assert kept_programs(recipe, calling) is None


@pytest.mark.parametrize("name", ["_state_of_code", "current_environment"])
def test_other_code_and_another_machine_make_another_identity(recipe, training, monkeypatch, name):
    before = identity(recipe, training)
    monkeypatch.setattr(module, name, lambda *of: "another")
    assert identity(recipe, training) != before


def test_code_that_cannot_be_read_is_not_trusted(recipe, training, monkeypatch):
    def refuse(package):
        raise PermissionError(package)

    monkeypatch.setattr(module, "_state_of_code", refuse)
    assert kept_programs(recipe, training) is None


def test_another_setting_of_jax_makes_another_identity(recipe, training):
    with jax.default_matmul_precision("bfloat16"):
        other = identity(recipe, training)
    assert other != identity(recipe, training)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return the folder of a package of two files, and one that an editor links to nowhere."""
    folder = tmp_path / "somebody"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "part.py").write_text("x = 1")
    (folder / ".#part.py").symlink_to("somebody@host.1234")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_file_that_was_saved_again_makes_other_code(package):
    before = module._state_of_code("somebody")
    assert module._state_of_code("somebody") == before
    os.utime(package / "part.py", (1, 1))
    assert module._state_of_code("somebody") != before


def test_compiled_python_is_not_code(package):
    before = module._state_of_code("somebody")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "part.cpython-311.pyc.1234").write_bytes(b"")
    assert module._state_of_code("somebody") == before


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_enable_compilation_cache", False), ("jax_compilation_cache_dir", "gs://bucket/folder")],
)
def test_nothing_is_kept_where_jax_keeps_nothing_on_this_machine(recipe, training, setting, value):
    before = jax.config.values[setting]
    jax.config.update(setting, value)
    try:
        assert kept_programs(recipe, training) is None
    finally:
        jax.config.update(setting, before)
