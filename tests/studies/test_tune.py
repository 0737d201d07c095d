"""A grid in lanes gives what its configurations give one by one, whoever sits beside them."""

import dataclasses
import itertools
import threading
from collections import defaultdict
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.searches import build_trials
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.recipes.grids import Grid
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.records import EvaluationRow, content_hash
from mulo_cli.studies.evaluate import EvaluationConfig, Progress, evaluate, identity
from mulo_cli.studies.seats import SeatPrograms, Trial, _Segment, largest_seed, waves_of
from mulo_cli.studies.tune import compile_tuning, tune

STEPS = 60
CONFIG = EvaluationConfig(steps=STEPS, seeds=2, window=10, at=(STEPS,))
GRID = Grid({"learning_rate": (1e-3, 1e-2, 1e9), "b1": (0.9, 0.95)})
"""A rate of 1e9 diverges at once, in the middle of its wave."""

LANES = 5
"""12 trials of two seeds on 5 lanes: for each seed a full wave and one that is nearly empty."""


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def task():
    section = TaskSection("digits", "mlp", [8], 2, 16)
    return build_evaluation_task(section, build_dataset("digits"), 8, "sp")


@pytest.fixture(scope="module")
def trials():
    return build_trials("adamw", "constant", GRID, CONFIG.seeds)


def searched(task, trials, config=CONFIG, lanes=LANES) -> list[Progress | EvaluationRow]:
    programs = compile_tuning(task, trials, config, lanes)
    return list(tune(task, trials, config, programs, "0"))


def rows_of(task, trials) -> dict[str, EvaluationRow]:
    records = searched(task, trials)
    rows = [record for record in records if isinstance(record, EvaluationRow)]
    assert len({content_hash(row) for row in rows}) == len(rows)
    return {f"{row.optimizer} {row.seed}": without_clock(row) for row in rows}


def without_clock(row: EvaluationRow) -> EvaluationRow:
    return dataclasses.replace(row, seconds_per_step=0.0)


@pytest.fixture(scope="module")
def rows(task, trials):
    return rows_of(task, trials)


def test_every_trial_gets_one_row_of_its_own_identity(task, trials, rows):
    expected = {content_hash(identity(task, t.optimizer, CONFIG, t.seed, "0")) for t in trials}
    assert {content_hash(row) for row in rows.values()} == expected
    assert len(trials) == len(rows) == 12


def test_lanes_give_what_evaluate_gives(task, trials, rows):
    for trial in trials[:4:2]:
        for row in evaluate(task, trial.optimizer, CONFIG, "0"):
            if isinstance(row, EvaluationRow):
                of_lane = rows[f"{row.optimizer} {row.seed}"]
                # a vmap over another number of lanes rounds differently, and training amplifies it
                np.testing.assert_allclose(of_lane.curve, row.curve, rtol=1e-3)
                assert of_lane.smoothed_loss[STEPS] == pytest.approx(
                    row.smoothed_loss[STEPS], rel=1e-3
                )
                assert of_lane.optimizer_state_bytes == row.optimizer_state_bytes
                assert of_lane.parameters == row.parameters


def test_a_trial_does_not_feel_its_neighbours(task, trials, rows):
    """To the bit: an interrupted search that goes on with what is left ends as it would have."""
    assert rows_of(task, trials[::-1]) == rows
    left = rows_of(task, trials[7:])
    assert left == {name: rows[name] for name in left}
    assert len(left) == 5


def test_a_hopeless_rate_diverges_and_is_told_where(rows):
    hopeless = [row for name, row in rows.items() if "1000000000.0" in name]
    assert len(hopeless) == 4
    for row in hopeless:
        assert row.status == "diverged"
        assert 2 <= row.diverged_at <= STEPS
        assert row.smoothed_loss == {STEPS: None}
    fine = [row for name, row in rows.items() if "1000000000.0" not in name]
    assert {row.status for row in fine} == {"ok"}


def test_a_wave_ends_when_all_of_it_have_diverged(task, trials):
    """Two seeds, a wave each: four trials that end in their first segment cost one segment each."""
    hopeless = [trial for trial in trials if trial.optimizer.hyper["learning_rate"] > 1]
    assert len(hopeless) == 4
    segments = [r for r in searched(task, hopeless, lanes=4) if isinstance(r, Progress)]
    assert [told.step for told in segments] == [2 * STEPS, 4 * STEPS]


