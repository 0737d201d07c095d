"""The network over elements: two ways to run it, and which is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.learned_optimizers.features import FeatureGroup, norms_of
from mulo_cli.learned_optimizers.network import Network, is_arithmetic, network_outputs
from tests.learned_optimizers.draws import float32

INPUTS = 5


def drawn_network(generator: np.random.Generator, units: int) -> Network:
    shapes = ((INPUTS, units), (units,), (units, units), (units,), (units, 2), (2,))
    return Network(*(jnp.asarray(float32(generator.standard_normal(s))) for s in shapes))


def outputs(network, values, reduced, *, arithmetic):
    """Run it on groups whose rows are not in order, and the second of which is reduced."""
    groups = (FeatureGroup((4, 0, 2), tuple(values)), FeatureGroup((3, 1), tuple(reduced)))
    return jnp.stack(network_outputs(network, groups, norms_of(groups), arithmetic=arithmetic))


def drawn_inputs(generator: np.random.Generator, shape):
    values = jnp.asarray(float32(generator.standard_normal((3, *shape))))
    reduced = jnp.asarray(float32(generator.standard_normal((2, 1, *shape[1:]))))
    return values, reduced


@pytest.mark.parametrize("shape", [(1200,), (30, 40), (3, 20, 20)])
@pytest.mark.parametrize("arithmetic", [True, False])
def test_both_ways_compute_the_network_of_normalised_features(shape, arithmetic):
    generator = np.random.default_rng(7)
    network, (values, reduced) = drawn_network(generator, 8), drawn_inputs(generator, shape)
    found = jax.jit(lambda *given: outputs(*given, arithmetic=arithmetic))(network, values, reduced)

    w0, b0, w1, b1, w2, b2 = (np.asarray(x, np.float64) for x in network)
    features = np.zeros((INPUTS, *shape))
    features[[4, 0, 2]], features[[3, 1]] = values, reduced
    mean_squares = (features**2).mean(axis=tuple(range(1, features.ndim)), keepdims=True)
    x = np.moveaxis(features / np.sqrt(1e-5 + mean_squares), 0, -1)
    hidden = np.maximum(np.maximum(x @ w0 + b0, 0) @ w1 + b1, 0)
    expected = np.moveaxis(hidden @ w2 + b2, -1, 0)
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "units", "expected"),
    [
        ((16,), 4, True),
        ((4, 4), 8, True),
        ((15,), 4, False),
        ((3, 5), 8, False),
        ((4, 4), 9, False),
        ((1000, 1000), 32, False),
    ],
)
def test_arithmetic_is_for_small_networks_and_all_but_tiny_tensors(shape, units, expected):
    network = drawn_network(np.random.default_rng(0), units)
    assert is_arithmetic(network, shape) == expected
