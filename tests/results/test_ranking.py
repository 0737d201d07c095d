"""Ranks keep their laws: sums, ties, order, scale; and nothing is averaged that cannot be."""

import dataclasses
import functools
import math
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.errors import DataError
from mulo_cli.results.ranking import (
    SATURATED,
    Ranking,
    Standing,
    average_ranks,
    rank_optimizers,
    resampled_seeds,
)
from mulo_cli.results.records import EvaluationRow
from mulo_cli.results.settings import setting_of
from tests.results.evaluation_rows import evaluation_row, rows_of

FEW = 20
"""Bootstrap resamples where their number does not matter."""


def standing(ranking: Ranking, optimizer: str, column: str = "average") -> Standing:
    (found,) = (
        one
        for row in ranking.rows
        for one in row
        if (one.optimizer, one.column) == (optimizer, column)
    )
    return found


def ranks(ranking: Ranking, column: str = "average") -> dict[str, float | None]:
    return {one.optimizer: one.rank for row in ranking.rows for one in row if one.column == column}


def warned(ranking: Ranking, *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in ranking.warnings)


LOSSES = (0.01, 0.5, 1.0, 1.5, 2.25)
"""Few, so that ties are common."""


@st.composite
def evaluations(draw, losses=(*LOSSES, None)):
    """What to build rows of: all optimizers on all tasks and seeds."""
    optimizers = [f"optimizer{n}" for n in range(draw(st.integers(1, 4)))]
    seeds = range(draw(st.integers(1, 3)))
    loss = st.sampled_from(losses)
    return [
        (optimizer, {200: draw(loss), 500: draw(loss)}, width, dataset, seed)
        for dataset in ("digits", "fashion")[: draw(st.integers(1, 2))]
        for width in (16, 64)
        for optimizer in optimizers
        for seed in seeds
    ]


def built(trainings) -> list[EvaluationRow]:
    return [
        evaluation_row(optimizer, losses, width=width, dataset=dataset, seed=seed)
        for optimizer, losses, width, dataset, seed in trainings
    ]


AXES = st.sampled_from(["size", "width", "depth", "horizon"])
lawful = settings(max_examples=25, deadline=None, derandomize=True)


@lawful
@given(trainings=evaluations(), axis=AXES)
def test_ranks_of_n_optimizers_sum_to_a_triangular_number_in_every_column(trainings, axis):
    ranking = rank_optimizers(built(trainings), axis, FEW)
    n = len(ranking.rows)
    for column in zip(*ranking.rows, strict=True):
        assert sum(one.rank for one in column) == pytest.approx(n * (n + 1) / 2)
        assert {one.ranked for one in column} == {n}


@lawful
@given(trainings=evaluations(), axis=AXES, data=st.data())
def test_the_order_of_rows_changes_nothing(trainings, axis, data):
    shuffled = built(data.draw(st.permutations(trainings)))
    assert rank_optimizers(shuffled, axis, FEW) == rank_optimizers(built(trainings), axis, FEW)


@lawful
@given(trainings=evaluations(), axis=AXES)
def test_a_loss_in_another_unit_changes_no_rank_and_no_interval(trainings, axis):
    def judged(rows):
        ranking = rank_optimizers(rows, axis, FEW)
        return [(o.optimizer, o.column, o.rank, o.low, o.high) for r in ranking.rows for o in r]

    eightfold = [
        (name, {step: loss and 8 * loss for step, loss in losses.items()}, *where)
        for name, losses, *where in trainings
    ]
    assert judged(built(eightfold)) == judged(built(trainings))


@lawful
@given(trainings=evaluations(), axis=AXES)
def test_intervals_stay_among_the_ranks_there_are(trainings, axis):
    ranking = rank_optimizers(built(trainings), axis, FEW)
    seeds = len({seed for *_, seed in trainings})
    for one in (one for row in ranking.rows for one in row):
        assert one.seeds == seeds
        if seeds == 1:
            assert (one.low, one.high) == (None, None)
        else:
            assert 1 <= one.low <= one.high <= len(ranking.rows)


