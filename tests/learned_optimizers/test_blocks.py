"""Large tensors are worked through in blocks, and nobody can tell from the result."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.learned_optimizers import blocks, network, tensor_update
from mulo_cli.learned_optimizers.blocks import blocks_of, map_over_blocks
from tests.learned_optimizers.architectures import NAMES, make, theta_of
from tests.learned_optimizers.draws import (
    UPDATES,
    by_tensor,
    drawn_gradients,
    drawn_params,
    role,
    runner,
)

SHAPES = {
    "vector": (120,),
    "vector with a rest": (131,),
    "wide": (5, 64),
    "wide with a rest": (3, 101),
    "tall": (64, 5),
    "tall with a rest": (101, 3),
    "square with a rest": (13, 13),
    "wider than a block": (2, 131),
    "3-D": (3, 5, 22),
    "3-D of the middle axis": (2, 67, 3),
    "4-D": (3, 3, 4, 7),
}

SMALL = {"LARGE": 100, "SMALLEST_BLOCK": 16, "LARGEST_BLOCK": 60}


@given(
    shape=st.lists(
        st.one_of(st.integers(1, 64), st.integers(1, 3_000), st.sampled_from([1, 50_257])),
        min_size=1,
        max_size=4,
    ).filter(lambda shape: math.prod(shape) < 2**31)
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_blocks_cover_the_axis_and_are_bounded(shape):
    cut, elements = blocks_of(tuple(shape)), math.prod(shape)
    if cut is None:
        assert elements <= blocks.LARGE
        return
    assert elements > blocks.LARGE
    length = shape[cut.axis]
    slab = elements // length
    assert cut.count * cut.size + cut.rest == length
    assert cut.count >= 1
    assert cut.size >= 1
    assert 0 <= cut.rest < max(cut.size, 1)
    if slab <= blocks.LARGEST_BLOCK:  # no axis can do with less than one slab
        wanted = max(elements // blocks.BLOCKS, blocks.SMALLEST_BLOCK)
        assert cut.size * slab <= max(min(wanted, blocks.LARGEST_BLOCK), slab)
        assert cut.count >= 2


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 128), None),
        ((128, 128), (-2, 32, 4, 0)),
        ((16_385,), (-1, 3_277, 5, 0)),
        ((1024, 1024), (-2, 16, 64, 0)),
        ((1_000_003,), (-1, 16_384, 61, 579)),
        ((4, 1_000_000), (-1, 4_000, 250, 0)),
    ],
)
def test_cuts_that_can_be_told_by_hand(shape, expected):
    found = blocks_of(shape)
    assert (None if found is None else tuple(found)) == expected


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_maps_over_blocks_are_those_of_the_whole(small_blocks, shape):
    cut = blocks_of(shape)
    assert cut is not None
    assert cut.count * cut.size + cut.rest == shape[cut.axis]
    slabs = jnp.arange(2.0 * math.prod(shape)).reshape(2, *shape) % 97
    plain = slabs[0] + 1.0
    along = jnp.ones(shape).sum(cut.axis, keepdims=True)  # not cut

    @jax.jit
    def mapped(*given):
        return map_over_blocks(lambda b: b[0][1] * b[1] * b[2], given, cut, shape)

    expected = slabs[1] * plain * shape[cut.axis]
    np.testing.assert_array_equal(mapped(slabs, plain, along), expected)


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut what has more than 100 elements into blocks of some 10 to 60."""
    for name, value in SMALL.items():
        monkeypatch.setattr(blocks, name, value)


def test_the_shapes_have_blocks_with_and_without_a_rest_along_two_axes(small_blocks):
    cuts = {name: blocks_of(shape) for name, shape in SHAPES.items()}
    assert {cut.axis for cut in cuts.values()} >= {-1, -2}
    assert any(cut.rest for cut in cuts.values())
    assert any(not cut.rest for cut in cuts.values())
    assert all(cut.count > 1 for cut in cuts.values())


UPDATED = ["vector with a rest", "wide", "tall with a rest", "3-D of the middle axis", "4-D"]
"""Shapes whose updates are compiled; cuts of the others are alike."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "velo" else ()) for name in NAMES]
)
def test_updates_in_blocks_are_those_of_the_whole(monkeypatch, name):
    shapes, generator = [SHAPES[shape] for shape in UPDATED], np.random.default_rng(0)
    learned, roles = make(name), [role(1)] * len(UPDATED)
    gradients = by_tensor(drawn_gradients(generator, shapes, 1.0))
    given = (theta_of(name), drawn_params(generator, shapes), gradients, jnp.ones(UPDATES))

    def updates():
        return runner(lambda theta: learned.build(theta, roles, jnp.int32(10)))(*given)[1]

    whole, taken = updates(), []
    for constant, value in SMALL.items():
        monkeypatch.setattr(blocks, constant, value)
    monkeypatch.setattr(network, "ARITHMETIC_UNITS", 0)  # which needs no blocks
    monkeypatch.setattr(tensor_update, "blocks_of", lambda s: taken.append(s) or blocks_of(s))
    assert not any(np.array_equal(update, jnp.zeros_like(update)) for update in whole)
    for found, expected in zip(updates(), whole, strict=True):
        # sums of squares in another order
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * scale)
    assert set(taken) == set(shapes)
