"""The character-level GPT of the spectral muP paper.

The network of A. Karpathy's nanoGPT (2022), with the sizes of Tables 3 and 4 of the paper on muP
across optimizers by spectral conditions (`docs/explanation/networks.md`): two heads, biases, depth
8 and widths 128 to 2048, or width 256 and depths 2 to 64. Queries, keys and values are three
matrices here, and the readout is not tied to the embedding: under muP it starts at zero.
"""

from mulo_cli.mup.initializers import normal, zeros
from mulo_cli.optimizees.transformer import MUP, Scheme
from mulo_cli.optimizees.transformer_lm import TransformerLM

NANOGPT_STD = 0.02
"""nanoGPT draws every weight with this standard deviation, at every width."""


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
    """The language model with two heads and, under SP, nanoGPT's initialisation.

    Attributes:
        heads: attention heads, a divisor of the width.
    """

    heads: int = 2

    @property
    def scheme(self) -> Scheme:
        """How its parameters are drawn."""
        return MUP if self.mup else nanogpt_scheme(self.depth)
