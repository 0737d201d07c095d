"""Evaluation rows say what happened in each training: how low it got, or when it diverged."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.recipes.references import parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.records import EvaluationIdentity, EvaluationRow, content_hash
from mulo_cli.results.store import to_line
from mulo_cli.studies.evaluate import (
    EvaluationConfig,
    NamedOptimizer,
    Progress,
    _Programs,
    _Segment,
    evaluate,
    identities,
    sizes,
)
from mulo_cli.studies.lanes import lane_programs, seed_keys
from mulo_cli.studies.side_by_side import side_by_side
from tests.worlds import small_optimizer

WIDTH, BATCH = 8, 16
RATE = 0.01
CONFIG = EvaluationConfig(steps=50, seeds=3, window=10, at=(20, 50))
"""One setting for all, so that most tests share one compiled program."""

SHAPES = {
    "input/kernel": (64, WIDTH),
    "input/bias": (WIDTH,),
    "readout/kernel": (WIDTH, 10),
    "readout/bias": (10,),
}
"""Of the network's parameters: digits have 64 pixels and 10 classes."""

PARAMETERS = sum(math.prod(shape) for shape in SHAPES.values())


@pytest.fixture(autouse=True, scope="module")
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def task():
    section = TaskSection("digits", "mlp", [WIDTH], 1, BATCH)
    return build_evaluation_task(section, build_dataset("digits"), WIDTH, "sp")


def named(text: str) -> NamedOptimizer:
    return build_named_optimizer(parse_optimizer(text))


def adamw(learning_rate: float) -> NamedOptimizer:
    return dataclasses.replace(
        named("adamw"),
        name=f"adamw:learning_rate={learning_rate}",
        hyper={**named("adamw").hyper, "learning_rate": learning_rate},
    )


def records_of(task, optimizer, config=CONFIG):
    return list(evaluate(task, optimizer, config, "0.0.0"))


def rows_of(task, optimizer, config=CONFIG):
    return [r for r in records_of(task, optimizer, config) if isinstance(r, EvaluationRow)]


@pytest.fixture(scope="module")
def rows(task):
    return rows_of(task, adamw(RATE))


def without_clock(row):
    return dataclasses.replace(row, seconds_per_step=0.0)


def test_there_is_a_row_for_each_seed_that_tells_what_was_trained(rows):
    assert [row.seed for row in rows] == [0, 1, 2]
    for row in rows:
        facts = (row.optimizer, row.parametrization, row.task, row.dataset, row.real)
        assert facts == (f"adamw:learning_rate={RATE}", "sp", "mlp", "digits", True)
        assert (row.width, row.depth, row.batch_size) == (WIDTH, 1, BATCH)
        assert (row.steps, row.window, row.code_version) == (50, 10, "0.0.0")
        assert row.at == tuple(row.smoothed_loss) == (20, 50)
        assert row.seconds_per_step > 0
        assert row.status == "ok"
        assert json.loads(to_line(row))["kind"] == "evaluation"


def test_what_rows_will_say_of_themselves_is_known_before_anything_is_trained(task, rows):
    told = identities(task, adamw(RATE), CONFIG, "0.0.0")
    names = [field.name for field in dataclasses.fields(EvaluationIdentity)]
    assert [vars(one) for one in told] == [{n: getattr(row, n) for n in names} for row in rows]
    assert [content_hash(one) for one in told] == [content_hash(row) for row in rows]


def test_smoothed_losses_are_means_of_the_curve(rows):
    for row in rows:
        assert row.curve_every == 1
        for step, loss in row.smoothed_loss.items():
            # rounding of a mean of ten float32 numbers
            assert loss == pytest.approx(np.mean(row.curve[step - 10 : step]), rel=1e-6)


def test_training_lowers_the_loss_and_beats_guessing(rows):
    for row in rows:
        assert row.smoothed_loss[50] < row.smoothed_loss[20] < row.curve[0] - 0.1
        assert 0.15 < row.test_accuracy <= 1.0


