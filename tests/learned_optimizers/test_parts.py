"""Tensors are cut where statistics and blocks want it, and not at all without a mesh."""

import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from mulo_cli.learned_optimizers.parts import NARROW, SMALLEST, part_axis, part_spec
from tests.learned_optimizers.architectures import NAMES, make
from tests.learned_optimizers.draws import role

SHAPES = {
    "square": ((512, 512), 0),
    "wide: not its last axis": ((64, 4096), 0),
    "only its last axis can be cut evenly": ((103, 512), 1),
    "neither can": ((103, 511), None),
    "layers": ((12, 512, 2048), 1),
    "three momenta": ((3, 512, 512), 1),
    "heads": ((8, 64, 512), 1),
    "vector": ((100_000,), None),
    "three momenta of a vector": ((3, 100_000), None),
    "moments of rows": ((3, 100_000, 1), None),
    "small": ((32, 32), None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_widest_axis_but_the_last_is_cut(name):
    shape, axis = SHAPES[name]
    assert part_axis(shape, 4) == (None if axis is None else axis - len(shape))


@given(st.lists(st.integers(1, 300), max_size=4), st.integers(1, 16))
def test_parts_are_equal_and_worth_it(shape, count):
    axis = part_axis(shape, count)
    assert axis is None or (axis < 0 and count > 1)
    if axis is not None:
        assert shape[axis] % count == 0
        assert shape[axis] >= NARROW
        assert math.prod(shape) >= SMALLEST


def test_arrays_of_one_tensor_are_cut_alike():
    axis = part_axis((512, 2048), 4)
    assert part_spec((512, 2048), axis) == PartitionSpec("parts")
    assert part_spec((3, 512, 2048), axis) == PartitionSpec(None, "parts")
    assert part_spec((3, 512, 1), axis) == PartitionSpec(None, "parts")
    assert part_spec((3, 1, 2048), axis) == PartitionSpec()


@pytest.mark.parametrize("name", NAMES)
def test_without_a_mesh_an_update_knows_of_no_parts(name):
    learned = make(name, hidden_size=32)
    params = jnp.zeros((128, 128))
    theta = jax.eval_shape(learned.init, jax.random.key(0))

    def update(theta, params):
        made = learned.build(theta, role(128), jnp.int32(10))
        return made.update(params, made.init(params), params, loss=jnp.float32(1))

    assert "shard_map" not in str(jax.make_jaxpr(update)(theta, params))
