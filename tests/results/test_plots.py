"""Pictures: refused before anything is computed, or drawn with every line in its place."""

import dataclasses
import math
import sys

import numpy as np
import pytest

from mulo_cli.errors import OutputError, UsageError
from mulo_cli.results.coordinate_networks import tabulated
from mulo_cli.results.coordinates import check_coordinates
from mulo_cli.results.plots import (
    MOST_PANELS,
    draw_coordinates,
    drawn_layers,
    plot_coordinates,
    prepare_plot,
)
from tests.results.coordinate_worlds import deep, layer, record

pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")

WIDTHS, STEPS = (8, 16, 32), 5


def check(exponent: float, blown_up: bool = False):
    """Return a check of two layers; the logits go with width^exponent."""
    still = dataclasses.replace(
        layer(1, {}, steps=STEPS), change_std=(0.0, *(float(t) for t in range(1, STEPS)))
    )
    records = [
        record(
            width,
            seed,
            {
                "input": still,
                "logits": dataclasses.replace(
                    still, change_std=((1.0 + seed) * width**exponent,) * STEPS
                ),
            },
            steps=STEPS,
        )
        for width in WIDTHS
        for seed in range(3)
    ]
    if blown_up:
        bad = dataclasses.replace(still, change_std=(1.0, 2.0, math.inf, None, None))
        records[-1] = dataclasses.replace(records[-1], layers={**records[-1].layers, "logits": bad})
    return check_coordinates(records)


def title(panel) -> str:
    return panel.get_title().splitlines()[0]


def test_there_is_a_panel_per_optimizer_and_layer_and_a_line_per_width():
    figure = draw_coordinates([check(0.0), check(2.0)])
    panels = np.array(figure.axes).reshape(2, 2)
    assert [[title(panel) for panel in row] for row in panels] == [
        ["input", "logits"],
        ["input", "logits ◀"],
    ]
    for panel in panels.flat:
        assert [line.get_label() for line in panel.lines] == ["8", "16", "32"]
        assert len({line.get_color() for line in panel.lines}) == len(WIDTHS)
    assert "slope +2.00 ± 0.00: grows" in panels[1, 1].get_title()
    assert "stable" in panels[0, 1].get_title()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["8", "16", "32"]


def test_above_its_panels_stands_what_a_check_says():
    figure = draw_coordinates([check(0.0), check(2.0)])
    told = [part.get_suptitle() for part in figure.subfigs]
    assert told[0] == "muadam (mup): pass"
    assert told[1].startswith("muadam (mup): fail · logits: what logits puts out grows like n^2.0")


def test_the_layers_of_a_deep_network_go_on_in_the_next_line():
    """Nine panels: two lines of five, of which the last has an empty place."""
    names = [f"blocks_{number}" for number in range(8)]
    checks = [
        check_coordinates(
            [
                record(w, seed, {name: layer(w, {}) for name in (*names, "logits")})
                for w in WIDTHS
                for seed in range(3)
            ]
        )
        for _ in range(2)
    ]
    figure = draw_coordinates(checks)
    assert [title(panel) for panel in figure.axes] == [*names, "logits"] * 2
    assert {panel.get_subplotspec().colspan.start for panel in figure.axes} == set(range(5))
    lowest = [panel for panel in figure.axes if panel.get_xlabel()]
    assert len(lowest) == 10, "every column says what its axis is"


def test_of_a_very_deep_network_some_layers_stand_for_all_and_the_named_one_is_among_them():
    names = [f"layer_{number}" for number in range(40)]
    powers = {"layer_17": {"size": 1.0}}
    of_all = check_coordinates(
        [
            record(w, seed, {n: layer(w, powers.get(n, {})) for n in (*names, "logits")})
            for w in WIDTHS
            for seed in range(3)
        ]
    )
    drawn = [title(panel) for panel in draw_coordinates([of_all]).axes]
    assert len(drawn) <= MOST_PANELS
    assert (drawn[0], drawn[-1]) == ("layer_0", "logits")
    assert "layer_17 ◀" in drawn


def test_a_size_has_one_colour_and_a_place_in_the_legend_whatever_some_checks_left_out():
    all_sizes = check(0.0)
    fewer = check_coordinates([one for one in check(2.0).records if one.width > WIDTHS[0]])
    figure = draw_coordinates([fewer, all_sizes])
    drawn = {(line.get_label(), line.get_color()) for p in figure.axes for line in p.lines}
    assert len(drawn) == len(WIDTHS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["8", "16", "32"]


def test_many_checks_may_name_as_many_layers_as_there_are_panels():
    names = [f"layer_{number}" for number in range(40)]
    checks = [
        check_coordinates(
            [
                record(w, s, {n: layer(w, {"size": float(n == bad)}) for n in (*names, "logits")})
                for w in WIDTHS
                for s in range(3)
            ]
        )
        for bad in names[1 : MOST_PANELS + 1]
    ]
    for number in (MOST_PANELS - 1, MOST_PANELS):
        drawn = drawn_layers(checks[:number], tabulated(checks[0].records))
        assert {*names[: number + 1], "logits"} == set(drawn)


def test_depths_are_drawn_by_position_with_a_line_per_depth():
    records = [deep(depth, seed) for depth in (2, 4, 8) for seed in range(3)]
    figure = draw_coordinates([check_coordinates(records)])
    assert "blocks[last]" in [title(panel) for panel in figure.axes]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["2", "4", "8"]
    assert figure.legends[0].get_title().get_text() == "depth"


def test_a_line_is_the_geometric_mean_over_seeds_with_a_gap_where_nothing_moved():
    figure = draw_coordinates([check(1.0)])
    of_input, of_logits = figure.axes
    steps, sizes = of_input.lines[0].get_data()
    np.testing.assert_array_equal(steps, [1, 2, 3, 4, 5])
    np.testing.assert_allclose(sizes, [math.nan, 1, 2, 3, 4])
    np.testing.assert_allclose(of_logits.lines[1].get_ydata(), 16 * 6 ** (1 / 3))


def test_means_are_drawn_relative_to_the_first_step_with_their_sign():
    trace = dataclasses.replace(layer(8, {}, steps=3), mean=(9.0, 2.0, -1.0, 4.0))
    told = check_coordinates(
        [record(w, s, {"logits": trace}, steps=3) for w in WIDTHS for s in range(3)]
    )
    (panel,) = draw_coordinates([told], "mean").axes
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [1.0, -0.5, 2.0])


def test_sizes_are_drawn_from_before_training_on():
    (panel, *_) = draw_coordinates([check(0.0)], "size").axes
    np.testing.assert_array_equal(panel.lines[0].get_xdata(), range(STEPS + 1))


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
