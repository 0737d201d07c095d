"""What the MLP promises besides: the published draws, and its multipliers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.mup.initializers import TRUNCATION
from mulo_cli.optimizees.mlp import STACKED_FROM
from tests.optimizees.networks import apply, build, by_name, inputs_of, start

TRUNCATED_STD = 0.8796
"""True deviation of a standard normal that is cut at two."""

SPREAD = 0.05
"""Five standard errors of the deviation of 5 000 numbers; the smallest kernel has 2 560, drawn
from a cut normal, whose deviation is half as uncertain."""

ROUNDING = 1e-5
"""Sums of a few hundred float32 numbers of size one, in another order."""


@pytest.mark.parametrize("mup", [True, False], ids=["mup", "sp"])
def test_weights_are_normal_of_size_one_over_root_fan_in_cut_at_two_deviations(mup):
    for leaf, kernel in by_name(start("mlp", mup, width=256)[1]).items():
        if not leaf.endswith("kernel") or (mup and leaf == "readout/kernel"):
            continue
        scaled = kernel * kernel.shape[0] ** 0.5
        assert scaled.std() == pytest.approx(TRUNCATED_STD, rel=SPREAD), leaf
        assert abs(scaled.mean()) < SPREAD, leaf
        assert TRUNCATION - 0.05 < np.abs(scaled).max() <= TRUNCATION * (1 + 1e-6), leaf


def test_multipliers_of_one_change_nothing_and_others_act_on_their_layer():
    network, params = start("mlp")
    params = jax.tree.map(lambda p: p + 0.1, params)
    inputs = inputs_of("mlp")
    plain = apply(network, params, inputs)
    twice = apply(network.clone(output_mult=2.0), params, inputs)
    np.testing.assert_array_equal(twice, 2.0 * plain)
    silent = apply(network.clone(input_mult=0.0), params, inputs)
    assert float(jnp.std(plain, axis=0).min()) > 100 * ROUNDING
    assert float(jnp.std(silent, axis=0).max()) < ROUNDING, "no example is seen any more"


@pytest.mark.parametrize("depth", [STACKED_FROM - 1, STACKED_FROM])
def test_deep_networks_stack_their_hidden_layers_and_shallow_ones_do_not(depth):
    assert build("mlp", depth=depth).stacked is None
    leaves = by_name(start("mlp", depth=depth)[1])
    assert ("hidden/kernel" in leaves) == (depth >= STACKED_FROM)
    assert ("hidden_0/kernel" in leaves) == (depth < STACKED_FROM)
