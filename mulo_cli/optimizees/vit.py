"""The vision transformer of the muLO papers' tasks.

A. Dosovitskiy et al., *An image is worth 16x16 words* (2021); sizes: muLO (Therien et al., 2025),
Table 10. The papers do not tell the size of a patch; ours leaves about 8 by 8 of them.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.errors import UsageError
from mulo_cli.mup.initializers import zeros
from mulo_cli.mup.modules import Readout
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
        mup: whether it is parametrized by muP.
        heads: attention heads, a divisor of the width.
        ffn_multiple: hidden units of each block's two-layer network, in widths.
        patch: side of a patch in pixels; 0 chooses one.
        pooling: `token`, a class token that starts at zero, or `mean` over patches.
        stacked: whether the parameters of all blocks are kept in one array per leaf.
    """

    width: int
    depth: int
    num_classes: int
    mup: bool = True
    heads: int = 1
    ffn_multiple: int = 4
    patch: int = 0
    pooling: str = "token"
    stacked: bool = True

    @nn.compact
    def __call__(self, images: Float[Array, "B *shape"]) -> Float[Array, "B C"]:
        """Map images (rows, columns, and channels if there is more than one) to logits."""
        if self.pooling not in POOLINGS:
            raise UsageError(
                f"pooling={self.pooling} is unknown", f"known are: {', '.join(POOLINGS)}"
            )
        scheme = MUP if self.mup else SP
        embed = nn.Dense(self.width, kernel_init=scheme.weight, bias_init=scheme.bias, name="embed")
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
        )
        x = repeat(
            lambda name: block(name=name),
            x,
            self.depth,
            "blocks",
            stacked=self.stacked,
        )
        x = nn.LayerNorm(name="norm")(x)
        pooled = x[:, 0] if self.pooling == "token" else jnp.mean(x, axis=1)
        if self.mup:
            return Readout(self.num_classes, name="readout")(pooled)
        return nn.Dense(self.num_classes, kernel_init=scheme.weight, name="readout")(pooled)


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