@lawful
@given(trainings=evaluations(LOSSES), axis=AXES)
def test_a_further_optimizer_that_diverges_changes_no_rank_of_the_others(trainings, axis):
    further = [
        ("zzz", {200: None, 500: None}, *where)
        for name, _, *where in trainings
        if name == "optimizer0"
    ]
    before = rank_optimizers(built(trainings), axis, FEW)
    after = rank_optimizers(built([*trainings, *further]), axis, FEW)
    assert ranks(after) == {**ranks(before), "zzz": len(before.rows) + 1}


def test_equal_losses_share_the_mean_of_their_ranks_and_the_place():
    ranking = rank_optimizers(rows_of({"a": [1.0], "b": [1.0], "c": [0.5], "d": [2.0]}))
    assert ranks(ranking) == {"c": 1, "a": 2.5, "b": 2.5, "d": 4}
    assert [row[-1].place for row in ranking.rows] == [1, 2, 2, 4]


def naive_mean(losses: list[float]) -> float:
    """Return a mean that knows the order; since Python 3.12 sum() makes up for what is rounded."""
    return functools.reduce(operator.add, losses) / len(losses)


def test_the_same_losses_in_another_order_of_seeds_are_a_tie():
    first, second = [0.1, 0.2, 0.3, 0.7], [0.1, 0.7, 0.3, 0.2]
    assert naive_mean(first) != naive_mean(second)
    ranking = rank_optimizers(rows_of({"a": first, "b": second}), resamples=FEW)
    assert ranks(ranking) == {"a": 1.5, "b": 1.5}


def test_one_diverged_seed_makes_an_optimizer_last_and_several_such_are_tied():
    ranking = rank_optimizers(
        rows_of({"a": [0.1, None], "b": [None, None], "c": [9.0, 9.0]}), resamples=FEW
    )
    assert ranks(ranking) == {"c": 1, "a": 2.5, "b": 2.5}
    assert [standing(ranking, name).diverged for name in "abc"] == [1, 2, 0]
    assert standing(ranking, "a").mean_loss == math.inf


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_is_a_divergence(loss):
    ranking = rank_optimizers(rows_of({"a": [loss], "b": [9.0]}))
    assert ranks(ranking) == {"b": 1, "a": 2}
    assert standing(ranking, "a").diverged == 1


def test_a_run_is_not_last_before_it_diverges():
    rows = [evaluation_row("a", {200: 0.5, 500: None}), evaluation_row("b", {200: 1.0, 500: 0.9})]
    ranking = rank_optimizers(rows)
    assert ranks(ranking, "width 16, step 200") == {"a": 1, "b": 2}
    assert ranks(ranking, "width 16, step 500") == {"a": 2, "b": 1}


def test_a_number_too_large_for_a_mean_is_still_ranked():
    ranking = rank_optimizers(rows_of({"a": [1.7e308] * 3, "b": [None] * 3, "c": [1.0] * 3}))
    assert ranks(ranking) == {"c": 1, "a": 2, "b": 3}


def test_average_ranks_are_those_of_a_sorted_list():
    losses = np.array([[3.0, 1.0], [1.0, math.inf], [2.0, math.inf]])
    assert average_ranks(losses).tolist() == [[3, 1], [1, 2.5], [2, 2.5]]


def test_columns_are_step_by_step_and_within_a_step_width_by_width_as_in_the_papers_table():
    rows = [
        evaluation_row(name, {1000: 1.0, 300: 2.0}, width=width, steps=1000)
        for name in "ab"
        for width in (64, 16)
    ]
    columns = {
        by: [one.column for one in rank_optimizers(rows, by).rows[0]]
        for by in ("size", "width", "depth", "horizon")
    }
    assert columns == {
        "size": [
            "width 16, step 300",
            "width 64, step 300",
            "width 16, step 1000",
            "width 64, step 1000",
            "average",
        ],
        "width": ["width 16", "width 64", "average"],
        "depth": ["depth 3", "average"],
        "horizon": ["step 300", "step 1000", "average"],
    }


