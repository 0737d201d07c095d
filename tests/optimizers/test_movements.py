"""Coordinate checks of every hand-designed optimizer, tensor by tensor: flat under muP, else not.

By default SGD on the MLP; all on both networks, and the paper's LAMB, by `-m slow`.
"""

import jax
import pytest

from mulo_cli.optimizers.catalogue import OPTIMIZERS
from tests.optimizers.movements import slopes

RATES = {"sgd": 0.1}
RATE = 0.03

FLAT = 0.2
"""Of a slope under muP at widths 32 to 256: less than half of 1/2, the smallest power that a wrong
factor gives, and three standard errors of the noisiest, SGD's."""

STEEP = 0.35
"""Of the steepest slope under SP."""

LATE = ("blocks/attention/query", "blocks/attention/key")
"""Random attention is hardly seen by the loss, the less the wider: until values are aligned with
what the loss wants, gradients of queries and keys are smaller than 1/n, and SGD moves by them."""

SLOW = pytest.mark.slow
NAMES = sorted(set(OPTIMIZERS) - {"adam", "muadam"})
"""Those two are AdamW without decay."""

EVERY = [(network, name) for network in ("mlp", "gpt") for name in NAMES]
BY_DEFAULT = ("mlp", "sgd")
"""Other tests have Adam's rule (`tests/mup`), LAMB's factors and Muon's matrices (`test_rules`)."""


@pytest.fixture(scope="module", autouse=True)
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def steepest(network: str, name: str, **words):
    """Return the steepest slope of an optimizer whose epsilon does not leak; SGD's but for LATE."""
    rate = RATES.get(name, RATE)
    small = {"eps": 1e-15} if "eps" in OPTIMIZERS[name].defaults else {}
    settings = {"learning_rate": rate, **small, **words}
    told = ",".join(f"{key}={value}" for key, value in settings.items())
    found = slopes(network, f"{name}:{told}")
    return (
        found[0] if name != "sgd" else next(one for one in found if not one.tensor.startswith(LATE))
    )


@pytest.mark.parametrize(
    ("network", "name"),
    [pytest.param(*one, marks=() if one == BY_DEFAULT else SLOW) for one in EVERY],
)
def test_under_mup_every_tensor_moves_equally_far_at_every_width(network, name):
    found = steepest(network, name, parametrization="mup")
    assert abs(found.power) < FLAT, found


@SLOW
@pytest.mark.parametrize(("network", "name"), EVERY)
def test_under_the_other_form_of_the_readout_too(network, name):
    found = steepest(network, name, parametrization="spectral")
    assert abs(found.power) < FLAT, found


@SLOW
@pytest.mark.parametrize(("network", "name"), EVERY)
def test_under_sp_some_tensor_does_not(network, name):
    found = steepest(network, name, parametrization="sp")
    assert abs(found.power) > STEEP, found


@SLOW
@pytest.mark.parametrize("network", ["mlp", "gpt"])
def test_under_the_papers_rule_lamb_moves_hidden_matrices_further_in_wider_networks(network):
    found = steepest(network, "lamb", parametrization="mup", rule="paper")
    assert found.power > STEEP
    assert found.tensor.endswith("kernel")
