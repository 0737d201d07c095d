"""Coordinate checks of every hand-designed optimizer, tensor by tensor: flat under muP, else not.

By default SGD on the MLP; all on both networks, and the paper's LAMB, by `-m slow`.
"""

import jax
import pytest

from mulo_cli.optimizers.catalogue import OPTIMIZERS
from tests.optimizers.movements import slopes

RATES = {"sgd": 0.1}
RATE = 0.03

FLAT = 0.1
"""A slope is not flat if it is beyond this by more than `ERRORS` standard errors."""

ERRORS = 2.0

STEEPEST = 0.2
"""Beyond this no error excuses: less than half of 1/2, the smallest power of a wrong factor."""

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


def movements(network: str, name: str, **words):
    """Return the slopes of an optimizer whose epsilon does not leak, the steepest first."""
    rate = RATES.get(name, RATE)
    small = {"eps": 1e-15} if "eps" in OPTIMIZERS[name].defaults else {}
    settings = {"learning_rate": rate, **small, **words}
    told = ",".join(f"{key}={value}" for key, value in settings.items())
    return slopes(network, f"{name}:{told}")


def not_flat(network: str, name: str, **words):
    """Return the slopes that are not flat; SGD's of LATE tensors may fall, they must not grow."""
    return [
        one
        for one in movements(network, name, **words)
        if (abs(one.power) - ERRORS * one.error > FLAT or abs(one.power) > STEEPEST)
        and not (name == "sgd" and one.tensor.startswith(LATE) and one.power < 0.0)
    ]


@pytest.mark.parametrize(
    ("network", "name"),
    [pytest.param(*one, marks=() if one == BY_DEFAULT else SLOW) for one in EVERY],
)
def test_under_mup_every_tensor_moves_equally_far_at_every_width(network, name):
    assert not not_flat(network, name, parametrization="mup")


@SLOW
@pytest.mark.parametrize(("network", "name"), EVERY)
def test_under_the_other_form_of_the_readout_too(network, name):
    assert not not_flat(network, name, parametrization="spectral")


@SLOW
@pytest.mark.parametrize(("network", "name"), EVERY)
def test_under_sp_some_tensor_does_not(network, name):
    found = movements(network, name, parametrization="sp")[0]
    assert abs(found.power) > STEEP, found


@SLOW
@pytest.mark.parametrize("network", ["mlp", "gpt"])
def test_under_the_papers_rule_lamb_moves_hidden_matrices_further_in_wider_networks(network):
    found = movements(network, "lamb", parametrization="mup", rule="paper")[0]
    assert found.power > STEEP
    assert found.tensor.endswith("kernel")