CUTS = [(0, 9), (9, 18), (18, 50)]
"""Two programs for three segments."""


@pytest.fixture(scope="module")
def in_parts(task):
    """Return the records of the same trainings, one group after another, cut unevenly."""
    with pytest.MonkeyPatch.context() as patch:
        parts = [np.arange(*cut, dtype=np.int32) for cut in CUTS]
        patch.setattr("mulo_cli.studies.evaluate.segments", lambda steps: parts)
        return list(evaluate(task, adamw(RATE), CONFIG, "0.0.0", budget=1))


def test_how_a_training_is_cut_into_segments_changes_no_bit(rows, in_parts):
    cut = [record for record in in_parts if isinstance(record, EvaluationRow)]
    assert [without_clock(row) for row in cut] == [without_clock(row) for row in rows]


def test_after_each_segment_there_is_a_chance_to_stop(rows, in_parts):
    told = [record for record in in_parts if isinstance(record, Progress)]
    steps = [progress.step for progress in told]
    assert steps == sorted(steps)
    assert steps[-1] == CONFIG.steps
    assert len(told) == 2 * len(CUTS), "three seeds on a CPU are two groups"
    first = [np.mean([row.curve[:9] for row in rows[of]]) for of in (slice(2), slice(2, 3))]
    # float32 sums of some 20 numbers
    assert [told[0].loss, told[3].loss] == pytest.approx(first, rel=1e-5)


def test_the_rows_of_a_group_come_before_its_last_chance_to_stop(in_parts):
    order = [r.seed if isinstance(r, EvaluationRow) else "segment" for r in in_parts]
    all_but_one = ["segment"] * (len(CUTS) - 1)
    assert order == [*all_but_one, 0, 1, "segment", *all_but_one, 2, "segment"]


@pytest.mark.parametrize(
    ("known", "trained"), [((0, 1), (2,)), ((2,), (0, 1)), ((0, 2), (0, 1)), ((0, 1, 2), ())]
)
def test_a_group_whose_rows_are_all_known_is_not_trained_again(task, rows, known, trained):
    """Seeds 0 and 1 are a group, 2 is another; what is trained is the same to the bit."""
    before = {seed: dataclasses.replace(rows[seed], seconds_per_step=-1.0) for seed in known}
    records = list(evaluate(task, adamw(RATE), CONFIG, "0.0.0", known=before))
    told = {r.seed: r for r in records if isinstance(r, EvaluationRow)}
    assert [without_clock(told[seed]) for seed in range(3)] == [without_clock(r) for r in rows]
    assert {seed for seed, row in told.items() if row.seconds_per_step > 0} == set(trained)
    steps = [r.step for r in records if isinstance(r, Progress)]
    assert steps[-1:] == ([CONFIG.steps] if trained else [])


class Interrupted(BaseException):
    """A second Ctrl-C, while the first waits for steps to end."""


def test_an_interruption_while_the_last_steps_end_is_not_swallowed(task, monkeypatch):
    def trainings_that_are_interrupted(*_):
        try:
            yield _Segment(1, 0.0)
        finally:
            raise Interrupted

    programs = _Programs(lanes=3, memory=1, start=print, train={}, measure=print)
    monkeypatch.setattr("mulo_cli.studies.evaluate._compile", lambda *_: programs)
    monkeypatch.setattr("mulo_cli.studies.evaluate.side_by_side", trainings_that_are_interrupted)
    told = evaluate(task, adamw(RATE), CONFIG, "0.0.0")
    next(told)
    with pytest.raises(Interrupted):
        told.close()


