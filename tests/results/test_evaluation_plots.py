"""Pictures of an evaluation: a line per optimizer against width, a line per width in each panel."""

import numpy as np

from mulo_cli.results.evaluation_plots import draw_evaluation, plot_evaluation
from tests.results.evaluation_rows import evaluation_row

WIDTHS = (8, 32)


def rows():
    return [
        evaluation_row(
            name, loss * width, width=width, seed=seed, curve=(2.3, 1.0 + seed), curve_every=250
        )
        for name, loss in (("a", 0.01), ("b", 0.02))
        for width in WIDTHS
        for seed in range(3)
    ]


def test_the_first_panel_shows_mean_losses_against_width():
    against_width, *_ = draw_evaluation(rows()).axes
    lines = {c.get_label(): c.lines[0].get_xydata() for c in against_width.containers}
    np.testing.assert_allclose(lines["a"], [[8, 0.08], [32, 0.32]])
    np.testing.assert_allclose(lines["b"], [[8, 0.16], [32, 0.64]])


def test_every_optimizer_has_a_panel_with_the_mean_curve_of_each_width():
    _, of_a, of_b, *_ = draw_evaluation(rows()).axes
    for panel, name in ((of_a, "a"), (of_b, "b")):
        assert panel.get_title() == name
        assert [line.get_label() for line in panel.lines] == ["8", "32"]
        for line in panel.lines:
            np.testing.assert_allclose(line.get_xydata(), [[125, 2.3], [375, 2.0]])


def test_a_run_that_blows_up_or_diverges_does_not_squeeze_the_others():
    blown = evaluation_row("c", 1e9, width=8, curve=(2.3, 1e9), curve_every=250)
    diverged = evaluation_row("d", None, width=8, curve=(2.3, None), curve_every=250)
    for panel in draw_evaluation([*rows(), blown, diverged]).axes[:3]:
        low, high = panel.get_ylim()
        assert 0 < low < 1.0
        assert 2.3 < high < 100


def test_nothing_but_diverged_runs_is_drawn_without_complaint(tmp_path):
    picture = tmp_path / "empty.svg"
    plot_evaluation([evaluation_row("d", None, curve=(None,))], picture)
    assert picture.read_text("utf-8").startswith("<?xml")


def test_the_same_rows_give_the_same_axes_whatever_their_order():
    one, other = draw_evaluation(rows()), draw_evaluation(rows()[::-1])
    assert one.axes[0].get_ylim() == other.axes[0].get_ylim()
