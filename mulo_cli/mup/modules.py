"""flax modules that carry the forward half of the Maximal Update Parametrization."""

import flax.linen as nn
from jaxtyping import Array, Float

from mulo_cli.mup.initializers import unit_normal, zeros


class Readout(nn.Module):
    """The last layer under muP: (x W + b) / fan_in.

    muLO (Therien et al., 2025), section 4: the multiplier acts on the whole pre-activation, bias
    included. W starts at zero (appendix C), b at N(0, 1).

    Attributes:
        features: number of outputs `C`, which does not grow with width.
    """

    features: int
    kernel_init: nn.initializers.Initializer = zeros
    bias_init: nn.initializers.Initializer = unit_normal

    @nn.compact
    def __call__(self, x_BxD: Float[Array, "... D"]) -> Float[Array, "... C"]:
        """Map features to outputs."""
        fan_in = x_BxD.shape[-1]
        kernel_DxC = self.param("kernel", self.kernel_init, (fan_in, self.features))
        bias_C = self.param("bias", self.bias_init, (self.features,))
        return (x_BxD @ kernel_DxC + bias_C) / fan_in