def test_a_column_averages_ranks_over_tasks_and_the_last_averages_columns():
    rows = [
        *rows_of({"a": [1.0], "b": [2.0]}, dataset="digits", width=16),
        *rows_of({"a": [200.0], "b": [100.0]}, dataset="fashion", width=16),
        *rows_of({"a": [1.0], "b": [2.0]}, dataset="digits", width=64),
    ]
    ranking = rank_optimizers(rows)
    assert ranks(ranking, "width 16, step 500") == {"a": 1.5, "b": 1.5}
    assert ranks(ranking, "width 64, step 500") == {"a": 1, "b": 2}
    assert ranks(ranking) == {"a": 1.25, "b": 1.75}
    assert standing(ranking, "a", "width 16, step 500").mean_loss == pytest.approx(100.5)
    assert [standing(ranking, "a", c.column).tasks for c in ranking.rows[0]] == [2, 1, 3]


def test_the_best_average_comes_first_whoever_it_is():
    ranking = rank_optimizers(rows_of({"a": [3.0], "b": [1.0], "c": [2.0]}))
    assert [row[0].optimizer for row in ranking.rows] == ["b", "c", "a"]


def test_an_optimizer_that_wins_on_every_seed_ranks_first_for_sure():
    ranking = rank_optimizers(rows_of({"a": [1.0, 2.0, 3.0], "b": [1.1, 2.1, 3.1]}))
    assert [(row[-1].low, row[-1].high) for row in ranking.rows] == [(1, 1), (2, 2)]


def test_where_seeds_decide_the_interval_reaches_over_both_ranks():
    ranking = rank_optimizers(rows_of({"a": [1.0, 2.0, 1.0], "b": [2.0, 1.0, 1.5]}))
    assert (standing(ranking, "a").low, standing(ranking, "a").high) == (1, 2)


def test_the_probability_of_a_resample_is_that_of_drawing_with_replacement():
    """`a` is first unless the one bad of 4 seeds is drawn: (3/4)^4; 5 sigma of 20000 draws."""
    draws = resampled_seeds(setting_of(evaluation_row("a")), (0, 1, 2, 3), 20_000)
    without = np.mean(np.all(draws != 3, axis=1))
    probability = 0.75**4
    assert abs(without - probability) < 5 * math.sqrt(probability * (1 - probability) / 20_000)


def test_resampling_is_the_same_every_time_and_another_for_another_task():
    narrow, wide = (setting_of(evaluation_row("a", width=width)) for width in (16, 64))
    first, again, other = (resampled_seeds(s, range(5), 50) for s in (narrow, narrow, wide))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_single_seed_has_no_interval_and_that_is_said():
    ranking = rank_optimizers(rows_of({"a": [1.0], "b": [2.0]}))
    assert (standing(ranking, "a").low, standing(ranking, "a").high) == (None, None)
    assert warned(ranking, "one seed only")
    assert not warned(rank_optimizers(rows_of({"a": [1.0], "b": [2.0]}), resamples=0), "one seed")


def test_only_columns_with_a_single_seed_lack_their_interval():
    rows = [
        *rows_of({"a": [1.0], "b": [2.0]}, width=16),
        *rows_of({"a": [1.0, 2.0], "b": [2.0, 1.0]}, width=64),
    ]
    ranking = rank_optimizers(rows)
    assert standing(ranking, "a", "width 16, step 500").low is None
    assert standing(ranking, "a", "width 64, step 500").low is not None
    assert standing(ranking, "a").low is None
    assert warned(ranking, "no interval", "width 16, step 500")


def test_losses_at_the_floor_are_counted_as_saturated():
    ranking = rank_optimizers(rows_of({"a": [SATURATED / 2, 0.5], "b": [SATURATED, SATURATED]}))
    assert standing(ranking, "a").saturated == 1
    assert standing(ranking, "b").saturated == 0


def test_one_optimizer_ranks_first_and_that_is_said_to_be_trivial():
    ranking = rank_optimizers(rows_of({"a": [1.0]}))
    assert ranks(ranking) == {"a": 1}
    assert warned(ranking, "'a'", "only optimizer")


