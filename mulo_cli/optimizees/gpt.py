"""The character-level GPT of the spectral muP paper.

The network of A. Karpathy's nanoGPT (2022), with the sizes of Tables 3 and 4 of the paper on muP
across optimizers by spectral conditions (`docs/explanation/networks.md`): two heads, biases, depth
8 and widths 128 to 2048, or width 256 and depths 2 to 64. Queries, keys and values are three
matrices here, and the readout is not tied to the embedding: under muP it starts at zero.
"""

from collections.abc import Mapping

from mulo_cli.errors import UsageError
from mulo_cli.mup.initializers import normal, zeros
from mulo_cli.optimizees.transformer import MUP, Scheme
from mulo_cli.optimizees.transformer_lm import TransformerLM

NANOGPT_STD = 0.02
"""nanoGPT draws every weight with this standard deviation, at every width."""

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


class GPT(TransformerLM):
    """The language model with nanoGPT's initialisation under SP, and depth scaling as an option.

    Attributes:
        heads: attention heads, a divisor of the width.
        depth_power: alpha of depth scaling: each branch is multiplied by depth^-alpha; at 1/2 the
            blocks' updates are, too (muP only). 0 is none.
    """

    heads: int = 2
    depth_power: float = 0.0

    @property
    def scheme(self) -> Scheme:
        """How its parameters are drawn."""
        return MUP if self.mup else nanogpt_scheme(self.depth)

    @property
    def branch_multiplier(self) -> float:
        """What each branch is multiplied by before it is added to the stream.

        Raises:
            UsageError: the paper has no depth scaling of this power.
        """
        if self.depth_power not in DEPTH_POWERS:
            raise UsageError(
                f"depth_power={self.depth_power:g} is unknown",
                f"known are: {', '.join(f'{power:g}' for power in DEPTH_POWERS)}",
            )
        return self.depth**-self.depth_power

    @property
    def update_multipliers(self) -> Mapping[str, float]:
        """Factors on the updates of some parts of the network, by name, beside muP's own."""
        if self.mup and self.depth_power == 0.5:
            return {"blocks": self.depth**-0.5}
        return {}
