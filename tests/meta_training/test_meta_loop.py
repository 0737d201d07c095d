"""The meta-loop on the linear world: it learns, it can be stopped anywhere, and it refuses NaN."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.errors import NumericalError
from mulo_cli.gradient_estimators.antithetic import EstimatorConfig
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.meta_training.checkpoints import Checkpoints
from mulo_cli.meta_training.kept_programs import KeptPrograms
from mulo_cli.meta_training.meta_loop import Begun, Ended, meta_train
from mulo_cli.meta_training.meta_optimizer import MetaOptimizerConfig, meta_optimizer
from mulo_cli.meta_training.training import MetaTraining
from mulo_cli.meta_training.validation import ValidationConfig
from mulo_cli.results.records import MetaStepRecord, ValidationRecord
from tests.worlds import linear_optimizer, quadratic_task

STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def optax_schedules_promote():
    """Let optax's schedules divide integers by floats, which strict mode forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def training(steps: int = STEPS, learning_rate: float = 0.05) -> MetaTraining:
    """Return a meta-training whose best theta is the push that keeps x near 0."""
    task, optimizer = quadratic_task(), linear_optimizer(theta=0.3)
    config = EstimatorConfig(16, 8, 0.05, 5, 10, 20)
    return MetaTraining(
        tasks=(task,),
        learned_optimizer=optimizer,
        estimators=(pes(task, optimizer, config),),
        optimizer=meta_optimizer(MetaOptimizerConfig(steps, 2, learning_rate, 0.0, 0.0, 1.0)),
        validation=ValidationConfig(every=4, seeds=1, steps=20, window=5),
        steps=steps,
        seed=7,
        checkpoint_every=3,
        inner_steps=16 * 2 * 5,
    )


def run(
    directory: Path,
    stop_after: int | None = None,
    what: MetaTraining | None = None,
    kept: KeptPrograms | None = None,
) -> list:
    """Return the records of one call; stop when so many have been seen."""
    records = []

    def should_stop() -> bool:
        return stop_after is not None and len(records) >= stop_after

    checkpoints = Checkpoints(directory, keep=2)
    for record in meta_train(what or training(), checkpoints, should_stop, kept):
        records.append(record)  # should_stop looks at the list while it grows
    checkpoints.close()
    return records


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> list:
    return run(tmp_path_factory.mktemp("whole"))


def test_it_begins_steps_validates_and_ends(uninterrupted):
    assert isinstance(uninterrupted[0], Begun)
    assert isinstance(uninterrupted[-1], Ended)
    steps = [r.step for r in uninterrupted if isinstance(r, MetaStepRecord)]
    validations = [r.step for r in uninterrupted if isinstance(r, ValidationRecord)]
    assert steps == list(range(STEPS))
    assert validations == [0, 4, 8, 12]


def test_programs_that_were_kept_lead_to_the_same_bits(uninterrupted, tmp_path):
    kept = KeptPrograms(tmp_path / "traced", "this training")
    for start in ("first", "second"):
        records = run(tmp_path / start, kept=kept)
        assert records[-1].checksum == uninterrupted[-1].checksum
    assert len(list(kept.folder.iterdir())) == 3  # beginning, meta-step, validation


def test_it_learns(tmp_path):
    """From a push of 0.3 the best constant push for x_0 = 2 is found by 60 meta-steps."""
    records = run(tmp_path, what=training(steps=60))
    losses = [r.mean_loss["quadratic"] for r in records if isinstance(r, ValidationRecord)]
    assert losses[-1] < 0.6 * losses[0]
    # x_t = a^t (x_0 - c) + c with c = theta/(1-a): the mean of x_t^2 is least where its slope is 0
    t = np.arange(20)
    decay, fixed = 0.8**t, (1 - 0.8**t) / 0.2
    optimum = -np.sum(2.0 * decay * fixed) / np.sum(fixed**2)
    assert records[-1].theta["push"] == pytest.approx(optimum, abs=0.05)


@pytest.mark.parametrize("stop_after", [1, 2, 5, 6, 9, 15, 16])
def test_stopping_after_any_record_and_going_on_changes_no_bit(tmp_path, uninterrupted, stop_after):
    first = run(tmp_path, stop_after)
    assert isinstance(first[-1], Ended)
    assert not first[-1].finished, "validating the last theta belongs to the run"
    second = run(tmp_path)
    assert isinstance(second[0], Begun)
    assert second[0].step == first[-1].step
    whole = uninterrupted[-1]
    assert second[-1].checksum == whole.checksum
    jax.tree.map(np.testing.assert_array_equal, second[-1].best, whole.best)


