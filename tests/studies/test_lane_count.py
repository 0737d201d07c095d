"""As many lanes as memory has room for, and what the compiled program says of it decides."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.searches import build_task_for, build_trials
from mulo_cli.errors import MuloError
from mulo_cli.inner_training.state import InnerState
from mulo_cli.recipes.grids import Grid
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.costs import training_costs
from mulo_cli.studies.evaluate import EvaluationConfig
from mulo_cli.studies.lane_count import (
    MOST_ELSEWHERE,
    MOST_ON_CPU,
    SHARE,
    UNKNOWN,
    bytes_beside_data,
    even_lanes,
    fitting_programs,
    memory_budget,
    most_lanes,
    waves_at_once,
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


@pytest.mark.parametrize(
    ("trials", "on_cpu"), [(1, 1), (2, 1), (3, 2), (5, 3), (32, 16), (33, 16), (512, 16)]
)
def test_a_cpu_has_two_waves_at_least_and_an_accelerator_hundreds_of_lanes(
    trials, on_cpu, monkeypatch
):
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    assert most_lanes(trials) == on_cpu
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert most_lanes(trials) == MOST_ELSEWHERE


@pytest.mark.parametrize("trials", [1, 5, 512])
def test_how_many_lanes_there_are_does_not_depend_on_the_number_of_cores(trials, monkeypatch):
    told = []
    for cores in (1, 2, 64):
        monkeypatch.setattr("mulo_cli.studies.lane_count.usable_cores", lambda cores=cores: cores)
        told.append(most_lanes(trials))
    assert len(set(told)) == 1


@pytest.mark.parametrize(
    ("backend", "cores", "memory", "budget", "waves"),
    [
        ("cpu", 4, 100, 1_000, 4),  # a wave on each core
        ("cpu", 4, 100, 399, 3),  # as memory goes
        ("cpu", 4, 100, 99, 1),  # a wave may always train
        ("cpu", 4, 100, 0, 1),
        ("cpu", 4, 0, 1_000, 4),  # nobody tells what a wave takes
        ("cpu", 1, 100, 1_000, 1),
        ("gpu", 64, 100, 1_000, 1),
    ],
)
def test_a_wave_trains_on_each_core_of_a_cpu_as_far_as_memory_goes(
    backend, cores, memory, budget, waves, monkeypatch
):
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    monkeypatch.setattr("mulo_cli.studies.lane_count.usable_cores", lambda: cores)
    assert waves_at_once(memory, budget) == waves


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


@pytest.mark.parametrize(("told", "expected"), [(True, 5 * 4_000), (False, 2 * 4_000)])
def test_lanes_take_what_the_compiler_tells_but_for_the_data(told, expected, monkeypatch):
    """Or twice their state, where it tells nothing: state in and out, three times as much kept."""
    state = InnerState(jnp.zeros(1_000), (), jnp.zeros(0))
    data = {"inputs": jnp.zeros(500)}
    program = jax.jit(lambda state, data: state).lower(state, data).compile()
    sizes = {"argument": 6_000, "output": 4_000, "temp": 12_000, "alias": 0}
    analysis = SimpleNamespace(**{f"{name}_size_in_bytes": size for name, size in sizes.items()})
    analysed = analysis if told else None
    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", lambda self: analysed)
    assert bytes_beside_data([program], state, data) == expected


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
