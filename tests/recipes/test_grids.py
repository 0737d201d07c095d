"""Grids: the papers' have the papers' size, and a file of one's own is read or refused."""

import itertools
import math

import pytest

from mulo_cli.errors import RecipeError
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.optimizers.presets import PRESETS
from mulo_cli.recipes.grids import LIBRARY, Grid, known_grids, load_grid
from mulo_cli.tasks.base import MULTIPLIERS


def written(tmp_path, text: str) -> str:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("optimizer", "name", "sizes"),
    [
        ("adamw", "paper", {"learning_rate": 14, "b1": 3, "b2": 3, "weight_decay": 4}),
        ("muadam", "paper", {"learning_rate": 32, "b1": 4, "b2": 4}),
        (
            "muadam",
            "paper-v2",
            {"learning_rate": 4, "input_mult": 5, "output_mult": 5, "hidden_lr_mult": 5},
        ),
        ("adamw", "paper-v2", {"learning_rate": 14, "b1": 3, "b2": 3, "weight_decay": 4}),
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


TABLE_6 = """1e-6 1.56e-6 2.44e-6 3.81e-6 5.95e-6 9.28e-6 1.45e-5 2.26e-5 3.53e-5 5.52e-5 8.62e-5
1.35e-4 2.10e-4 3.28e-4 5.12e-4 8.00e-4 1.25e-3 1.95e-3 3.05e-3 4.76e-3 7.43e-3 1.16e-2 1.81e-2
2.83e-2 4.42e-2 6.90e-2 1.08e-1 1.68e-1 2.63e-1 4.10e-1 6.40e-1 1"""
TABLE_8 = """0.1 4.92e-2 2.42e-2 1.19e-2 5.88e-3 2.89e-3 1.43e-3 7.02e-4 3.46e-4 1.70e-4 8.38e-5
4.12e-5 2.03e-5 1.00e-5"""


def test_every_number_is_that_of_the_table():
    """muLO, version 4, Tables 6 and 8; version 2, B.1: copied from the papers once more."""

    def numbers(text: str) -> tuple[float, ...]:
        return tuple(map(float, text.split()))

    powers = tuple(2.0**power for power in (-4, -2, 0, 2, 4))
    assert load_grid("paper", "muadam").values == {
        "learning_rate": numbers(TABLE_6),
        "b1": (0.85, 0.9, 0.95, 0.99),
        "b2": (0.9, 0.95, 0.99, 0.999),
    }
    assert load_grid("paper", "adamw").values == {
        "learning_rate": numbers(TABLE_8),
        "b1": (0.9, 0.95, 0.99),
        "b2": (0.95, 0.99, 0.999),
        "weight_decay": (0.1, 0.01, 0.001, 0.0001),
    }
    assert load_grid("paper-v2", "muadam").values == {
        "learning_rate": (0.1, 0.01, 0.001, 0.0001),
        "input_mult": powers,
        "output_mult": powers,
        "hidden_lr_mult": powers,
    }


SPECTRAL = {
    ("adamw", "widths"): (0.2, 0.02, 0.002, 0.0002, 0.00002),
    ("adamw", "depths"): (0.2, 0.05, 0.02, 0.002, 0.0002, 0.00002),
    ("adopt", "widths"): (0.2, 0.07, 0.02, 0.002, 0.0002, 0.00002),
    ("adopt", "depths"): (0.2, 0.09, 0.02, 0.002, 0.0002, 0.00002),
    ("sophia", "widths"): (0.2, 0.02, 0.002, 0.0002, 0.00002),
    ("sophia", "depths"): (0.2, 0.02, 0.002, 0.0002, 0.00002),
    ("lamb", "widths"): (0.2, 0.02, 0.002, 0.0002, 0.00002),
    ("lamb", "depths"): (0.2, 0.02, 0.007, 0.002, 0.0002, 0.00002),
}
"""First columns of the spectral paper's Tables 5 to 20."""


@pytest.mark.parametrize(("optimizer", "axis"), SPECTRAL)
def test_lists_for_transfer_are_those_of_the_papers_tables(optimizer, axis):
    grid = load_grid(f"paper-{axis}", optimizer)
    assert grid.values == {"learning_rate": SPECTRAL[optimizer, axis]}
    if axis == "widths" and optimizer != "adamw":
        assert load_grid("paper", optimizer) == grid


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_grid_varies_hyper_parameters_that_its_optimizer_has(optimizer):
    entry = OPTIMIZERS[optimizer]
    known = {*entry.defaults, *entry.optional, *MULTIPLIERS}
    for name in known_grids(optimizer):
        assert load_grid(name, optimizer).values.keys() <= known
    assert len(load_grid("small", optimizer).configurations()) == 32
    assert len(load_grid("rates", optimizer).configurations()) == 15


def test_every_file_of_the_library_belongs_to_an_optimizer_or_to_all():
    for path in LIBRARY.glob("*.toml"):
        owner, dash, _ = path.stem.partition("-")
        assert owner in OPTIMIZERS or not dash


def test_the_papers_best_values_lie_on_their_grids():
    """Table 7 prints 0.044173 for 4.42e-2 and 0.1473, which is on none: a slip of the table's."""
    for optimizer, name in (("adamw", "paper"), ("muadam", "paper-v2")):
        values = load_grid(name, optimizer).values
        prefix = f"{name}/"
        for preset, best in PRESETS[optimizer].items():
            if preset.startswith(prefix):
                assert all(number in values[key] for key, number in best.items()), preset


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
