"""The character-level GPT of the spectral muP paper.

The network of A. Karpathy's nanoGPT (2022), with the sizes of Tables 3 and 4 of the paper on muP
across optimizers by spectral conditions (`docs/explanation/networks.md`): two heads, biases, depth
8 and widths 128 to 2048, or width 256 and depths 2 to 64. Queries, keys and values are three
matrices here, and the readout is not tied to the embedding: under muP it starts at zero.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Float, Int

from mulo_cli.errors import UsageError
from mulo_cli.mup.initializers import normal, zeros
from mulo_cli.mup.modules import Readout
from mulo_cli.optimizees.stacking import repeat
from mulo_cli.optimizees.transformer import MUP, Block, Scheme

NANOGPT_STD = 0.02
"""nanoGPT draws every weight with this standard deviation, at every width."""

FFN_MULTIPLE = 4
"""Hidden units of each block's two-layer network, in widths."""

DEPTH_POWERS = (0.0, 0.5, 1.0)


def nanogpt_scheme(depth: int) -> Scheme:
    """Return nanoGPT's own initialisation, which is standard parametrization (SP).

    What writes into the stream is drawn smaller, by the root of the number of branches.
    """
    return Scheme(
        weight=normal(NANOGPT_STD),
        projection=normal(NANOGPT_STD * (2 * depth) ** -0.5),
        bias=zeros,
        embedding=normal(NANOGPT_STD),
        positions=normal(NANOGPT_STD),
        attention_power=0.5,
    )


class GPT(nn.Module):
    """A GPT under muP or standard parametrization (SP), optionally with depth scaling.

    Attributes:
        width: features `D` of each position.
        depth: number of blocks.
        num_classes: the vocabulary's size `C`.
        mup: whether it is parametrized by muP.
        heads: attention heads, a divisor of the width.
        depth_power: alpha of depth scaling: each branch is multiplied by depth^-alpha; at 1/2 the
            blocks' updates are, too (muP only). 0 is none.
        stacked: whether the parameters of all blocks are kept in one array per leaf.
    """

    width: int
    depth: int
    num_classes: int
    mup: bool = True
    heads: int = 2
    depth_power: float = 0.0
    stacked: bool = True

    @property
    def update_multipliers(self) -> Mapping[str, float]:
        """Factors on the updates of some parts of the network, by name, beside muP's own."""
        if self.mup and self.depth_power == 0.5:
            return {"blocks": self.depth**-0.5}
        return {}

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        """Map tokens to the logits of each position's next one."""
        if self.depth_power not in DEPTH_POWERS:
            raise UsageError(
                f"depth_power={self.depth_power:g} is unknown",
                f"known are: {', '.join(f'{power:g}' for power in DEPTH_POWERS)}",
            )
        scheme = MUP if self.mup else nanogpt_scheme(self.depth)
        embed = nn.Embed(
            self.num_classes, self.width, embedding_init=scheme.embedding, name="embed"
        )
        positions = self.param("positions", scheme.positions, (tokens.shape[1], self.width))
        branch = self.depth**-self.depth_power
        block = functools.partial(
            Block,
            heads=self.heads,
            ffn_multiple=FFN_MULTIPLE,
            causal=True,
            scheme=scheme,
            branch_multiplier=branch,
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
