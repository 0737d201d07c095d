"""Presets are the papers' tables, typed here a second time."""

import pytest

from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.optimizers.presets import PRESETS
from mulo_cli.tasks.base import MULTIPLIERS

MUADAM_TABLE_7 = """
lm1b-transformer-lm  0.1077    0.85  0.999
imagenet32-vit       0.044173  0.85  0.999
imagenet32-mlp       0.044173  0.85  0.999
imagenet64-mlp       0.028289  0.85  0.99
cifar10-mlp          0.1473    0.9   0.95
"""
"""muLO, version 4, Table 7: task, learning rate, beta_1, beta_2."""

ADAMW_TABLE_9 = """
lm1b-transformer-lm  0.000702  0.9  0.99   0.001
imagenet32-vit       0.000170  0.9  0.999  0.01
imagenet32-mlp       0.000702  0.9  0.999  0.01
imagenet64-mlp       0.000702  0.9  0.99   0.001
cifar10-mlp          0.00289   0.9  0.95   0.0001
"""
"""The same, Table 9: task, learning rate, beta_1, beta_2, decay."""

ADAMW_TABLE_5_OF_VERSION_2 = "imagenet32-mlp 0.000702 0.9 0.95 0.0001"

MUADAM_TABLE_3_OF_VERSION_2 = "imagenet32-mlp 0.1 0.25 0.25 4"
"""Task, learning rate, multipliers of input, output and the hidden rate."""

MULTIPLIED = ("learning_rate", "input_mult", "output_mult", "hidden_lr_mult")

COLUMNS = ("learning_rate", "b1", "b2", "weight_decay")


def read(table: str, prefix: str, columns=COLUMNS) -> dict[str, dict[str, float]]:
    """Return a table by the names that presets have."""
    rows = [line.split() for line in table.strip().splitlines()]
    return {
        f"{prefix}/{task}": dict(zip(columns, map(float, values), strict=False))
        for task, *values in rows
    }


EXPECTED = {
    "muadam": read(MUADAM_TABLE_7, "paper")
    | read(MUADAM_TABLE_3_OF_VERSION_2, "paper-v2", MULTIPLIED),
    "adamw": read(ADAMW_TABLE_9, "paper") | read(ADAMW_TABLE_5_OF_VERSION_2, "paper-v2"),
}


def test_presets_are_those_of_optimizers_on_the_shelf():
    assert PRESETS.keys() <= OPTIMIZERS.keys()


@pytest.mark.parametrize("optimizer", sorted(PRESETS))
def test_presets_are_what_the_papers_print(optimizer):
    found = {name: dict(values) for name, values in PRESETS[optimizer].items()}
    assert found == EXPECTED.get(optimizer, {})


@pytest.mark.parametrize("optimizer", sorted(PRESETS))
def test_a_preset_sets_only_what_its_optimizer_has(optimizer):
    for name, values in PRESETS[optimizer].items():
        entry = OPTIMIZERS[optimizer]
        assert values.keys() <= {*entry.defaults, *entry.optional, *MULTIPLIERS}, name
        assert "learning_rate" in values