def test_who_lacks_a_task_is_named_and_not_ranked_there():
    rows = [
        *rows_of({"a": [1.0], "b": [2.0], "c": [3.0]}, width=16),
        *rows_of({"a": [1.0], "b": [2.0], "c": [3.0]}, width=64),
        *rows_of({"b": [2.0], "c": [1.0]}, width=64, dataset="fashion"),
    ]
    ranking = rank_optimizers(rows)
    assert ranks(ranking, "width 16, step 500") == {"a": 1, "b": 2, "c": 3}
    assert ranks(ranking, "width 64, step 500") == {"a": None, "b": 1.5, "c": 1.5}
    assert standing(ranking, "a").rank is None
    assert ranking.rows[-1][0].optimizer == "a"
    assert warned(ranking, "'a' lacks mlp on fashion, width 64, depth 3", "'width 64, step 500'")


def test_who_lacks_a_step_is_named_and_not_ranked_there():
    rows = [evaluation_row("a", {500: 1.0}), evaluation_row("b", {200: 3.0, 500: 2.0})]
    ranking = rank_optimizers(rows)
    assert ranks(ranking, "width 16, step 200") == {"a": None, "b": 1}
    assert ranks(ranking, "width 16, step 500") == {"a": 1, "b": 2}
    assert warned(ranking, "'a' lacks mlp on digits, width 16, depth 3 (step 200)")
    assert warned(ranking, "only one optimizer is ranked", "'width 16, step 200'")


def test_different_seeds_are_compared_on_the_common_ones_and_named():
    rows = rows_of({"a": [1.0, 1.0, 99.0, 99.0], "b": [2.0, 2.0]})
    ranking = rank_optimizers(rows)
    assert ranks(ranking) == {"a": 1, "b": 2}
    assert standing(ranking, "a").mean_loss == 1
    assert standing(ranking, "a").seeds == 2
    assert warned(ranking, "seeds 0, 1", "0..3 of 'a'", "0, 1 of 'b'", "mlp on digits, width 16")


