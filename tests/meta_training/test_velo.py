"""VeLO in the meta-loop, under both parametrizations: it moves, and it can be stopped anywhere."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mulo_cli.assembly.meta_training import build_meta_training
from mulo_cli.meta_training.checkpoints import Checkpoints
from mulo_cli.meta_training.meta_loop import meta_train
from mulo_cli.meta_training.training import MetaTraining
from mulo_cli.recipes.loading import load_recipe
from tests.cli.programs import TINY

SMALL = [setting for setting in TINY if setting != "--set"] + [
    "task.depth=1",
    "optimizer.lstm_size=4",
    "optimizer.bank_size=2",
    "optimizer.step_size=1.0",
]


@pytest.fixture(scope="module", autouse=True)
def optax_schedules_promote():
    """Let optax's schedules divide integers by floats, which strict mode forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(what: MetaTraining, directory: Path, stop_after: int | None = None) -> list:
    records = []
    checkpoints = Checkpoints(directory, keep=2)
    for record in meta_train(
        what, checkpoints, lambda: stop_after is not None and len(records) >= stop_after
    ):
        records.append(record)
    checkpoints.close()
    return records


@pytest.mark.slow  # as every resumption of VeLO; those of small_fc_lopt are checked by default
@pytest.mark.parametrize("parametrization", ["mup", "sp"])
def test_stopping_and_going_on_changes_no_bit(tmp_path, parametrization):
    recipe = load_recipe("velo-multi-width", "desk", parametrization, SMALL)
    what = build_meta_training(recipe)
    whole = run(what, tmp_path / "whole")[-1]
    assert whole.finished
    assert not run(what, tmp_path / "parts", stop_after=7)[-1].finished
    end = run(what, tmp_path / "parts")[-1]
    assert end.finished
    jax.tree.map(np.testing.assert_array_equal, end.theta, whole.theta)
    first_state = end.theta["lstm_init_state"]
    assert all(np.asarray(leaf).any() for leaf in first_state.values()), "it is meta-learned too"
