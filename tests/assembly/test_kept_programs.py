"""A traced program is used again only if nothing has changed that it was made of."""

import dataclasses

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


def test_one_pixel_that_differs_makes_another_identity(recipe, training):
    def changed(array):
        copy = np.array(array)
        copy.flat[0] += 1
        return copy

    task = training.tasks[0]
    other = task._replace(data=jax.tree.map(changed, task.data))
    altered = dataclasses.replace(training, tasks=(other,))
    assert identity(recipe, altered) != identity(recipe, training)


def test_another_setting_of_jax_makes_another_identity(recipe, training):
    with jax.default_matmul_precision("bfloat16"):
        other = identity(recipe, training)
    assert other != identity(recipe, training)


def test_a_file_that_was_saved_again_makes_other_code(tmp_path, monkeypatch):
    package = tmp_path / "somebody"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    before = module._state_of_code("somebody")
    assert module._state_of_code("somebody") == before
    (package / "part.py").write_text("x = 22")
    assert module._state_of_code("somebody") != before


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


def test_of_large_data_nothing_is_kept(recipe, training, monkeypatch):
    monkeypatch.setattr(module, "MOST_DATA_BYTES", 1_000)
    assert kept_programs(recipe, training) is None