def test_an_optimizer_that_is_not_ranked_takes_no_seed_from_the_others():
    rows = [
        *rows_of({"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [3.0]}, width=16),
        *rows_of({"a": [1.0, 1.0], "b": [2.0, 2.0]}, width=16, dataset="fashion"),
    ]
    ranking = rank_optimizers(rows)
    assert standing(ranking, "a").seeds == 2
    assert not warned(ranking, "common to all")


def test_without_a_common_seed_nobody_is_ranked_there_and_that_is_named():
    rows = [
        evaluation_row("a", 1.0, seed=0),
        evaluation_row("b", 2.0, seed=1),
        *rows_of({"a": [1.0], "b": [2.0]}, width=64),
    ]
    ranking = rank_optimizers(rows)
    assert ranks(ranking, "width 16, step 500") == {"a": None, "b": None}
    assert ranks(ranking, "width 64, step 500") == {"a": 1, "b": 2}
    assert warned(ranking, "no seed is common", "0 of 'a'", "1 of 'b'", "'width 16, step 500'")


def test_a_row_given_twice_counts_once():
    rows = rows_of({"a": [1.0, 2.0], "b": [2.0, 3.0]})
    ranking = rank_optimizers([*rows, *rows[:3]])
    assert ranking.rows == rank_optimizers(rows).rows
    assert warned(ranking, "3 rows are given more than once")


def test_a_training_told_at_more_steps_by_a_later_row_is_one_training():
    rows = [
        evaluation_row("a", {500: 1.0}),
        evaluation_row("a", {200: 3.0, 500: 1.0}),
        evaluation_row("b", {200: 2.0, 500: 2.0}),
    ]
    ranking = rank_optimizers(rows)
    assert ranks(ranking, "width 16, step 200") == {"a": 2, "b": 1}
    assert ranks(ranking, "width 16, step 500") == {"a": 1, "b": 2}
    assert warned(ranking, "1 training is told by several rows", "counted once")


def test_another_code_version_with_the_same_loss_is_the_same_training():
    rows = [*rows_of({"a": [1.0], "b": [2.0]}), evaluation_row("a", 1.0, code_version="0.2.0")]
    ranking = rank_optimizers(rows)
    assert ranks(ranking) == {"a": 1, "b": 2}
    assert warned(ranking, "several versions", "'0.1.0', '0.2.0'")


@pytest.mark.parametrize(
    ("loss", "changes", "said"),
    [
        (1.0, {"settings": {"learning_rate": 0.1}}, "settings.learning_rate (0.01, 0.1)"),
        (1.0, {"settings": {"learning_rate": 0.01, "b1": 0.5}}, "settings.b1 (0.5, nothing)"),
        (1.0, {"recipe_digest": "abc"}, "recipe_digest ('abc', None)"),
        (1.0, {"parametrization": "mup"}, "parametrization ('mup', 'sp')"),
        (1.0, {"parametrization": "mup", "seed": 7}, "parametrization ('mup', 'sp')"),
        (1.5, {}, "the smoothed loss at step 500 (1.0, 1.5)"),
        (None, {}, "the smoothed loss at step 500 (1.0, diverged)"),
        (1.5, {"code_version": "0.2.0"}, "the smoothed loss at step 500 (1.0, 1.5)"),
        ({200: 2.0}, {"code_version": "0.2.0"}, "code_version ('0.1.0', '0.2.0')"),
    ],
)
def test_rows_that_contradict_each_other_are_refused_by_name(loss, changes, said):
    rows = [*rows_of({"a": [1.0], "b": [2.0]}), evaluation_row("a", loss, **changes)]
    with pytest.raises(DataError) as refused:
        rank_optimizers(rows)
    assert said in refused.value.message
    assert "'a' (mlp on digits, width 16, depth 3" in refused.value.message
    assert refused.value.hint


def test_all_contradictions_are_counted():
    rows = [evaluation_row("a", loss, width=width) for width in (16, 32, 64) for loss in (1.0, 2.0)]
    with pytest.raises(DataError, match="so do 2 more"):
        rank_optimizers(rows)


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("steps", (500, 1000), "steps 500, 1000"),
        ("window", (10, 50), "window 10, 50"),
        ("batch_size", (64, 128), "batch size 64, 128"),
        ("real", (False, True), "real False, True"),
        ("data", ("", "0123456789abcdef"), "data 01234567, known by name"),
    ],
)
def test_what_was_trained_otherwise_is_a_task_of_its_own(field, values, said):
    first, second = values
    rows = [
        *rows_of({"a": [1.0], "b": [2.0]}, **{field: first}),
        *rows_of({"a": [9.0], "b": [0.1]}, **{field: second}),
    ]
    ranking = rank_optimizers(rows)
    assert ranks(ranking) == {"a": 1.5, "b": 1.5}
    assert standing(ranking, "a").tasks == 2
    assert warned(ranking, "trained in several ways", said)


def test_optimizers_trained_otherwise_are_never_ranked_against_each_other():
    rows = [
        evaluation_row("a", 1.0, steps=500, width=16),
        evaluation_row("b", {500: 2.0}, steps=1000, width=16),
    ]
    ranking = rank_optimizers(rows)
    assert ranks(ranking) == {"a": None, "b": None}
    assert warned(ranking, "'a' lacks", "1000 steps in all")
    assert warned(ranking, "'b' lacks", "500 steps in all")


def test_real_and_synthetic_data_together_are_named():
    rows = [
        *rows_of({"a": [1.0], "b": [2.0]}),
        *rows_of({"a": [1.0], "b": [2.0]}, dataset="blobs", real=False),
    ]
    assert warned(rank_optimizers(rows), "real data (digits) and synthetic data (blobs)")


def test_a_name_that_stands_for_different_things_in_different_tasks_is_named():
    rows = [
        *rows_of({"a": [1.0], "b": [2.0]}, width=16),
        *rows_of({"a": [1.0], "b": [2.0]}, width=64, recipe_digest="abc"),
    ]
    assert warned(rank_optimizers(rows), "'a' is not the same in all tasks", "recipe_digest")


