"""Sums in one pass are as exact as those of jax, however long an axis is."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.learned_optimizers import reductions
from mulo_cli.learned_optimizers.reductions import sums

RELATIVE = 1e-6
"""Of float32; a million numbers added one after another are 4e-4 off."""

SHAPES = [(1_000_000,), (4, 250_000), (3, 3, 128, 256), (16, 50_257), (300_007,), (100_000, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_float64(shape):
    generator = np.random.default_rng(0)
    arrays = [np.square(generator.standard_normal(shape), dtype=np.float32) for _ in range(2)]
    found = jax.jit(lambda *given: sums(given))(*arrays)
    expected = [array.sum(dtype=np.float64) for array in arrays]
    np.testing.assert_allclose(found, expected, rtol=RELATIVE)


@pytest.mark.parametrize("shape", [(1,), (7,), (13,), (3, 29), (2, 3, 16), (0, 4), (31, 1)])
def test_parts_and_rests_leave_nothing_out(monkeypatch, shape):
    monkeypatch.setattr(reductions, "LONGEST", 8)
    monkeypatch.setattr(reductions, "SHORTEST", 3)
    array = jnp.arange(1.0, math.prod(shape) + 1).reshape(shape)
    total = float(array.sum())
    np.testing.assert_array_equal(sums([array, 2 * array]), [total, 2 * total])
