"""Targets that say what is to be done: recipes, suites, grids, references, launchers' variables."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mulo_cli.assembly.datasets import find_dataset
from mulo_cli.datasets.prepared import data_folder
from mulo_cli.processes import LAUNCHERS, place_of
from mulo_cli.recipes import grids, loading, suite_file
from mulo_cli.recipes.grids import load_grid
from mulo_cli.recipes.loading import load_recipe, to_toml
from mulo_cli.recipes.references import (
    is_user_function,
    parse_named,
    parse_optimizer,
    parse_steps,
    parse_user_function,
    parse_widths,
)
from mulo_cli.recipes.suites import load_suite, select, with_length
from tests.fuzz.harness import Finding, Target
from tests.fuzz.mutations import NUMBERS, TEXTS, TOML_VALUES, mutated_toml


def _library(folder: Any) -> list[str]:
    files = sorted(path for path in folder.iterdir() if path.name.endswith(".toml"))
    return [path.read_text("utf-8") for path in files]


WHOLE = to_toml(load_recipe("multi-width"))

RENAMED = [text.replace('name = "', 'name = "my-', 1) for text in _library(suite_file.LIBRARY)]
"""Suites that ship, under names of their own."""


def _recipe(content: bytes, folder: Path) -> None:
    """A recipe that was read can be written, and is the same when it is read again."""
    path = folder / "recipe.toml"
    path.write_bytes(content)
    recipe = load_recipe(str(path))
    path.write_text(to_toml(recipe), "utf-8")
    if load_recipe(str(path)) != recipe:
        raise Finding("recipe: another one when it is read again")


def _overridden(overrides: list[str], folder: Path) -> None:
    del folder
    load_recipe("multi-width", overrides=overrides)


def _suite(content: bytes, folder: Path) -> None:
    path = folder / "suite.toml"
    path.write_bytes(content)
    suite = load_suite(str(path))
    for task in select(suite, []):
        with_length(task, 5, None)


def _grid(content: bytes, folder: Path) -> None:
    path = folder / "grid.toml"
    path.write_bytes(content)
    grid = load_grid(str(path), "adamw")
    if all(len(values) < 20 for values in grid.values.values()):
        grid.on_border(grid.configurations()[0])


def _reference(text: str, folder: Path) -> None:
    """Every spelling, of which each may refuse."""
    del folder
    for parse in (_widths, _steps, parse_named, parse_optimizer, _function, _dataset):
        _allow_refusal(parse, text)


def _allow_refusal(parse: Any, text: str) -> None:
    from mulo_cli.errors import MuloError

    try:
        parse(text)
    except MuloError:
        return


def _widths(text: str) -> Any:
    return parse_widths(text)


def _steps(text: str) -> Any:
    return parse_steps(text, "--at")


def _function(text: str) -> Any:
    return is_user_function(text) and parse_user_function(text)


def _dataset(text: str) -> Any:
    return find_dataset(parse_named(text).name)


def _launcher(told: dict[str, str], folder: Path) -> None:
    del folder
    place_of(None, None, told)


def _data_folder(said: str, folder: Path) -> None:
    import pytest

    del folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULO_DATA_DIR", said)
        data_folder()


ODD_NUMBERS = (*map(str, NUMBERS[:9]), "9" * 5_000, "x", "", "0x10", "1.5", "-3", "٣", "1 ", "²")

KEYS = st.sampled_from([*loading.known_keys(), "a.b", "", ".", "task", "task.widths.x"])

SPELLINGS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(TEXTS),
    st.lists(
        st.sampled_from(
            (
                "adamw",
                ":",
                "=",
                ",",
                "..",
                "x",
                "learning_rate",
                "1e-3",
                "tuned",
                "128",
                " ",
                "~",
                "/",
                "nan",
                "9" * 400,
                "width",
                "vit",
                "heads",
                "-",
                "\n",
                "synthetic/lm1b",
                "digits",
                "." * 50,
            )
        ),
        max_size=12,
    ).map("".join),
    st.sampled_from((":" + " " * 30_000, "a:" + "b" * 30_000, "," * 30_000, "1.." * 5_000)),
)

TARGETS = (
    Target("recipe file", mutated_toml([WHOLE, *_library(loading.LIBRARY)]), _recipe, 0.03),
    Target(
        "recipe --set",
        st.lists(
            st.tuples(KEYS, st.one_of(st.sampled_from(TOML_VALUES), st.text(max_size=12))).map(
                "=".join
            ),
            max_size=3,
        ),
        _overridden,
        0.02,
    ),
    Target("suite file", mutated_toml(RENAMED), _suite, 0.03),
    Target("grid file", mutated_toml(_library(grids.LIBRARY)), _grid, 0.01),
    Target("reference", SPELLINGS, _reference, 0.01),
    Target(
        "launcher's variables",
        st.dictionaries(
            st.sampled_from([name for one in LAUNCHERS for name in (one.index, one.count)]),
            st.one_of(st.sampled_from(ODD_NUMBERS), st.text(max_size=8)),
        ),
        _launcher,
    ),
    Target(
        "data folder",
        st.sampled_from([text for text in TEXTS if "\0" not in text and "\ud800" not in text]),
        _data_folder,
    ),
)
