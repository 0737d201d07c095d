"""The multi-layer perceptron of the muLO papers.

muLO (Therien et al., 2025), sections 4 and 5.1: `depth` hidden layers of one width, ReLU, then the
readout: depth + 1 weight matrices, of which depth - 1 are hidden in the sense of muP.
"""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from mulo_cli.mup.initializers import truncated_fan_in, unit_normal, zeros
from mulo_cli.mup.modules import Readout
from mulo_cli.optimizees.stacking import repeat

STACKED_FROM = 8
"""Depth from which hidden layers are stacked; below, a loop costs more time than it saves."""


class MLP(nn.Module):
    """A ReLU network under muP or standard parametrization (SP).

    Attributes:
        width: units `D` of every hidden layer.
        depth: number of hidden layers.
        num_classes: number of outputs `C`.
        mup: whether it is parametrized by muP (else SP: truncated normal weights, zero biases).
        input_mult: multiplies the first pre-activation (muP only; 1 in every published muLO).
        output_mult: multiplies the logits (muP only; 1 in every published muLO).
        stacked: whether hidden layers are kept in one array per leaf; None: in deep networks.
    """

    width: int
    depth: int
    num_classes: int
    mup: bool = True
    input_mult: float = 1.0
    output_mult: float = 1.0
    stacked: bool | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *shape"]) -> Float[Array, "B C"]:
        """Map a batch of inputs to logits."""
        z_BxD = self._dense(self.width, "input")(x.reshape(x.shape[0], -1))
        if self.mup:
            z_BxD = self.input_mult * z_BxD
        x_BxD = repeat(
            lambda name: self._dense(self.width, name),
            jax.nn.relu(z_BxD),
            self.depth - 1,
            "hidden",
            stacked=self.depth >= STACKED_FROM if self.stacked is None else self.stacked,
            after=jax.nn.relu,
        )
        if self.mup:
            return self.output_mult * Readout(self.num_classes, name="readout")(x_BxD)
        return self._dense(self.num_classes, "readout")(x_BxD)

    def _dense(self, features: int, name: str) -> nn.Dense:
        bias_init = unit_normal if self.mup else zeros
        return nn.Dense(features, kernel_init=truncated_fan_in, bias_init=bias_init, name=name)
