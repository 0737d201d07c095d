"""Pictures: refused before anything is computed, or drawn with every line in its place."""

import math
import sys

import numpy as np
import pytest

from mulo_cli.errors import OutputError, UsageError
from mulo_cli.results.coordinates import check_coordinates
from mulo_cli.results.plots import draw_coordinates, plot_coordinates, prepare_plot
from tests.results.test_coordinates import record

pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")

WIDTHS, STEPS = (8, 16, 32), 5


def check(exponent: float, blown_up: bool = False):
    """Return a check of two layers; the logits go with width^exponent."""
    records = [
        record(
            width,
            seed,
            {
                "input": (0.0, *(float(t) for t in range(1, STEPS))),
                "logits": tuple((1.0 + seed) * width**exponent for _ in range(STEPS)),
            },
        )
        for width in WIDTHS
        for seed in range(3)
    ]
    if blown_up:
        records[-1].change["logits"] = (1.0, 2.0, math.inf, math.nan, math.nan)
    return check_coordinates(records)


def test_there_is_a_panel_per_optimizer_and_layer_and_a_line_per_width():
    figure = draw_coordinates([check(0.0), check(2.0)])
    panels = np.array(figure.axes).reshape(2, 2)
    for row in panels:
        assert [panel.get_title().splitlines()[0] for panel in row] == ["input", "logits"]
        for panel in row:
            assert [line.get_label() for line in panel.lines] == ["8", "16", "32"]
            assert len({line.get_color() for line in panel.lines}) == len(WIDTHS)
    assert "slope +2.00 ± 0.00: grows" in panels[1, 1].get_title()
    assert "stable" in panels[0, 1].get_title()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["8", "16", "32"]


def test_the_layers_of_a_deep_network_go_on_in_the_next_line():
    """Nineteen panels: three lines of seven, of which the last has two empty places."""
    names = [f"blocks_{number}" for number in range(19)]
    changes = {name: tuple(float(t + 1) for t in range(STEPS)) for name in names}
    checks = [
        check_coordinates([record(w, seed, changes) for w in WIDTHS for seed in range(3)])
        for _ in range(2)
    ]
    figure = draw_coordinates(checks)
    titles = [panel.get_title().splitlines()[0] for panel in figure.axes]
    assert titles == [*names, *names]
    assert {panel.get_subplotspec().colspan.start for panel in figure.axes} == set(range(7))
    assert len({panel.get_subplotspec().rowspan.start for panel in figure.axes}) == 6


def test_a_line_is_the_geometric_mean_over_seeds_with_a_gap_where_nothing_moved():
    figure = draw_coordinates([check(1.0)])
    of_input, of_logits = figure.axes
    steps, sizes = of_input.lines[0].get_data()
    np.testing.assert_array_equal(steps, [1, 2, 3, 4, 5])
    np.testing.assert_allclose(sizes, [math.nan, 1, 2, 3, 4])
    np.testing.assert_allclose(of_logits.lines[1].get_ydata(), 16 * 6 ** (1 / 3))


def test_an_axis_is_logarithmic_where_changes_span_orders_of_magnitude():
    figure = draw_coordinates([check(0.0), check(3.0)])
    assert [panel.get_yscale() for panel in figure.axes] == ["linear", "linear", "linear", "log"]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_a_picture_is_written_even_of_a_network_that_blew_up(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    plot_coordinates([check(0.0, blown_up=True)], path)
    beginning = path.read_bytes()[:200]
    assert b"PNG" in beginning or b"<?xml" in beginning
    assert list(tmp_path.iterdir()) == [path], "no draft stays"


def test_an_unknown_kind_of_picture_is_refused(tmp_path):
    for name in ("picture.jpg", "picture", ".png"):
        with pytest.raises(UsageError) as refused:
            prepare_plot(tmp_path / name)
        assert ".svg" in refused.value.hint


def test_without_matplotlib_the_hint_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError) as refused:
        prepare_plot(tmp_path / "picture.png")
    assert refused.value.hint == "pip install 'mulo-cli[plot]'"


def test_a_place_where_nothing_can_be_written_is_found_out_beforehand(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for place in (tmp_path / "nowhere" / "picture.png", tmp_path / "folder.png"):
        with pytest.raises(OutputError) as refused:
            prepare_plot(place)
        assert str(place) in refused.value.message


def test_looking_whether_a_picture_can_be_written_changes_nothing(tmp_path):
    prepare_plot(tmp_path / "new.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.png").write_bytes(b"old")
    prepare_plot(tmp_path / "old.png")
    assert (tmp_path / "old.png").read_bytes() == b"old"
