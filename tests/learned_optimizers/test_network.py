"""The network over elements: two ways to run it, and which is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.learned_optimizers import network as network_module
from mulo_cli.learned_optimizers.features import FeatureGroup, norms_of, sums_of_squares
from mulo_cli.learned_optimizers.network import Network, network_outputs
from tests.learned_optimizers.draws import float32

INPUTS = 5


def drawn_network(generator: np.random.Generator, units: int) -> Network:
    shapes = ((INPUTS, units), (units,), (units, units), (units,), (units, 2), (2,))
    return Network(*(jnp.asarray(float32(generator.standard_normal(s))) for s in shapes))


def groups_of(values, reduced):
    """Return groups whose rows are not in order, and the second of which is reduced."""
    return (FeatureGroup((4, 0, 2), values), FeatureGroup((3, 1), reduced))


def outputs(network, values, reduced):
    groups = groups_of(values, reduced)
    return jnp.stack(network_outputs(network, groups, norms_of(groups, sums_of_squares(groups))))


def drawn_inputs(generator: np.random.Generator, shape):
    values = jnp.asarray(float32(generator.standard_normal((3, *shape))))
    reduced = jnp.asarray(float32(generator.standard_normal((2, 1, *shape[1:]))))
    return values, reduced


@pytest.mark.parametrize("shape", [(1200,), (30, 40), (3, 20, 20)])
@pytest.mark.parametrize("way", ["arithmetic", "products"])
def test_both_ways_compute_the_network_of_normalised_features(monkeypatch, shape, way):
    monkeypatch.setattr(network_module, "ARITHMETIC_ELEMENTS", {"arithmetic": 1}.get(way, 10**9))
    generator = np.random.default_rng(7)
    network, (values, reduced) = drawn_network(generator, 8), drawn_inputs(generator, shape)
    found = jax.jit(lambda *given: outputs(*given))(network, values, reduced)

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
    ("shape", "units", "way"),
    [
        ((1000,), 4, "_by_arithmetic"),
        ((25, 40), 16, "_by_arithmetic"),
        ((999,), 4, "_by_products"),
        ((27, 37), 16, "_by_products"),
        ((25, 40), 17, "_by_products"),
        ((1000, 1000), 32, "_by_products"),
    ],
)
def test_arithmetic_is_for_large_tensors_and_small_networks(monkeypatch, shape, units, way):
    taken = []

    def spy_on(name: str):
        original = getattr(network_module, name)

        def spy(*given):
            taken.append(name)
            return original(*given)

        monkeypatch.setattr(network_module, name, spy)

    spy_on("_by_arithmetic")
    spy_on("_by_products")
    network = drawn_network(np.random.default_rng(0), units)
    values = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    reduced = jax.ShapeDtypeStruct((2, 1, *shape[1:]), jnp.float32)
    found = jax.eval_shape(outputs, network, values, reduced)
    assert taken == [way]
    assert found.shape == (2, *shape)