def test_columns_that_differ_in_more_than_their_axis_are_named():
    rows = [
        *rows_of({"a": [1.0], "b": [2.0]}, depth=3, width=16),
        *rows_of({"a": [1.0], "b": [2.0]}, depth=3, width=64),
        *rows_of({"a": [1.0], "b": [2.0]}, depth=16, width=64),
    ]
    assert warned(rank_optimizers(rows, "depth"), "more than depth", "'depth 16' has nothing on")
    assert not warned(rank_optimizers(rows[2:], "depth"), "more than depth")
    assert not warned(rank_optimizers(rows, "size"), "more than")


def test_a_clean_evaluation_has_no_warning():
    rows = [
        row
        for width in (16, 64)
        for row in rows_of({"a": [1.0, 2.0], "b": [2.0, 3.0]}, width=width)
    ]
    for axis in ("size", "width", "depth", "horizon"):
        assert rank_optimizers(rows, axis).warnings == ()


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        rank_optimizers([])


# --- Suites ---------------------------------------------------------------------------------------

FAMILIES = ("mlp", "vit", "lm")


def of_suite(family: str, width: int, sizes: tuple[str, ...], losses, **changes):
    """Return rows of one task of a suite."""
    place = {
        "suite": "ours",
        "suite_task": f"{family}-{width}",
        "family": family,
        "sizes": sizes,
        "task": f"{family}:heads={width // 8}",
        "dataset": family,
    }
    return rows_of(losses, width=width, **{**place, **changes})


def suite_rows(**changes) -> list[EvaluationRow]:
    """Return rows in which a is better in two of three families, and b where things are large."""
    better, worse = {"a": [1.0, 1.1], "b": [2.0, 2.1]}, {"a": [2.0, 2.1], "b": [1.0, 1.1]}
    return [
        *of_suite("mlp", 16, ("base",), better, **changes),
        *of_suite("vit", 16, ("base",), better, **changes),
        *of_suite("lm", 24, ("base",), worse, **changes),
        *of_suite("mlp", 64, ("xl",), worse, **changes),
        *of_suite("mlp", 128, ("xxl",), worse, **changes),
        *of_suite("vit", 64, ("xl", "xxl"), worse, **changes),
        *of_suite("lm", 72, ("xl", "xxl"), worse, **changes),
    ]


def test_a_suites_columns_are_sizes_and_average_over_families_whatever_their_widths():
    ranking = rank_optimizers(suite_rows(), resamples=FEW)
    names = [one.column for one in ranking.rows[0]]
    assert names == ["base, step 500", "xl, step 500", "xxl, step 500", "average"]
    assert ranks(ranking, "base, step 500") == {
        "a": pytest.approx(4 / 3),
        "b": pytest.approx(5 / 3),
    }
    for column in ("xl, step 500", "xxl, step 500"):
        assert ranks(ranking, column) == {"a": 2, "b": 1}
        assert standing(ranking, "a", column).tasks == 3
    assert ranking.warnings == ()


def test_a_family_that_a_column_lacks_is_named():
    rows = [row for row in suite_rows() if row.suite_task != "lm-24"]
    expected = {"ours": {"base": FAMILIES, "xl": FAMILIES}}
    ranking = rank_optimizers(rows, resamples=FEW, families=expected)
    assert warned(ranking, "'base, step 500' lacks the families: lm")
    assert not warned(ranking, "'xl")
    assert not warned(rank_optimizers(rows, resamples=FEW), "lacks the families"), "nobody knows"


def test_tasks_of_no_size_are_ranked_along_the_axes_alone():
    deep = of_suite("mlp", 32, (), {"a": [1.0], "b": [2.0]}, depth=16)
    ranking = rank_optimizers([*suite_rows(), *deep], resamples=FEW)
    assert ranking.rows == rank_optimizers(suite_rows(), resamples=FEW).rows
    assert warned(ranking, "of no size", "mlp-32")
    by_depth = rank_optimizers([*suite_rows(), *deep], "depth", FEW)
    assert ranks(by_depth, "depth 16") == {"a": 1, "b": 2}
    assert not warned(by_depth, "of no size")
    with pytest.raises(DataError, match="none of these tasks has a size"):
        rank_optimizers(deep)


