"""A study of transfer stops trainings as the paper does, and tells what it measured."""

import dataclasses

import jax
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.searches import build_task_for, build_transfer_trials, build_trials
from mulo_cli.recipes.grids import Grid
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.records import EvaluationRow
from mulo_cli.results.transfer_records import TransferRow, transfer_hash
from mulo_cli.studies.evaluate import EvaluationConfig, evaluate
from mulo_cli.studies.seats import Ended, Measured
from mulo_cli.studies.transfer import (
    TransferConfig,
    compile_transfer,
    measure_transfer,
    stops_early,
    summarise,
    transfer_identity,
)

CONFIG = TransferConfig(steps=60, validate_every=10, validation_batches=2, patience=20, window=10)
RATES = Grid({"learning_rate": (1e-3, 1e-2, 1e9)})
LANES = 3
"""Six trials: lanes are refilled."""


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def task():
    (trial,) = build_transfer_trials("adamw", "none", Grid({"learning_rate": (0.1,)}), 1)
    section = TaskSection("digits", "mlp", [8], 2, 16)
    return build_task_for(trial.optimizer, section, build_dataset("digits"))


@pytest.fixture(scope="module")
def trials():
    return build_transfer_trials("adamw", "none", RATES, 2)


@pytest.fixture(scope="module")
def programs(task, trials):
    return compile_transfer(task, trials, CONFIG, LANES)


def rows_of(task, trials, programs, config=CONFIG) -> dict:
    records = measure_transfer(task, trials, config, programs, "0")
    rows = [record for record in records if isinstance(record, TransferRow)]
    return {
        (row.learning_rate, row.seed): dataclasses.replace(row, seconds_per_step=0.0)
        for row in rows
    }


@pytest.fixture(scope="module")
def rows(task, trials, programs):
    return rows_of(task, trials, programs)


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([3.0], False),
        ([3.0, 2.0, 1.0, 0.5], False),  # still falling
        ([3.0, 2.0, 2.5], False),  # ten steps without a lower one
        ([3.0, 2.0, 2.5, 2.4], True),  # twenty
        ([3.0, 2.0, 2.0, 2.0], True),  # an equal one is no improvement
        ([3.0, 2.0, 2.5, 1.9], False),  # just in time
        ([3.0, np.nan, np.nan], True),
        ([np.nan, np.inf, 3.0], False),
    ],
)
def test_a_training_stops_when_patience_is_over(losses, stops):
    assert stops_early(np.array(losses), every=10, patience=20) is stops


def ended(losses: np.ndarray, validation: list[float], trials) -> Ended:
    segments = [
        Measured(of, np.array(value))
        for of, value in zip(losses.reshape(len(validation), -1), validation, strict=True)
    ]
    return Ended(trials[0], tuple(segments), {}, 0.0)


def test_the_training_loss_is_that_of_the_best_step(trials):
    falling = np.arange(40, 0, -1, dtype=np.float64)
    told = summarise(ended(falling, [3.0, 1.5, 2.0, 2.5], trials), CONFIG)
    assert told["validation_loss"] == 1.5
    assert told["best_step"] == 20
    assert told["training_loss"] == falling[10:20].mean()
    assert told["stopped_at"] == 40
    assert told["status"] == "stopped early"
    assert told["validation"] == (3.0, 1.5, 2.0, 2.5)


@pytest.mark.parametrize("place", ["training", "validation"])
def test_a_training_that_blew_up_has_no_loss_however_good_it_was_before(place, trials):
    losses, validation = np.ones(20), [1.0, 2.0]
    if place == "training":
        losses[-1] = np.inf
    else:
        validation[-1] = np.nan
    told = summarise(ended(losses, validation, trials), CONFIG)
    assert (told["status"], told["validation_loss"]) == ("diverged", None)
    assert told["validation"][0] == 1.0


def test_every_trial_gets_one_row_of_its_own_identity(task, trials, rows):
    expected = {transfer_hash(transfer_identity(task, trial, CONFIG, "0")) for trial in trials}
    assert {transfer_hash(row) for row in rows.values()} == expected
    assert len(rows) == 6
    assert {row.optimizer for row in rows.values()} == {"adamw"}
    assert rows[1e-2, 0].settings["learning_rate"] == 1e-2


def test_a_hopeless_rate_diverges(rows):
    assert {rows[1e9, seed].status for seed in (0, 1)} == {"diverged"}
    assert rows[1e9, 0].stopped_at < CONFIG.steps
    assert rows[1e-3, 0].status == "all steps"
    assert rows[1e-2, 0].best_step <= CONFIG.steps


def test_it_trains_as_evaluate_does(task, rows):
    """The same seeds, data and steps: only what is looked at differs."""
    config = EvaluationConfig(CONFIG.steps, 1, 10, (rows[1e-2, 0].best_step,))
    (trial,) = build_trials("adamw", "none", Grid({"learning_rate": (1e-2,)}), 1)
    (row,) = [
        r for r in evaluate(task, trial.optimizer, config, "0") if isinstance(r, EvaluationRow)
    ]
    assert rows[1e-2, 0].training_loss == pytest.approx(row.final_loss, rel=1e-3)


def test_validation_is_the_same_each_time_and_for_every_seed(task, trials, programs):
    """With a learning rate of zero nothing changes: every validation is equal, and it stops."""
    still = build_transfer_trials("adamw", "none", Grid({"learning_rate": (0.0,)}), 1)
    (row,) = rows_of(task, still, programs).values()
    assert len(set(row.validation)) == 1
    assert row.status == "stopped early"
    assert row.stopped_at == CONFIG.validate_every + CONFIG.patience
    assert row.best_step == CONFIG.validate_every


def test_what_is_left_of_a_study_ends_as_it_would_have(task, trials, programs, rows):
    assert rows_of(task, trials[::-1], programs) == rows
    left = rows_of(task, trials[3:], programs)
    assert left == {place: rows[place] for place in left}
