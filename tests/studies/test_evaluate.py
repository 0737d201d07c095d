"""Evaluation rows say what happened in each training: how low it got, or when it diverged."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly import build_dataset, build_evaluation_task
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.store import to_line
from mulo_cli.studies.evaluate import (
    CURVE_POINTS,
    EvaluationConfig,
    NamedOptimizer,
    evaluate,
    summarise_losses,
)

WIDTH, BATCH = 8, 16
RATE = 0.01
CONFIG = EvaluationConfig(steps=50, seeds=3, window=10)
"""One setting for all, so that most tests share one compiled program."""


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def task():
    section = TaskSection("digits", "mlp", [WIDTH], 1, BATCH)
    return build_evaluation_task(section, build_dataset("digits"), WIDTH, "sp")


def adamw(learning_rate: float) -> NamedOptimizer:
    hyper = {**OPTIMIZERS["adamw"].defaults, "learning_rate": learning_rate}
    name = f"adamw:learning_rate={learning_rate}"
    return NamedOptimizer(name, "sp", OPTIMIZERS["adamw"].make, hyper)


def rows_of(task, optimizer, config=CONFIG):
    return list(evaluate(task, optimizer, config, "0.0.0"))


@pytest.fixture(scope="module")
def rows(task):
    return rows_of(task, adamw(RATE))


def without_clock(row):
    return dataclasses.replace(row, seconds_per_step=0.0)


# --- A summary of losses --------------------------------------------------------------------------


def test_the_smoothed_loss_is_the_mean_of_the_last_steps():
    losses = np.arange(10, dtype=np.float32)
    assert summarise_losses(losses, 4)["smoothed_loss"] == 7.5
    assert summarise_losses(losses, 1)["smoothed_loss"] == 9.0
    assert summarise_losses(losses, 10)["smoothed_loss"] == 4.5
    assert summarise_losses(losses, 4)["window"] == 4
    assert (summarise_losses(losses, 4)["status"]) == "ok"
    assert summarise_losses(losses, 4)["diverged_at"] is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [1, 4, 10])
def test_a_run_has_diverged_at_its_first_loss_that_is_not_finite_counted_from_one(value, step):
    losses = np.ones(10, np.float32)
    losses[step - 1] = value
    summary = summarise_losses(losses, 2)
    assert (summary["status"], summary["diverged_at"]) == ("diverged", step)
    assert summary["smoothed_loss"] is None, "whether or not the window is finite"
    losses[step:] = np.nan
    assert summarise_losses(losses, 2)["diverged_at"] == step


@pytest.mark.parametrize("steps", [1, 2, 49, 50, 51, 99, 100, 101, 500, 999, 25_000])
def test_a_curve_has_at_most_fifty_points_and_covers_every_step_once(steps):
    losses = np.random.default_rng(steps).normal(size=steps).astype(np.float32)
    summary = summarise_losses(losses, 1)
    curve, every = summary["curve"], summary["curve_every"]
    assert CURVE_POINTS == 50
    assert 1 <= len(curve) <= CURVE_POINTS
    assert len(curve) == math.ceil(steps / every)
    sizes = np.minimum(every, steps - every * np.arange(len(curve)))
    # tolerance: means of float32 numbers of size one
    assert np.dot(curve, sizes) / steps == pytest.approx(float(losses.mean()), abs=1e-5)
    assert curve[0] == pytest.approx(float(losses[:every].mean()), abs=1e-6)


def test_short_runs_are_stored_step_by_step():
    losses = np.array([3.0, 2.0, 1.0], np.float32)
    assert summarise_losses(losses, 1)["curve"] == (3.0, 2.0, 1.0)


# --- Trainings ------------------------------------------------------------------------------------


def test_there_is_a_row_for_each_seed_that_tells_what_was_trained(rows):
    assert [row.seed for row in rows] == [0, 1, 2]
    for row in rows:
        facts = (row.optimizer, row.parametrization, row.task, row.dataset, row.real)
        assert facts == (f"adamw:learning_rate={RATE}", "sp", "mlp", "digits", True)
        assert (row.width, row.depth, row.batch_size) == (WIDTH, 1, BATCH)
        assert (row.steps, row.window, row.code_version) == (50, 10, "0.0.0")
        assert row.seconds_per_step > 0
        assert row.status == "ok"
        assert json.loads(to_line(row))["kind"] == "evaluation"


def test_training_lowers_the_loss_and_beats_guessing(rows):
    for row in rows:
        assert row.smoothed_loss < row.curve[0] - 0.1
        assert 0.15 < row.test_accuracy <= 1.0


def test_seeds_are_different_trainings(rows):
    assert len({row.smoothed_loss for row in rows}) == len(rows)
    assert len({row.curve[0] for row in rows}) == len(rows)


def test_the_same_seed_gives_the_same_numbers(task, rows):
    again = rows_of(task, adamw(RATE))
    assert [without_clock(row) for row in again] == [without_clock(row) for row in rows]


def test_seeds_do_not_depend_on_how_many_there_are(task, rows):
    fewer = rows_of(task, adamw(RATE), dataclasses.replace(CONFIG, seeds=2))
    for one, other in zip(fewer, rows[:2], strict=True):
        # a vmap over another number of seeds may round differently
        np.testing.assert_allclose(one.curve, other.curve, rtol=1e-3)


def test_the_curve_starts_at_the_loss_of_the_untrained_network(task, rows):
    @jax.jit
    def untrained_loss(key):
        key_init, key_data, _ = jax.random.split(key, 3)
        batch = task.task.batch(task.task.data, key_data, jnp.int32(0))
        return task.task.loss(task.task.init(key_init), batch)[0]

    for row in rows:
        expected = float(untrained_loss(jax.random.key(row.seed)))
        assert row.curve_every == 1
        assert row.curve[0] == pytest.approx(expected, rel=1e-5)  # rounding of two programs


@pytest.mark.parametrize("learning_rate", [1e6, math.inf])
def test_a_hopeless_rate_gives_rows_that_say_so_in_valid_json(task, learning_rate):
    found = rows_of(task, adamw(learning_rate))
    assert len(found) == CONFIG.seeds
    for row in found:
        plain = json.loads(to_line(row), parse_constant=pytest.fail)
        if row.status == "diverged":
            assert plain["smoothed_loss"] is None
            assert 2 <= plain["diverged_at"] <= 50, "the first loss is that of the start"
            assert plain["curve"][plain["diverged_at"] - 1] is None
        else:
            assert learning_rate == 1e6
            assert plain["smoothed_loss"] is None or plain["smoothed_loss"] > 100
        assert plain["curve"][0] < 10
