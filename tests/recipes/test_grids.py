"""Grids: the papers' have the papers' size, and a file of one's own is read or refused."""

import itertools
import math

import pytest

from mulo_cli.errors import RecipeError
from mulo_cli.recipes.grids import Grid, load_grid


def written(tmp_path, text: str) -> str:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("optimizer", "name", "sizes"),
    [
        ("adamw", "paper", {"learning_rate": 14, "b1": 3, "b2": 3, "weight_decay": 4}),
        ("muadam", "paper", {"learning_rate": 32, "b1": 4, "b2": 4}),
    ],
)
def test_the_papers_grids_have_the_papers_numbers_of_values(optimizer, name, sizes):
    grid = load_grid(name, optimizer)
    assert {key: len(values) for key, values in grid.values.items()} == sizes
    assert len(grid.configurations()) == math.prod(sizes.values())


@pytest.mark.parametrize(
    ("optimizer", "low", "high"), [("adamw", 1e-5, 0.1), ("muadam", 1e-6, 1.0)]
)
def test_the_papers_rates_are_evenly_spaced_on_a_log_scale(optimizer, low, high):
    """Tables 6 and 8 print three digits: neighbours' ratios agree to a percent of each other."""
    rates = sorted(load_grid("paper", optimizer).values["learning_rate"])
    assert (rates[0], rates[-1]) == (low, high)
    ratio = (high / low) ** (1 / (len(rates) - 1))
    for smaller, larger in itertools.pairwise(rates):
        assert larger / smaller == pytest.approx(ratio, rel=0.01)


def test_a_grid_is_the_product_of_its_lists_and_a_number_is_a_list_of_one(tmp_path):
    grid = load_grid(written(tmp_path, "learning_rate = [1e-3, 1e-2]\nb1 = 0.9\nb2 = [0.9, 1]"), "")
    assert grid.configurations() == [
        {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.9},
        {"learning_rate": 1e-3, "b1": 0.9, "b2": 1.0},
        {"learning_rate": 1e-2, "b1": 0.9, "b2": 0.9},
        {"learning_rate": 1e-2, "b1": 0.9, "b2": 1.0},
    ]


def test_the_border_is_told_of_lists_that_have_an_inside():
    grid = Grid({"learning_rate": (1.0, 2.0, 3.0), "b1": (0.9, 0.99), "b2": (0.9, 0.99, 0.999)})
    assert grid.on_border({"learning_rate": 3.0, "b1": 0.9, "b2": 0.99}) == ("learning_rate",)
    assert grid.on_border({"learning_rate": 2.0, "b1": 0.9, "b2": 0.9}) == ("b2",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate = []", "learning_rate = []"),
        ("learning_rate = ['fast']", "['fast']"),
        ("learning_rate = [true]", "[True]"),
        ("learning_rate = [inf]", "[inf]"),
        ("learning_rate = [nan]", "[nan]"),
        ("learning_rate = [1, 1.0]", "twice"),
        ("[learning_rate]\nlow = 1", "learning_rate"),
        ("", "no configurations"),
        ("learning_rate = [", "not TOML"),
        ("\n".join(f"k{i} = [{', '.join(map(str, range(10)))}]" for i in range(6)), "1000000"),
    ],
)
def test_what_is_not_lists_of_numbers_is_refused(tmp_path, text, said):
    with pytest.raises(RecipeError) as caught:
        load_grid(written(tmp_path, text), "adamw")
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("reference", ["papers", "nowhere.toml", "", "."])
def test_an_unknown_grid_is_refused(tmp_path, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_grid(reference, "adamw")
    assert repr(reference) in caught.value.message
    assert caught.value.hint


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not TOML"):
        load_grid(str(path), "adamw")
