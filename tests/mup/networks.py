"""Networks of every kind of layer, as functions width -> (key -> params), and reading their roles.

`kinds` spells a role as `hidden in,in,out 64`: kind, what each axis is for, fan-in.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mulo_cli.mup.layouts import axis_words
from mulo_cli.mup.modules import Readout
from mulo_cli.mup.roles import ParamRole, infer_roles, leaf_name

VOCABULARY, LENGTH, PIXELS = 11, 6, 3
NARROW, WIDE = 8, 24


def by_name(roles) -> dict[str, ParamRole]:
    leaves = jax.tree.leaves_with_path(roles, is_leaf=lambda node: isinstance(node, ParamRole))
    return {leaf_name(path).removesuffix("/value"): role for path, role in leaves}


def spelled(role: ParamRole) -> str:
    return f"{role.kind.value} {axis_words(role.layout)} {role.fan_in}".replace("  ", " ")


def kinds(make, **options) -> dict[str, str]:
    """Return the roles of a network of width 24, told beside one of width 8."""
    roles = infer_roles(make(NARROW), make(WIDE), **options)
    return {name: spelled(role) for name, role in by_name(roles).items()}


def linen(make_module, *input_shape: int, dtype=jnp.float32):
    """Return width -> init of a linen module, fed with zeros of a shape (None: the width)."""

    def at(width: int):
        shape = tuple(width if size is None else size for size in input_shape)
        return lambda key: make_module(width).init(key, jnp.zeros(shape, dtype))["params"]

    return at


def of_shapes(**shapes):
    """Return width -> init of zeros; a size of "D" or "2D" is the width or twice it."""

    def at(width: int):
        sizes = {"D": width, "2D": 2 * width}

        def init(key):
            del key
            return {
                name.replace("__", "/"): jnp.zeros([sizes.get(size, size) for size in shape])
                for name, shape in shapes.items()
            }

        return init

    return at


class Block(nn.Module):
    """A pre-norm transformer block."""

    width: int
    heads: int = 4

    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm(name="norm_1")(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, name="attention")(h, h)
        h = nn.LayerNorm(name="norm_2")(x)
        return x + nn.Dense(self.width, name="down")(
            nn.gelu(nn.Dense(4 * self.width, name="up")(h))
        )


class Transformer(nn.Module):
    """Blocks one after the other, or scanned over parameters stacked along an axis."""

    width: int
    depth: int = 2
    stacked: int | None = None
    boxed: bool = False

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, self.width, name="tokens")(tokens)
        x = x + self.param("positions", nn.initializers.normal(0.02), (LENGTH, self.width))
        if self.stacked is None:
            for layer in range(self.depth):
                x = Block(self.width, name=f"block_{layer}")(x)
        else:
            scanned = nn.scan(
                nn.remat(ScannedBlock),
                variable_axes={"params": self.stacked},
                split_rngs={"params": True},
                length=self.depth,
                metadata_params={nn.PARTITION_NAME: "layers"} if self.boxed else {},
            )
            x, _ = scanned(self.width, self.boxed, name="blocks")(x, None)
        return Readout(VOCABULARY, name="readout")(nn.LayerNorm(name="norm")(x))


class ScannedBlock(nn.Module):
    """A block as `nn.scan` wants it; its kernel may be boxed."""

    width: int
    boxed: bool

    @nn.compact
    def __call__(self, x, nothing):
        kernel_init = nn.initializers.lecun_normal()
        if self.boxed:
            kernel_init = nn.with_partitioning(kernel_init, ("embed", "mlp"))
        x = x + nn.Dense(self.width, kernel_init=kernel_init, name="dense")(x)
        return nn.MultiHeadDotProductAttention(4, name="attention")(x, x), nothing


def transformer(width: int, **options):
    tokens = jnp.zeros((1, LENGTH), jnp.int32)
    return lambda key: Transformer(width, **options).init(key, tokens)["params"]