@pytest.mark.parametrize(("budget", "at_once"), [(1, 1), (2**30, 2)])
def test_how_many_groups_train_at_once_changes_no_bit(task, rows, monkeypatch, budget, at_once):
    """There are two groups, and said to be four cores, whatever machine this is."""
    used = []

    def watched(trainings, number):
        used.append(number)
        return side_by_side(trainings, number)

    monkeypatch.setattr("mulo_cli.studies.lane_count.usable_cores", lambda: 4)
    monkeypatch.setattr("mulo_cli.studies.evaluate.side_by_side", watched)
    again = evaluate(task, adamw(RATE), CONFIG, "0.0.0", budget)
    told = [without_clock(row) for row in again if isinstance(row, EvaluationRow)]
    assert told == [without_clock(row) for row in rows]
    assert used == [at_once]


def test_large_networks_train_in_smaller_groups_that_tell_the_same(task, rows, monkeypatch):
    monkeypatch.setattr("mulo_cli.studies.evaluate.PROGRAM_BYTES", 1)
    alone = rows_of(task, adamw(RATE))
    assert [row.seed for row in alone] == [row.seed for row in rows]
    for one, other in zip(alone, rows, strict=True):
        np.testing.assert_allclose(one.curve, other.curve, rtol=1e-3)  # as below


def test_seeds_are_different_trainings(rows):
    assert len({row.final_loss for row in rows}) == len(rows)
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

    for row, key in zip(rows, seed_keys(range(3)), strict=True):
        # rounding of two programs
        assert row.curve[0] == pytest.approx(float(untrained_loss(key)), rel=1e-5)


def bytes_of_small_fc_lopt(shape: tuple[int, ...]) -> int:
    """Count: three momenta, one second moment, three moments of rows, and of columns if any."""
    elements = math.prod(shape)
    reduced = sum(shape) if len(shape) == 2 else elements
    return 4 * (3 * elements + elements + 3 * reduced)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sgd", 0),
        ("sgd:momentum=0.9", 4 * PARAMETERS),
        ("adamw", 4 * 2 * PARAMETERS + 4),
        ("muadam:parametrization=sp", 4 * 2 * PARAMETERS + 4),
        ("adamw:schedule=warmup-cosine", 4 * 2 * PARAMETERS + 4 + 4),
    ],
)
def test_the_state_of_a_hand_designed_optimizer_is_its_moments_and_its_counts(task, text, expected):
    optimizer = named(text)
    assert of_two(task, optimizer.make, optimizer.hyper) == (PARAMETERS, expected)


def test_the_state_of_small_fc_lopt_is_its_accumulators_and_one_count(task):
    learned = small_optimizer()
    theta = learned.init(jax.random.key(0))
    expected = 4 + sum(map(bytes_of_small_fc_lopt, SHAPES.values()))
    assert of_two(task, learned.build, theta) == (PARAMETERS, expected)


def of_two(task, make, hyper) -> tuple[int, int]:
    """Return parameters and bytes as told of one network of two that are trained side by side."""
    start = jax.vmap(lane_programs(task.task, make, 50).start, (0, None))
    told = sizes(start(seed_keys([0, 1]), hyper).state)
    return told["parameters"], told["optimizer_state_bytes"]


def test_rows_tell_the_size_of_one_network(rows):
    for row in rows:
        sizes_told = (row.parameters, row.optimizer_state_bytes)
        assert sizes_told == (PARAMETERS, 8 * PARAMETERS + 4) == (610, 4884)


@pytest.mark.parametrize("learning_rate", [1e6, math.inf])
def test_a_hopeless_rate_gives_rows_that_say_so_in_valid_json(task, learning_rate):
    found = rows_of(task, adamw(learning_rate))
    assert len(found) == CONFIG.seeds
    for row in found:
        plain = json.loads(to_line(row), parse_constant=pytest.fail)
        if row.status == "diverged":
            assert plain["smoothed_loss"]["50"] is None
            assert 2 <= plain["diverged_at"] <= 50, "the first loss is that of the start"
            assert plain["curve"][plain["diverged_at"] - 1] is None
        else:
            assert learning_rate == 1e6
            assert plain["smoothed_loss"]["50"] > 100
        assert plain["curve"][0] < 10
