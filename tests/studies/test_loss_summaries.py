"""What a row tells of the losses of a training: how low they got, and when they diverged."""

import math

import numpy as np
import pytest

from mulo_cli.studies.loss_summaries import CURVE_POINTS, summarise_losses


def test_the_smoothed_loss_at_a_step_is_the_mean_of_the_window_up_to_it():
    losses = np.arange(10, dtype=np.float32)
    assert summarise_losses(losses, 4, [10])["smoothed_loss"] == {10: 7.5}
    assert summarise_losses(losses, 1, [1, 2, 10])["smoothed_loss"] == {1: 0.0, 2: 1.0, 10: 9.0}
    assert summarise_losses(losses, 2, [2, 3, 5])["smoothed_loss"] == {2: 0.5, 3: 1.5, 5: 3.5}
    assert summarise_losses(losses, 10, [10])["smoothed_loss"] == {10: 4.5}
    assert summarise_losses(losses, 4, [10])["status"] == "ok"
    assert summarise_losses(losses, 4, [10])["diverged_at"] is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [1, 4, 10])
def test_a_run_has_diverged_at_its_first_loss_that_is_not_finite_counted_from_one(value, step):
    losses = np.ones(10, np.float32)
    losses[step - 1] = value
    summary = summarise_losses(losses, 2, [10])
    assert (summary["status"], summary["diverged_at"]) == ("diverged", step)
    assert summary["smoothed_loss"] == {10: None}, "whether or not the window is finite"
    losses[step:] = np.nan
    assert summarise_losses(losses, 2, [10])["diverged_at"] == step


def test_what_a_run_reached_before_it_diverged_is_told():
    losses = np.arange(1, 11, dtype=np.float32)
    losses[5] = np.nan  # the sixth step
    summary = summarise_losses(losses, 2, [2, 5, 6, 8, 10])
    assert summary["smoothed_loss"] == {2: 1.5, 5: 4.5, 6: None, 8: None, 10: None}
    assert (summary["status"], summary["diverged_at"]) == ("diverged", 6)


def test_a_curve_has_no_number_where_a_run_has_none():
    losses = np.ones(100, np.float32)
    losses[50:] = np.inf
    assert summarise_losses(losses, 1, [100])["curve"] == (1.0,) * 25 + (None,) * 25


@pytest.mark.parametrize("steps", [1, 2, 49, 50, 51, 99, 100, 101, 500, 999, 25_000])
def test_a_curve_has_at_most_fifty_points_and_covers_every_step_once(steps):
    losses = np.random.default_rng(steps).normal(size=steps).astype(np.float32)
    summary = summarise_losses(losses, 1, [steps])
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
    assert summarise_losses(losses, 1, [3])["curve"] == (3.0, 2.0, 1.0)
