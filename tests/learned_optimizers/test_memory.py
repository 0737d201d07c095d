"""An update is lean: temporaries of a few numbers per parameter, whatever features there are.

Compiled for shapes alone; nothing is executed.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from tests.learned_optimizers.architectures import NAMES, make
from tests.learned_optimizers.draws import role

MOST = 4.0
"""Floats of temporaries per parameter. Features and a network of 32 units in one piece are 100."""

NETWORKS = {
    "four of 512": [(512, 512)] * 4,
    "one of 1448": [(1448, 1448)],
    "odd": [(300, 311)],
    "vector": [(1_000_000,)],
    "convolution": [(3, 3, 256, 512)],
}

QUICK = [
    ("small_fc_lopt", 32, "four of 512", True),
    ("velo", 4, "convolution", True),
    ("velo", 32, "odd", False),
    ("small_fc_lopt", 4, "vector", False),
]

REST = [
    (name, hidden_size, network, donate)
    for name in NAMES
    for hidden_size in (4, 32)
    for network in NETWORKS
    for donate in (True, False)
    if (name, hidden_size, network, donate) not in QUICK
]


@pytest.fixture(scope="module", autouse=True)
def quick_programs():
    """Leave out tests' own: what is counted here is the memory of programs that users get."""


def temporaries(name: str, hidden_size: int, shapes: list[tuple[int, ...]], donate: bool) -> float:
    """Return the floats of temporaries per parameter of one compiled step."""
    learned = make(name, hidden_size=hidden_size)
    roles = [role(shape[0]) for shape in shapes]
    theta = jax.eval_shape(learned.init, jax.random.key(0))
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def build(theta):
        return learned.build(theta, roles, jnp.int32(1_000))

    def step(theta, gradients, state, params):
        updates, state = build(theta).update(gradients, state, params, loss=jnp.float32(1))
        return jax.tree.map(jnp.add, params, updates), state

    state = jax.eval_shape(lambda theta, params: build(theta).init(params), theta, params)
    jitted = jax.jit(step, donate_argnums=(2, 3) if donate else ())
    analysis = jitted.lower(theta, params, state, params).compile().memory_analysis()
    return analysis.temp_size_in_bytes / 4 / sum(math.prod(shape) for shape in shapes)


@pytest.mark.parametrize(("name", "hidden_size", "network", "donate"), QUICK)
def test_temporaries_are_few(name, hidden_size, network, donate):
    assert temporaries(name, hidden_size, NETWORKS[network], donate) < MOST


@pytest.mark.slow
@pytest.mark.parametrize(("name", "hidden_size", "network", "donate"), REST)
def test_temporaries_are_few_for_all_shapes_and_sizes(name, hidden_size, network, donate):
    assert temporaries(name, hidden_size, NETWORKS[network], donate) < MOST


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_temporaries_of_a_huge_matrix_are_few(name):
    assert temporaries(name, 32, [(8192, 8192)], donate=True) < MOST
