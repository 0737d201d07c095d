"""flax modules that carry the forward half of the Maximal Update Parametrization."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
from flax.typing import DotGeneralT, Initializer
from jaxtyping import Array, Float

from mulo_cli.errors import UsageError
from mulo_cli.mup.initializers import inverse_fan_in_normal, unit_normal, zeros

Parametrization: TypeAlias = Literal["sp", "mup", "spectral"]
"""Standard; muP whose readout is divided by its fan-in; muP whose readout's update is."""


class Readout(nn.Module):
    """The last layer under muP: (x W + b) / fan_in.

    muLO (Therien et al., 2025), section 4: the multiplier acts on the whole pre-activation, bias
    included. W starts at zero (appendix C), b at N(0, 1).

    Attributes:
        features: number of outputs `C`, which does not grow with width.
        dot_general: how its product is done; None: as jax does it.
    """

    features: int
    kernel_init: nn.initializers.Initializer = zeros
    bias_init: nn.initializers.Initializer = unit_normal
    dot_general: DotGeneralT | None = None

    @nn.compact
    def __call__(self, x_BxD: Float[Array, "... D"]) -> Float[Array, "... C"]:
        """Map features to outputs."""
        fan_in = x_BxD.shape[-1]
        kernel_DxC = self.param("kernel", self.kernel_init, (fan_in, self.features))
        bias_C = self.param("bias", self.bias_init, (self.features,))
        dot_general = self.dot_general or jax.lax.dot_general
        by_features = (((x_BxD.ndim - 1,), (0,)), ((), ()))
        return (dot_general(x_BxD, kernel_DxC, by_features) + bias_C) / fan_in


STARTS: Mapping[str, Mapping[str, Initializer]] = {
    "mup": {"zeros": zeros, "normal": unit_normal},
    "spectral": {"normal": inverse_fan_in_normal, "zeros": zeros},
}
"""How a readout may start, by parametrization; the first is its own."""


def last_layer(
    features: int,
    parametrization: Parametrization,
    start: str,
    standard: Initializer,
    dot_general: DotGeneralT | None = None,
) -> nn.Module:
    """Return the layer called `readout` of a network under a parametrization.

    Args:
        features: number of outputs `C`.
        parametrization: of the network.
        start: `zeros` or `normal`; empty is the parametrization's own. SP has but one.
        standard: of the weights under SP.
        dot_general: how its product is done; None: as jax does it.

    Raises:
        UsageError: there is no such start.
    """
    starts = STARTS.get(parametrization, {})
    if start and start not in STARTS["mup"]:
        raise UsageError(f"readout={start} is unknown", f"known are: {', '.join(STARTS['mup'])}")
    if not starts:
        return nn.Dense(features, kernel_init=standard, dot_general=dot_general, name="readout")
    kernel_init = starts[start or next(iter(starts))]
    if parametrization == "spectral":
        return nn.Dense(features, kernel_init=kernel_init, dot_general=dot_general, name="readout")
    return Readout(features, kernel_init=kernel_init, dot_general=dot_general, name="readout")
