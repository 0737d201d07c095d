"""The decoder-only transformer language model of the muLO papers' tasks.

Sizes: muLO (B. Therien et al., 2025), Table 10: 3 or 16 pre-norm blocks, learned positions.
"""

import functools

import flax.linen as nn
from jaxtyping import Array, Float, Int

from mulo_cli.mup.modules import Readout
from mulo_cli.optimizees.stacking import repeat
from mulo_cli.optimizees.transformer import MUP, SP, Block, Scheme


class TransformerLM(nn.Module):
    """A language model under muP or standard parametrization (SP).

    Attributes:
        width: features `D` of each position.
        depth: number of blocks.
        num_classes: the vocabulary's size `C`.
        mup: whether it is parametrized by muP.
        heads: attention heads, a divisor of the width.
        ffn_multiple: hidden units of each block's two-layer network, in widths.
        stacked: whether the parameters of all blocks are kept in one array per leaf.
    """

    width: int
    depth: int
    num_classes: int
    mup: bool = True
    heads: int = 1
    ffn_multiple: int = 4
    stacked: bool = True

    @property
    def scheme(self) -> Scheme:
        """How its parameters are drawn."""
        return MUP if self.mup else SP

    @property
    def branch_multiplier(self) -> float:
        """What each branch is multiplied by before it is added to the stream."""
        return 1.0

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        """Map tokens to the logits of each position's next one."""
        scheme = self.scheme
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
            branch_multiplier=self.branch_multiplier,
        )
        x = repeat(
            lambda name: block(name=name),
            embed(tokens) + positions,
            self.depth,
            "blocks",
            stacked=self.stacked,
        )
        x = nn.LayerNorm(name="norm")(x)
        if self.mup:
            return Readout(self.num_classes, name="readout")(x)
        return nn.Dense(self.num_classes, kernel_init=scheme.weight, name="readout")(x)
