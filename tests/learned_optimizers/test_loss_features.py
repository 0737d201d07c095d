"""VeLO's features of the loss, held against the oracle in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.learned_optimizers.loss_features import (
    init_loss_buffer,
    loss_features,
    update_loss_buffer,
)
from tests.learned_optimizers import velo_reference

TOLERANCE = 5e-4
"""c - min cancels in float32."""

LOSSES = 20


@jax.jit
def features_of(losses, horizon):
    """Return the features after each loss."""

    def step(buffer, loss):
        buffer = update_loss_buffer(buffer, loss, horizon)
        return buffer, loss_features(buffer, horizon)

    return jax.lax.scan(step, init_loss_buffer(), losses)


def found(losses, horizon: int):
    return features_of(np.asarray(losses, np.float32), jnp.float32(horizon))


def drawn_losses(seed: int, kind: str, scale: float) -> np.ndarray:
    """Return losses that differ by a tenth or more: nothing is a difference of near equals."""
    generator = np.random.default_rng(seed)
    losses = scale * (1.0 + generator.random(LOSSES))
    if kind == "falling":
        losses *= 0.9 ** np.arange(LOSSES)
    if kind == "spikes":
        losses *= np.where(generator.random(LOSSES) < 0.2, 1e6, 1.0)
    if kind == "negative":
        losses *= np.where(generator.random(LOSSES) < 0.5, -1.0, 1.0)
    if kind == "not finite":
        values = generator.choice([np.nan, np.inf, -np.inf], LOSSES)
        losses = np.where(generator.random(LOSSES) < 0.3, values, losses)
    return losses.astype(np.float32)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["level", "falling", "spikes", "negative", "not finite"]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    horizon=st.sampled_from([20, 100, 1_000, 25_000]),
)
def test_features_are_those_of_the_published_formulas(seed, kind, scale, horizon):
    losses = drawn_losses(seed, kind, scale)
    _, features = found(losses, horizon)
    expected = np.stack(velo_reference.loss_features(losses.tolist(), horizon))
    sure = is_sure(losses, horizon)
    np.testing.assert_allclose(features[sure], expected[sure], rtol=0, atol=TOLERANCE)
    assert sure.mean() > 0.5


def is_sure(losses, horizon: int) -> np.ndarray:
    """Tell the features whose denominator is no difference of near equals: (losses, 9)."""
    buffer, sure = velo_reference.empty_loss_buffer(horizon), []
    for loss in losses.tolist():
        buffer = velo_reference.update_loss_buffer(buffer, loss)
        if buffer.count < 3:
            sure.append(np.ones(9, bool))
            continue
        c = velo_reference.corrected_means(buffer)
        sure.append(c[1:] - buffer.minima[:-1] > 2e-3 * np.abs(c).max())
    return np.stack(sure)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_leaves_the_buffer_as_it_is(value):
    losses = drawn_losses(0, "falling", 1.0)
    spoiled = np.insert(losses, [0, 5, 5, 19], value)
    buffer, features = found(spoiled, 100)
    expected, clean = found(losses, 100)
    jax.tree.map(np.testing.assert_array_equal, buffer, expected)
    np.testing.assert_array_equal(features[np.isfinite(spoiled)], clean)
    assert int(buffer.seen) == LOSSES


def test_features_are_zero_for_two_updates_and_within_one_after_them():
    _, features = found(drawn_losses(1, "spikes", 1.0), 100)
    assert not np.asarray(features[:2]).any()
    assert np.asarray(features[2:]).any(axis=1).all()
    assert float(jnp.abs(features).max()) <= 1.0


def test_a_spike_counts_at_most_twice_the_largest_average():
    losses = np.array([2.0, 2.0, 2.0, 2.0, 0.0], np.float32)
    ends = []
    for spike in (1e3, 1e30):
        losses[-1] = spike
        ends.append(found(losses, 100)[0])
    jax.tree.map(np.testing.assert_array_equal, *ends)
    losses[-1] = 1.5  # no spike
    assert not np.array_equal(found(losses, 100)[0].means, ends[0].means)


def test_features_know_differences_only_and_not_the_scale_of_the_loss():
    losses = drawn_losses(2, "falling", 1.0)
    _, expected = found(losses, 100)
    _, features = found(64.0 * losses, 100)  # a power of two: exact
    np.testing.assert_allclose(features, expected, rtol=0, atol=TOLERANCE)


def test_a_horizon_of_ten_is_finite():
    """Google's: all averages are as fast as the fastest."""
    buffer, features = found(drawn_losses(3, "level", 1.0), 10)
    assert bool(jnp.isfinite(features).all())
    np.testing.assert_allclose(buffer.means, buffer.means[0], rtol=1e-5)