def test_rows_of_suites_and_others_have_columns_of_their_own():
    other = suite_rows(suite="theirs")
    plain = rows_of({"a": [1.0, 1.0], "b": [2.0, 2.0]}, width=8)
    ranking = rank_optimizers([*suite_rows(), *other, *plain], resamples=FEW)
    names = [one.column for one in ranking.rows[0]]
    assert names[:3] == ["width 8, step 500", "ours base, step 500", "ours xl, step 500"]
    assert "theirs xxl, step 500" in names


def test_several_tasks_of_one_family_in_a_column_are_named():
    rows = [*suite_rows(), *suite_rows(steps=1_000)]
    ranking = rank_optimizers(rows, resamples=FEW)
    assert warned(ranking, "several tasks of lm, mlp, vit", "'base, step 500'")


def test_networks_of_one_family_may_differ_in_their_heads_along_an_axis():
    rows = [row for row in suite_rows() if row.family == "vit"]
    assert not warned(rank_optimizers(rows, "width", FEW), "more than width")
    assert warned(rank_optimizers(suite_rows(), "width", FEW), "more than width", "lm on lm")


def test_a_place_in_a_suite_does_not_change_the_bootstrap():
    plain, placed = evaluation_row("a"), evaluation_row("a", suite="ours", sizes=("base",))
    draws = [resampled_seeds(setting_of(row), (0, 1, 2), FEW) for row in (plain, placed)]
    assert np.array_equal(*draws)


def test_sizes_that_were_changed_since_make_no_other_task_and_the_last_row_tells_them():
    before = of_suite("mlp", 16, ("xl",), {"a": [1.0, 2.0]})
    after = of_suite("mlp", 16, ("large",), {"a": [1.0, 2.0], "b": [2.0, 3.0]})
    ranking = rank_optimizers([*before, *after], resamples=FEW)
    assert [one.column for one in ranking.rows[0]] == ["large, step 500", "average"]
    assert ranks(ranking) == {"a": 1, "b": 2}
    assert standing(ranking, "a").tasks == 1
    assert warned(ranking, "sizes or families of mlp-16 differ between rows")
    assert not warned(ranking, "several ways")
    assert not warned(ranking, "more than once")


def test_a_training_of_two_suites_counts_in_the_columns_of_both_and_once_along_an_axis():
    ours = of_suite("mlp", 16, ("base",), {"a": [1.0], "b": [2.0]})
    theirs = of_suite("mlp", 16, ("large",), {"a": [1.0], "b": [2.0]}, suite="theirs")
    ranking = rank_optimizers([*ours, *theirs], resamples=0)
    names = [one.column for one in ranking.rows[0]]
    assert names == ["ours base, step 500", "theirs large, step 500", "average"]
    assert ranking.warnings == ()
    by_width = rank_optimizers([*ours, *theirs], "width", 0)
    assert standing(by_width, "a", "width 16").tasks == 1


def test_columns_share_what_was_trained_in_whatever_suite_they_did():
    """Width 16 was trained outside of any suite, width 64 in one: they are one family's."""
    rows = [
        *rows_of({"a": [1.0], "b": [2.0]}, width=16),
        *rows_of({"a": [1.0], "b": [2.0]}, width=64, suite="ours", family="mlp", sizes=("base",)),
    ]
    assert not warned(rank_optimizers(rows, "width", 0), "more than width")


def test_published_values_differ_between_families_and_within_none():
    name = "adamw:preset=paper"
    rows = [
        *of_suite("mlp", 16, ("base",), {name: [1.0], "b": [2.0]}),
        *of_suite("vit", 16, ("base",), {name: [1.0]}, settings={"learning_rate": 0.3}),
        *of_suite("vit", 16, ("base",), {"b": [2.0]}),
    ]
    assert not warned(rank_optimizers(rows, resamples=0), "not the same")
    other = of_suite("vit", 64, ("xl",), {name: [1.0], "b": [2.0]}, settings={"learning_rate": 9.0})
    assert warned(rank_optimizers([*rows, *other], resamples=0), "not the same", "0.3, 9.0")
    named = [dataclasses.replace(row, optimizer=f"x{row.optimizer}s") for row in rows]
    assert warned(rank_optimizers(named, resamples=0), "not the same"), "others are to be the same"
