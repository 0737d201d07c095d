"""Tables tell the truth at a glance: the best is starred, what diverged is counted."""

import io

import pytest
from rich.console import Console

from mulo_cli.cli.tables import duration, evaluation_table, mean_and_error, with_unit
from mulo_cli.results.records import EvaluationRow


def row(optimizer: str, width: int, loss: float | None, seed: int = 0) -> EvaluationRow:
    return EvaluationRow(
        optimizer=optimizer,
        parametrization="mup",
        task="mlp",
        dataset="digits",
        real=True,
        width=width,
        depth=3,
        batch_size=64,
        seed=seed,
        steps=500,
        window=50,
        smoothed_loss=loss,
        status="diverged" if loss is None else "ok",
        diverged_at=7 if loss is None else None,
        test_accuracy=None,
        curve_every=10,
        curve=(),
        seconds_per_step=1e-3,
        code_version="0",
    )


def shown(rows: list[EvaluationRow]) -> list[str]:
    """Return the table's lines as a person without colours sees them."""
    screen = io.StringIO()
    Console(file=screen, width=120, color_system=None).print(evaluation_table(rows))
    return screen.getvalue().splitlines()


def test_the_best_of_each_width_is_starred_and_no_other():
    lines = shown([row("a", 8, 0.5), row("b", 8, 0.4), row("a", 16, 0.2), row("b", 16, 0.3)])
    of_a = next(line for line in lines if "a " in line and "│" in line)
    of_b = next(line for line in lines if "b " in line and "│" in line)
    assert "0.2000 ± 0.0000 *" in of_a
    assert "0.4000 ± 0.0000 *" in of_b
    assert of_a.count("*") == of_b.count("*") == 1


def test_one_diverged_seed_is_not_averaged_away():
    lines = shown([row("a", 8, 0.1, 0), row("a", 8, None, 1), row("b", 8, 0.9)])
    assert any("diverged 1/2" in line for line in lines)
    assert any("0.9000 ± 0.0000 *" in line for line in lines)


def test_the_standard_error_is_the_population_deviation_over_root_n():
    rows = [row("a", 8, loss, seed) for seed, loss in enumerate((1.0, 2.0, 3.0, 6.0))]
    mean, error = mean_and_error(rows)
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx((3.5**0.5) / 2)


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
