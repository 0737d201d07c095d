"""Pre-norm transformer blocks under muP and standard parametrization (SP).

A. Vaswani et al., *Attention is all you need* (2017); norms before each branch as in A. Radford et
al., *Language models are unsupervised multitask learners* (2019). muP: G. Yang et al., *Tensor
Programs V* (2022), Definition 4.1: attention logits are divided by the head size, not by its root.
"""

import functools
import math
from dataclasses import dataclass
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, Float

from mulo_cli.errors import UsageError
from mulo_cli.mup.initializers import fan_in_normal, normal, unit_normal, zeros
from mulo_cli.optimizees.precision import DotGeneral

POSITION_STD = 0.02
"""Standard deviation of learned positions at first, at every width."""

USUAL_HEAD_SIZE = 64

Heads: TypeAlias = Float[Array, "B L H d"]

QUERIES_BY_KEYS = (((3,), (3,)), ((0, 2), (0, 2)))
"""(B, L, H, d), (B, M, H, d) -> (B, H, L, M): what is summed, what is kept apart."""

WEIGHTS_BY_VALUES = (((3,), (1,)), ((0, 1), (0, 2)))
"""(B, H, L, M), (B, M, H, d) -> (B, H, L, d)."""

PUBLISHED_HEADS = {192: 3, 384: 6, 768: 8, 1024: 8, 2048: 16, 3072: 16}
"""Heads by width: muLO (Therien et al., 2025), Table 10. At depth 16 it prints 3 heads for width
1024, which they do not divide."""


@dataclass(frozen=True)
class Scheme:
    """How the parameters of a transformer are drawn, and how its attention is scaled.

    Attributes:
        weight: of every matrix that a branch reads the stream by.
        projection: of the matrices by which branches write into the stream.
        bias: of every bias.
        embedding: of the table of tokens (C, D).
        positions: of the table of positions (L, D).
        attention_power: attention logits are multiplied by head size to the minus this power.
    """

    weight: Initializer
    projection: Initializer
    bias: Initializer
    embedding: Initializer
    positions: Initializer
    attention_power: float


MUP = Scheme(
    weight=fan_in_normal,
    projection=fan_in_normal,
    bias=unit_normal,
    embedding=fan_in_normal,  # of a table, fan-in is the vocabulary: N(0, 1/C)
    positions=normal(POSITION_STD),
    attention_power=1.0,
)
"""muLO (Therien et al., 2025), section 4: a bias has fan-in 1."""

SP = Scheme(
    weight=fan_in_normal,
    projection=fan_in_normal,
    bias=zeros,
    embedding=fan_in_normal,
    positions=normal(POSITION_STD),
    attention_power=0.5,
)


def usual_heads(width: int) -> int:
    """Return the published number of heads, elsewhere the one that makes heads of about 64."""
    if width in PUBLISHED_HEADS:
        return PUBLISHED_HEADS[width]
    wanted = max(1, width // USUAL_HEAD_SIZE)
    return next(heads for heads in range(wanted, 0, -1) if width % heads == 0)


class Attention(nn.Module):
    """Self-attention of several heads.

    Attributes:
        heads: number `H`, divides the width.
        causal: whether a position sees only itself and what was before.
        scheme: how it is parametrized.
        dot_general: how matrix products are done; None: as jax does them.
    """

    heads: int
    causal: bool
    scheme: Scheme
    dot_general: DotGeneral | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Mix positions."""
        width = x.shape[-1]
        if width % self.heads:
            raise UsageError(
                f"heads={self.heads} does not divide the width {width}",
                f"give a divisor, for example heads={math.gcd(self.heads, width)}",
            )
        size = width // self.heads

        def heads_of(name: str) -> Heads:
            dense = self._dense(width, self.scheme.weight, name)
            return dense(x).reshape(*x.shape[:-1], self.heads, size)

        query, key, value = heads_of("query"), heads_of("key"), heads_of("value")
        scale = size**-self.scheme.attention_power
        mixed = self._attend(query, key, value, scale)
        self.sow("intermediates", "scores", scale * _aligned(query, key))
        return self._dense(width, self.scheme.projection, "out")(mixed.reshape(x.shape))

    def _attend(self, query: Heads, key: Heads, value: Heads, scale: float) -> Heads:
        """Return softmax(scale q k) v of every head."""
        if self.dot_general is None:
            return jax.nn.dot_product_attention(
                query, key, value, scale=scale, is_causal=self.causal
            )
        scores = scale * self.dot_general(query, key, QUERIES_BY_KEYS)
        if self.causal:
            seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
            scores = jnp.where(seen, scores, -jnp.inf)
        mixed = self.dot_general(jax.nn.softmax(scores), value, WEIGHTS_BY_VALUES)
        return mixed.swapaxes(1, 2)

    def _dense(self, width: int, kernel_init: Initializer, name: str) -> nn.Dense:
        return nn.Dense(
            width,
            kernel_init=kernel_init,
            bias_init=self.scheme.bias,
            dot_general=self.dot_general,
            name=name,
        )


def _aligned(query: Heads, key: Heads) -> Array:
    """Return what a position's query and key would score if they pointed the same way.

    To be looked at, by coordinate checks; no training differentiates it. muP divides by the head
    size because training aligns queries and keys; before that their products fall with it, whatever
    they are divided by, and tell less than what they can become.
    """
    query, key = jax.lax.stop_gradient((query, key))
    return jnp.linalg.norm(query, axis=-1) * jnp.linalg.norm(key, axis=-1)


class Block(nn.Module):
    """Attention, then a two-layer network, each a branch beside the stream that it is added to.

    Attributes:
        heads: of the attention.
        ffn_multiple: hidden units of the two-layer network, in widths.
        causal: of the attention.
        scheme: how it is parametrized.
        branch_multiplier: multiplies what each branch adds (depth scaling; else 1).
        dot_general: how matrix products are done; None: as jax does them.
    """

    heads: int
    ffn_multiple: int
    causal: bool
    scheme: Scheme
    branch_multiplier: float = 1.0
    dot_general: DotGeneral | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Add both branches to the stream."""
        width, scheme = x.shape[-1], self.scheme
        attention = Attention(self.heads, self.causal, scheme, self.dot_general, name="attention")
        x = x + self.branch_multiplier * attention(nn.LayerNorm(name="norm_1")(x))
        h = nn.LayerNorm(name="norm_2")(x)
        dense = functools.partial(nn.Dense, bias_init=scheme.bias, dot_general=self.dot_general)
        up = dense(self.ffn_multiple * width, kernel_init=scheme.weight, name="up")
        down = dense(width, kernel_init=scheme.projection, name="down")
        return x + self.branch_multiplier * down(jax.nn.gelu(up(h)))
