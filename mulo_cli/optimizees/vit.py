"""The vision transformer of the muLO papers' tasks.

A. Dosovitskiy et al., *An image is worth 16x16 words* (2021); sizes: muLO (Therien et al., 2025),
Table 10. The papers do not tell the size of a patch; ours leaves about 8 by 8 of them.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.errors import UsageError
from mulo_cli.mup.initializers import zeros
from mulo_cli.mup.modules import Parametrization, last_layer
from mulo_cli.optimizees.depth import block_multipliers, branch_multiplier
from mulo_cli.optimizees.precision import dot_general_in
from mulo_cli.optimizees.stacking import repeat
from mulo_cli.optimizees.transformer import MUP, SP, Block

PATCHES_PER_SIDE = 8
SMALLEST_PATCH = 2

POOLINGS = ("token", "mean")


class ViT(nn.Module):
    """A vision transformer under muP or standard parametrization (SP).

    Attributes:
        width: features `D` of each patch.
        depth: number of blocks.
        num_classes: number of outputs `C`.
        parametrization: of its weights, its attention and its readout.
        heads: attention heads, a divisor of the width.
        ffn_multiple: hidden units of each block's two-layer network, in widths.
        patch: side of a patch in pixels; 0 chooses one.
        pooling: `token`, a class token that starts at zero, or `mean` over patches.
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
    patch: int = 0
    pooling: str = "token"
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
    def update_multipliers(self) -> Mapping[str, float]:
        """Factors on the updates of some parts of the network, by name, beside muP's own."""
        return block_multipliers(self.depth, self.depth_power) if self.mup else {}

    @nn.compact
    def __call__(self, images: Float[Array, "B *shape"]) -> Float[Array, "B C"]:
        """Map images (rows, columns, and channels if there is more than one) to logits."""
        if self.pooling not in POOLINGS:
            raise UsageError(
                f"pooling={self.pooling} is unknown", f"known are: {', '.join(POOLINGS)}"
            )
        scheme, dot_general = MUP if self.mup else SP, dot_general_in(self.matmul_precision)
        embed = nn.Dense(
            self.width,
            kernel_init=scheme.weight,
            bias_init=scheme.bias,
            dot_general=dot_general,
            name="embed",
        )
        x = embed(cut_into_patches(images, self.patch))
        if self.pooling == "token":
            token = self.param("class_token", zeros, (self.width,))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
        x = x + self.param("positions", scheme.positions, x.shape[1:])
        block = functools.partial(
            Block,
            heads=self.heads,
            ffn_multiple=self.ffn_multiple,
            causal=False,
            scheme=scheme,
            branch_multiplier=branch_multiplier(self.depth, self.depth_power),
            dot_general=dot_general,
        )
        x = repeat(
            lambda name: block(name=name),
            self.input_mult * x,
            self.depth,
            "blocks",
            stacked=self.stacked,
        )
        x = nn.LayerNorm(name="norm")(x)
        pooled = x[:, 0] if self.pooling == "token" else jnp.mean(x, axis=1)
        readout = last_layer(
            self.num_classes,
            self.parametrization,
            self.readout,
            standard=scheme.weight,
            dot_general=dot_general,
        )
        return self.output_mult * readout(pooled)


def cut_into_patches(images: Float[Array, "B *shape"], patch: int) -> Float[Array, "B L P"]:
    """Cut images into square patches, row by row; a patch's pixels and channels are one axis.

    Raises:
        UsageError: these are not images, or patches of this size do not tile them.
    """
    if images.ndim not in (3, 4):
        raise UsageError(
            f"a vision transformer reads images, not examples of shape {images.shape[1:]}",
            "choose a data set of images",
        )
    rows, columns = images.shape[1:3]
    side = patch or usual_patch(rows, columns)
    if rows % side or columns % side:
        raise UsageError(
            f"patch={side} does not tile images of {rows} x {columns} pixels",
            "give a common divisor of both",
        )
    tiles = images.reshape(len(images), rows // side, side, columns // side, side, -1)
    tiles = tiles.swapaxes(2, 3)
    return tiles.reshape(len(images), (rows // side) * (columns // side), -1)


def usual_patch(rows: int, columns: int) -> int:
    """Return the common divisor of both sides that leaves most nearly 8 patches on one.

    Sides without a suitable divisor (31, 37) end in single pixels, and in very many patches.
    """
    divisors = [
        side for side in range(1, min(rows, columns) + 1) if rows % side == columns % side == 0
    ]
    wanted = max(SMALLEST_PATCH, min(rows, columns) / PATCHES_PER_SIDE)
    return min(divisors, key=lambda side: abs(side - wanted))
