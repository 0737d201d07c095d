"""The multi-layer perceptron of the muLO papers.

muLO (Therien et al., 2025), sections 4 and 5.1: `depth` hidden layers of one width, ReLU, then the
readout: depth + 1 weight matrices, of which depth - 1 are hidden in the sense of muP.
"""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from mulo_cli.mup.initializers import truncated_fan_in, unit_normal, zeros
from mulo_cli.mup.modules import Readout


class MLP(nn.Module):
    """A ReLU network under muP or standard parametrization (SP).

    Attributes:
        width: units `D` of every hidden layer.
        depth: number of hidden layers.
        num_classes: number of outputs `C`.
        mup: whether it is parametrized by muP (else SP: truncated normal weights, zero biases).
        input_mult: multiplies the first pre-activation (muP only; 1 in every published muLO).
        output_mult: multiplies the logits (muP only; 1 in every published muLO).
    """

    width: int
    depth: int
    num_classes: int
    mup: bool = True
    input_mult: float = 1.0
    output_mult: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "B *shape"]) -> Float[Array, "B C"]:
        """Map a batch of inputs to logits."""
        x_BxD = x.reshape(x.shape[0], -1)
        for layer in range(self.depth):
            name = "input" if layer == 0 else f"hidden_{layer - 1}"
            z_BxD = self._dense(self.width, name)(x_BxD)
            if self.mup and layer == 0:
                z_BxD = self.input_mult * z_BxD
            x_BxD = jax.nn.relu(z_BxD)
        if self.mup:
            return self.output_mult * Readout(self.num_classes, name="readout")(x_BxD)
        return self._dense(self.num_classes, "readout")(x_BxD)

    def _dense(self, features: int, name: str) -> nn.Dense:
        bias_init = unit_normal if self.mup else zeros
        return nn.Dense(features, kernel_init=truncated_fan_in, bias_init=bias_init, name=name)
