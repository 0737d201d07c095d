"""As many lanes as memory has room for, and what the compiled program says of it decides."""

import jax
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.searches import build_task_for, build_trials
from mulo_cli.errors import MuloError
from mulo_cli.recipes.grids import Grid
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.costs import training_costs
from mulo_cli.studies.evaluate import EvaluationConfig
from mulo_cli.studies.lane_count import (
    MOST_ON_CPU,
    SHARE,
    UNKNOWN,
    even_lanes,
    fitting_programs,
    memory_budget,
)
from mulo_cli.studies.seats import SeatPrograms
from mulo_cli.studies.tune import compile_tuning


@pytest.mark.parametrize("trials", [1, 2, 63, 64, 65, 504, 512, 1512])
@pytest.mark.parametrize("most", [0, 1, 7, 64, 512])
def test_lanes_are_filled_evenly(trials, most):
    lanes = even_lanes(trials, most)
    assert 1 <= lanes <= max(1, min(most, trials))
    waves = -(-trials // lanes)
    assert waves * lanes - trials < waves, "no wave has more than one empty lane on average"


class Compiler:
    """Stands for a compiler whose programs take so many bytes for each lane."""

    def __init__(self, lane_bytes: int) -> None:
        self.lane_bytes, self.tried = lane_bytes, []

    def __call__(self, lanes: int) -> SeatPrograms:
        self.tried.append(lanes)
        numbers = np.arange(1, dtype=np.int32)
        return SeatPrograms(lanes, lanes * self.lane_bytes, 1, numbers, print, print)


def test_a_good_estimate_compiles_once():
    compiler = Compiler(100)
    assert fitting_programs(compiler, 512, 100, 1_600, 64).lanes == 16
    assert compiler.tried == [16]


def test_what_does_not_fit_is_halved_until_it_does():
    compiler = Compiler(100)
    assert fitting_programs(compiler, 512, 10, 1_600, 64).lanes == 16
    assert compiler.tried == [64, 32, 16]


def test_one_lane_that_does_not_fit_is_an_error_with_the_numbers():
    compiler = Compiler(3 * 2**30)
    with pytest.raises(MuloError, match="3 GiB, and there are 1 GiB") as caught:
        fitting_programs(compiler, 4, 10, 2**30, 64)
    assert compiler.tried == [4, 2, 1]
    assert "--lanes 1" in caught.value.hint


def test_lanes_may_take_half_of_what_is_free():
    assert memory_budget(1_000) == 1_000 * SHARE
    assert memory_budget(None) == UNKNOWN


def test_estimate_and_compiled_program_agree_about_one_lane():
    """The estimate is a first guess, and a good one: wide lanes are compiled once."""
    trials = build_trials("adamw", "none", Grid({"learning_rate": (0.01, 0.02, 0.04, 0.08)}), 1)
    section = TaskSection("digits", "mlp", [256], 3, 64)
    task = build_task_for(trials[0].optimizer, section, build_dataset("digits"))
    config = EvaluationConfig(50, 1, 10, (50,))
    with jax.numpy_dtype_promotion("standard"):  # optax raises a weak float to an int32 power
        programs = compile_tuning(task, trials, config, None)
        estimate = 2 * training_costs(task, trials[0].optimizer, config, 0).network_bytes
        tight = compile_tuning(task, trials, config, None, int(0.6 * programs.memory))
    assert programs.lanes == 2 <= MOST_ON_CPU, "two waves of four trials"
    assert 0.5 < programs.memory / estimate < 2.0
    assert tight.lanes == 1
    assert tight.memory < 0.6 * programs.memory
