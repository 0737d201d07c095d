"""The decoder-only transformer language model of the muLO papers' tasks.

Sizes: muLO (B. Therien et al., 2025), Table 10: 3 or 16 pre-norm blocks, learned positions.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Float, Int

from mulo_cli.mup.modules import Parametrization, last_layer
from mulo_cli.optimizees.depth import block_multipliers, branch_multiplier
from mulo_cli.optimizees.precision import dot_general_in
from mulo_cli.optimizees.stacking import repeat
from mulo_cli.optimizees.transformer import MUP, SP, Block, Scheme


class TransformerLM(nn.Module):
    """A language model under muP or standard parametrization (SP).

    Attributes:
        width: features `D` of each position.
        depth: number of blocks.
        num_classes: the vocabulary's size `C`.
        parametrization: of its weights, its attention and its readout.
        heads: attention heads, a divisor of the width.
        ffn_multiple: hidden units of each block's two-layer network, in widths.
        stacked: whether the parameters of all blocks are kept in one array per leaf.
        depth_power: alpha of depth scaling: each branch is multiplied by depth^-alpha; at 1/2 the
            blocks' updates are, too (under muP). 0 is none.
        readout: how the readout starts under muP, `zeros` or `normal`; empty: the usual way.
        input_mult: multiplies what the first block reads; may be traced.
        output_mult: multiplies the logits; may be traced.
        matmul_precision: of matrix products: `float32`, or `bfloat16` for rounded factors.
    """

    width: int
    depth: int
    num_classes: int
    parametrization: Parametrization = "mup"
    heads: int = 1
    ffn_multiple: int = 4
    stacked: bool = True
    depth_power: float = 0.0
    readout: str = ""
    input_mult: float | Float[Array, ""] = 1.0
    output_mult: float | Float[Array, ""] = 1.0
    matmul_precision: str = "float32"

    @property
    def mup(self) -> bool:
        """Whether it is parametrized by muP, in either form of the readout."""
        return self.parametrization != "sp"

    @property
    def scheme(self) -> Scheme:
        """How its parameters are drawn."""
        return MUP if self.mup else SP

    @property
    def update_multipliers(self) -> Mapping[str, float]:
        """Factors on the updates of some parts of the network, by name, beside muP's own."""
        return block_multipliers(self.depth, self.depth_power) if self.mup else {}

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        """Map tokens to the logits of each position's next one."""
        scheme, dot_general = self.scheme, dot_general_in(self.matmul_precision)
        embed = nn.Embed(
            self.num_classes, self.width, embedding_init=scheme.embedding, name="embed"
        )
        positions = self.param("positions", scheme.positions, (tokens.shape[1], self.width))
        block = functools.partial(
            Block,
            heads=self.heads,
            ffn_multiple=self.ffn_multiple,
            causal=True,
            scheme=scheme,
            branch_multiplier=branch_multiplier(self.depth, self.depth_power),
            dot_general=dot_general,
        )
        x = repeat(
            lambda name: block(name=name),
            self.input_mult * (embed(tokens) + positions),
            self.depth,
            "blocks",
            stacked=self.stacked,
        )
        x = nn.LayerNorm(name="norm")(x)
        readout = last_layer(
            self.num_classes,
            self.parametrization,
            self.readout,
            standard=scheme.weight,
            dot_general=dot_general,
        )
        return self.output_mult * readout(x)