def test_a_wave_has_one_seed_and_no_trial_is_lost(trials):
    waves = waves_of(trials, LANES)
    assert [len(wave) for wave in waves] == [5, 1, 5, 1]
    assert all(len({trial.seed for trial in wave}) == 1 for wave in waves)
    assert sorted(id(trial) for wave in waves for trial in wave) == sorted(map(id, trials))
    assert largest_seed(trials[1:]) == 6


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
def test_how_many_waves_train_at_once_changes_no_bit(task, trials, rows, at_once):
    programs = compile_tuning(task, trials, CONFIG, LANES)._replace(at_once=at_once)
    told = [r for r in tune(task, trials, CONFIG, programs, "0") if isinstance(r, EvaluationRow)]
    assert {f"{row.optimizer} {row.seed}": without_clock(row) for row in told} == rows


class Clock:
    """A clock that moves on by a second whenever it is looked at."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1.0
        return self.seconds


@pytest.mark.parametrize(("seeds", "waves"), [([0], 1), ([0, 1], 2)])
def test_waves_share_the_time_of_as_many_as_there_are(task, trials, monkeypatch, seeds, waves):
    """Four may train at once, but a wave alone had all of the time, as its rows say."""
    ticks = defaultdict(itertools.count)  # of each thread: every segment takes a second
    clock = SimpleNamespace(perf_counter=lambda: next(ticks[threading.get_ident()]))
    monkeypatch.setattr("mulo_cli.studies.seats.time", clock)
    fine = [t for t in trials if t.optimizer.hyper["learning_rate"] < 1 and t.seed in seeds]
    programs = compile_tuning(task, trials, CONFIG, LANES)._replace(at_once=4)
    told = list(tune(task, fine, CONFIG, programs, "0"))
    shares = [r.steps * r.seconds_per_step for r in told if isinstance(r, EvaluationRow)]
    assert len(shares) == len(fine) == 4 * waves
    assert sum(shares) == pytest.approx(STEPS / len(programs.numbers))


class Interrupted(BaseException):
    """A second Ctrl-C, while the first waits for steps to end."""


def test_an_interruption_while_the_last_steps_end_is_not_swallowed(task, trials, monkeypatch):
    def waves_that_are_interrupted(*_):
        try:
            yield _Segment((), 1, 0.0)
        finally:
            raise Interrupted

    monkeypatch.setattr("mulo_cli.studies.seats.side_by_side", waves_that_are_interrupted)
    programs = SeatPrograms(LANES, 1, 1, np.arange(30, dtype=np.int32), print, print)
    told = tune(task, trials, CONFIG, programs, "0")
    next(told)
    with pytest.raises(Interrupted):
        told.close()


def test_progress_counts_the_steps_of_all_trials(task, trials):
    told = [r.step for r in searched(task, trials[:3]) if isinstance(r, Progress)]
    assert told == sorted(told)
    assert told[-1] == 3 * STEPS
    assert len(told) > 1


def test_a_run_that_ends_inside_a_segment_is_cut_at_its_last_step(task, trials):
    """53 has no divisor near the segment's length: lanes run on to the border, rows do not."""
    config = dataclasses.replace(CONFIG, steps=53, at=(53,))
    (row,) = [r for r in searched(task, trials[:1], config, 1) if isinstance(r, EvaluationRow)]
    (alone,) = [
        r
        for r in evaluate(task, trials[0].optimizer, dataclasses.replace(config, seeds=1), "0")
        if isinstance(r, EvaluationRow)
    ]
    assert len(row.curve) == len(alone.curve)
    np.testing.assert_allclose(row.curve, alone.curve, rtol=1e-3)


def test_a_trial_is_a_configuration_and_a_seed(trials):
    assert {trial.seed for trial in trials} == {0, 1}
    assert {type(trial) for trial in trials} == {Trial}
    rates = {trial.optimizer.settings["learning_rate"] for trial in trials}
    assert rates == {1e-3, 1e-2, 1e9}