def test_stopping_again_and_again_changes_no_bit(tmp_path, uninterrupted):
    for _ in range(60):
        last = run(tmp_path, stop_after=3)[-1]
        if last.finished:
            break
    assert last.checksum == uninterrupted[-1].checksum


@pytest.mark.parametrize("stop_after", [2, 7, 8])
def test_records_after_resuming_are_those_of_the_uninterrupted_run(
    tmp_path, uninterrupted, stop_after
):
    def without_clock(records: list) -> list:
        return [
            dataclasses.replace(r, inner_steps_per_second=0.0)
            if isinstance(r, MetaStepRecord)
            else r
            for r in records
            if isinstance(r, MetaStepRecord | ValidationRecord)
        ]

    run(tmp_path, stop_after=stop_after)
    resumed = without_clock(run(tmp_path))
    assert resumed == without_clock(uninterrupted)[-len(resumed) :]


def test_the_best_theta_is_the_one_of_the_lowest_validation(uninterrupted):
    validations = [r for r in uninterrupted if isinstance(r, ValidationRecord)]
    lowest = min(validations, key=lambda r: r.mean_loss["quadratic"])
    best = uninterrupted[-1].best
    assert int(best.step) == lowest.step
    assert float(best.loss) == pytest.approx(lowest.mean_loss["quadratic"])
    assert validations[0].best


def test_a_theta_that_is_not_finite_is_an_error_that_names_it(tmp_path):
    broken = dataclasses.replace(training(), optimizer=optax.sgd(float("nan")))
    with pytest.raises(NumericalError, match="push"):
        run(tmp_path, what=broken)


def test_a_bounded_loss_does_not_hide_a_theta_that_is_not_finite(tmp_path):
    """Under a ceiling both signs lose equally: the gradient is 0, and finite."""
    task = quadratic_task()._replace(loss_ceiling=3.0)
    optimizer = linear_optimizer()
    estimator = pes(task, optimizer, EstimatorConfig(4, 4, 0.05, 5, 10, 20))
    broken = dataclasses.replace(
        training(), tasks=(task,), estimators=(estimator,), optimizer=optax.sgd(float("inf"))
    )
    with pytest.raises(NumericalError, match="push"):
        run(tmp_path, what=broken)


def spoilt(what: MetaTraining, spoils) -> MetaTraining:
    """Return a meta-training whose gradient is nan wherever `spoils` (key, theta) says so."""
    (estimator,) = what.estimators

    def credit(key, theta, accumulated, reports):
        gradient, accumulated, info = estimator.credit(key, theta, accumulated, reports)
        bad = spoils(key, theta)
        return jax.tree.map(lambda g: jnp.where(bad, jnp.nan, g), gradient), accumulated, info

    return dataclasses.replace(what, estimators=(estimator._replace(credit=credit),))


def sometimes(key, theta):
    del theta
    return jax.random.uniform(key) < 0.4


def test_a_step_whose_gradient_is_not_finite_is_skipped_and_counted(tmp_path):
    records = run(tmp_path, what=spoilt(training(), sometimes))
    skipped = [r.skipped for r in records if isinstance(r, MetaStepRecord)]
    assert len(skipped) == STEPS
    assert 0 < sum(skipped) < STEPS
    assert records[-1].skipped == sum(skipped)
    assert np.isfinite(records[-1].theta["push"])
    assert records[-1].theta["push"] != 0.3, "the other steps moved theta"


@pytest.mark.parametrize("stop_after", [2, 6, 9, 12])
def test_stopping_in_the_middle_of_skipped_steps_changes_no_bit(tmp_path, stop_after):
    whole = run(tmp_path / "whole", what=spoilt(training(), sometimes))[-1]
    first = run(tmp_path / "cut", stop_after, spoilt(training(), sometimes))[-1]
    assert first.saved <= first.step
    last = run(tmp_path / "cut", what=spoilt(training(), sometimes))[-1]
    assert (last.checksum, last.skipped) == (whole.checksum, whole.skipped)


def test_many_skipped_steps_in_a_row_end_the_run_with_what_was_saved_before(tmp_path):
    def beyond(key, theta):
        del key
        return theta["push"] < 0.2

    doomed = spoilt(training(steps=80), beyond)
    with pytest.raises(NumericalError, match="20 meta-steps in a row") as told:
        run(tmp_path, what=doomed)
    saved = [int(entry.name) for entry in tmp_path.iterdir() if entry.name.isdigit()]
    assert f"meta-step {max(saved)} is from before" in told.value.hint
    restored = run(tmp_path, stop_after=1, what=training(steps=80))[-1]
    assert restored.theta["push"] >= 0.2 - 1e-6
    assert restored.skipped == 0
