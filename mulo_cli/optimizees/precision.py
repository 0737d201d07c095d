"""Matrix products in bfloat16: factors are rounded, sums and everything else stay in float32.

The mixed precision of P. Micikevicius et al., "Mixed precision training" (2018), with the bfloat16
of D. Kalamkar et al., "A study of bfloat16 for deep learning training" (2019): products read
rounded copies of weights, activations and gradients; what they put out is float32.

Two halves make it the same on every machine. Each factor is rounded where it enters a product, the
gradient that comes back to a product included; and the product asks for the algorithm BF16_BF16_F32
so that a GPU takes its fast units, to which those factors are exact. A CPU ignores the algorithm
(jax 0.10: its products are float32), hence the first half.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mulo_cli.errors import UsageError, shortened

DotGeneral: TypeAlias = Callable[..., Array]
"""What flax calls products by: `jax.lax.dot_general`, or a function with its arguments."""

EXPONENT_BITS, MANTISSA_BITS = 8, 7
"""Of bfloat16; the mantissa's leading one is not counted."""


def dot_general_in(precision: str) -> DotGeneral | None:
    """Return how products are done in a precision; None: as jax does them.

    Raises:
        UsageError: there is no such precision.
    """
    if precision not in PRODUCTS:
        raise UsageError(
            f"matmul_precision={shortened(precision)} is unknown",
            f"known are: {', '.join(PRODUCTS)}",
        )
    return PRODUCTS[precision]


def bfloat16_dot_general(
    lhs: Float[Array, "..."],
    rhs: Float[Array, "..."],
    dimension_numbers: jax.lax.DotDimensionNumbers,
    precision: None = None,
    preferred_element_type: None = None,
) -> Float[Array, "..."]:
    """Multiply float32 arrays as `jax.lax.dot_general` does, reading them rounded to bfloat16.

    So are the products that its gradients are: they read the rounded factor and the rounded
    gradient. The last two arguments are there because flax hands them on.
    """
    del precision, preferred_element_type
    product = jax.lax.dot_general(
        _factor(lhs),
        _factor(rhs),
        dimension_numbers,
        precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32,
        preferred_element_type=jnp.float32,
    )
    return _product(product)


PRODUCTS: Mapping[str, DotGeneral | None] = {"float32": None, "bfloat16": bfloat16_dot_general}
"""Precision, by jax's names -> how products are done."""


def _rounded(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Round to bfloat16 and stay in float32; unlike a conversion there and back, XLA keeps it."""
    return jax.lax.reduce_precision(x, EXPONENT_BITS, MANTISSA_BITS)


@jax.custom_jvp
def _factor(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Round a factor; its gradient passes as it is, for the parameter itself is not rounded."""
    return _rounded(x)


@_factor.defjvp
def _factor_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _factor(*primals), tangents[0]


@jax.custom_jvp
def _product(y: Float[Array, "..."]) -> Float[Array, "..."]:
    """Leave a product as it is, but round the gradient that comes back: it is a factor there."""
    return y


@_product.defjvp
def _product_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _product(*primals), _rounded(tangents[0])
