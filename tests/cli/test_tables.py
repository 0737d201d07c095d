"""Tables tell the truth at a glance: the best is starred, what diverged is counted."""

import io
import math

import pytest
from rich.console import Console

from mulo_cli.cli.tables import duration, evaluation_table, mean_and_error, with_unit
from mulo_cli.results.records import EvaluationRow
from tests.results.evaluation_rows import evaluation_row, rows_of


def shown(rows: list[EvaluationRow], step: int | None = None) -> list[str]:
    """Return the table's lines as a person without colours sees them; of the last step, if none."""
    screen = io.StringIO()
    table = evaluation_table(rows, step or rows[0].at[-1])
    Console(file=screen, width=120, color_system=None).print(table)
    return screen.getvalue().splitlines()


def cells(rows: list[EvaluationRow], optimizer: str, step: int | None = None) -> list[str]:
    """Return the cells of one optimizer, without its name."""
    (line,) = [line for line in shown(rows, step) if line.startswith(f"│ {optimizer} ")]
    return [cell.strip() for cell in line.strip("│").split("│")][1:]


def test_the_best_of_each_width_is_starred_and_no_other():
    rows = [
        *rows_of({"a": [0.5, 0.5], "b": [0.4, 0.4]}, width=8),
        *rows_of({"a": [0.2, 0.2], "b": [0.3, 0.3]}, width=16),
    ]
    assert cells(rows, "a") == ["0.500 ± 0.000", "0.200 ± 0.000 *"]
    assert cells(rows, "b") == ["0.400 ± 0.000 *", "0.300 ± 0.000"]


def test_there_is_a_column_for_each_width_and_a_table_for_each_step():
    rows = [
        evaluation_row(name, {100: early, 500: late}, width=width)
        for width in (16, 8)
        for name, early, late in (("a", 3.0, 1.0), ("b", 2.0, 1.5))
    ]
    assert cells(rows, "a", 100) == ["3.000", "3.000"]
    assert cells(rows, "a", 500) == ["1.000 *", "1.000 *"]
    assert cells(rows, "b", 100) == ["2.000 *", "2.000 *"]
    heading = "\n".join(shown(rows)[:6])
    assert heading.index("width 8") < heading.index("width 16")


def test_one_diverged_seed_is_not_averaged_away():
    rows = rows_of({"a": [0.1, None], "b": [0.9]})
    assert cells(rows, "a") == ["diverged 1/2"]
    assert cells(rows, "b") == ["0.900 *"]


def test_what_a_run_reached_before_it_diverged_is_shown():
    rows = [evaluation_row("a", {100: 0.25, 500: None})]
    assert cells(rows, "a", 100) == ["0.250 *"]
    assert cells(rows, "a", 500) == ["diverged 1/1"]


def test_nothing_is_best_where_all_diverged():
    assert not any("*" in cell for cell in cells(rows_of({"a": [None], "b": [None]}), "a"))


def test_what_was_not_trained_is_a_dash():
    rows = [*rows_of({"a": [0.5], "b": [0.4]}, width=8), *rows_of({"a": [0.2]}, width=16)]
    assert cells(rows, "b") == ["0.400 *", "-"]


def test_a_loss_beyond_all_hope_is_not_told_to_the_third_decimal():
    rows = rows_of({"a": [1_234_567.0, 1_234_567.0], "b": [999.9994]})
    assert cells(rows, "a") == ["1.23e+06 ± 0.000"]
    assert cells(rows, "b") == ["999.999 *"]


def test_equal_losses_are_both_best():
    rows = rows_of({"a": [0.5], "b": [0.5]})
    assert cells(rows, "a") == cells(rows, "b") == ["0.500 *"]


def test_the_title_says_what_is_averaged():
    title = " ".join(" ".join(shown(rows_of({"a": [0.5]}, window=17))[:2]).split())
    assert "training loss (nats)" in title
    assert "mean of steps 484..500" in title


def test_the_standard_error_is_the_population_deviation_over_root_n():
    losses = [1.0, 2.0, 3.0, 6.0]
    mean, error = mean_and_error(losses)
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx(math.sqrt(3.5) / 2)
    assert cells(rows_of({"a": losses}), "a") == ["3.000 ± 0.935 *"]


@pytest.mark.parametrize("losses", [[], [None], [1.0, None], [None, 1.0]])
def test_there_is_no_mean_of_nothing_and_none_over_diverged_runs(losses):
    assert mean_and_error(losses) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.5, "0.5"), (999, "999"), (1_234_567, "1.23 M"), (8.9e17, "890 P"), (5e30, "5e+12 E")],
)
def test_large_numbers_have_three_digits_and_a_unit(number, text):
    assert with_unit(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (119, "119 s"), (150, "2.5 min"), (7_200, "2 h"), (1e6, "11.6 days")],
)
def test_times_are_in_the_unit_people_would_use(seconds, text):
    assert duration(seconds) == text
