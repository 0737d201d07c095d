"""The multi-layer perceptron of the muLO papers.

muLO (Therien et al., 2025), sections 4 and 5.1: `depth` hidden layers of one width, ReLU, then the
readout: depth + 1 weight matrices, of which depth - 1 are hidden in the sense of muP.
"""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from mulo_cli.mup.initializers import truncated_fan_in, unit_normal, zeros
from mulo_cli.mup.modules import Parametrization, last_layer
from mulo_cli.optimizees.precision import dot_general_in
from mulo_cli.optimizees.stacking import repeat

STACKED_FROM = 8
"""Depth from which hidden layers are stacked; below, a loop costs more time than it saves."""


class MLP(nn.Module):
    """A ReLU network under muP or standard parametrization (SP).

    Attributes:
        width: units `D` of every hidden layer.
        depth: number of hidden layers.
        num_classes: number of outputs `C`.
        parametrization: under SP weights are truncated normal, biases zero.
        readout: how the readout starts under muP, `zeros` or `normal`; empty: the usual way.
        input_mult: multiplies the first pre-activation (1 in every published muLO); may be traced.
        output_mult: multiplies the logits (1 in every published muLO); may be traced.
        stacked: whether hidden layers are kept in one array per leaf; None: in deep networks.
        matmul_precision: of matrix products: `float32`, or `bfloat16` for rounded factors.
    """

    width: int
    depth: int
    num_classes: int
    parametrization: Parametrization = "mup"
    readout: str = ""
    input_mult: float | Float[Array, ""] = 1.0
    output_mult: float | Float[Array, ""] = 1.0
    stacked: bool | None = None
    matmul_precision: str = "float32"

    @property
    def mup(self) -> bool:
        """Whether it is parametrized by muP, in either form of the readout."""
        return self.parametrization != "sp"

    @nn.compact
    def __call__(self, x: Float[Array, "B *shape"]) -> Float[Array, "B C"]:
        """Map a batch of inputs to logits."""
        z_BxD = self.input_mult * self._dense(self.width, "input")(x.reshape(x.shape[0], -1))
        x_BxD = repeat(
            lambda name: self._dense(self.width, name),
            jax.nn.relu(z_BxD),
            self.depth - 1,
            "hidden",
            stacked=self.depth >= STACKED_FROM if self.stacked is None else self.stacked,
            after=jax.nn.relu,
        )
        readout = last_layer(
            self.num_classes,
            self.parametrization,
            self.readout,
            standard=truncated_fan_in,
            dot_general=dot_general_in(self.matmul_precision),
        )
        return self.output_mult * readout(x_BxD)

    def _dense(self, features: int, name: str) -> nn.Dense:
        bias_init = unit_normal if self.mup else zeros
        return nn.Dense(
            features,
            kernel_init=truncated_fan_in,
            bias_init=bias_init,
            dot_general=dot_general_in(self.matmul_precision),
            name=name,
        )
