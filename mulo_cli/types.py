"""The field's words as types, and the axis letters used in every shape of this package.

Axis letters: `N` pairs · `K` inner steps per truncation · `T` horizon · `B` examples · `D` width ·
`L` positions · `C` classes or vocabulary · `S` decays · `F` features · `H` hidden units of a
learned optimizer, or attention heads · `*p` the shape of one parameter.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Key, Num, PyTree

PRNGKey: TypeAlias = Key[Array, ""]
"""A typed key (`jax.random.key`); the function that takes one consumes it."""

Concrete: TypeAlias = Array | np.ndarray
"""An array on the device (or traced), or on the host."""

Params: TypeAlias = PyTree[Float[Concrete, "..."]]
"""What an optimizer trains: the parameters of an optimizee."""

Theta: TypeAlias = PyTree[Float[Concrete, "..."]]
"""Meta-parameters: what meta-training learns."""

Hyper: TypeAlias = PyTree[Any]
"""Traced hyper-parameters of an optimizer: a dict of numbers, or the theta of a learned one."""

Stored: TypeAlias = Concrete | jax.ShapeDtypeStruct
"""An array, or its shape alone."""

Data: TypeAlias = PyTree[Num[Stored, "..."]]
"""A data set's arrays as stored, always a traced argument of a compiled program."""


class Batch(NamedTuple):
    """One batch, gathered and normalised inside the compiled step."""

    inputs: Num[Array, "B *shape"]
    """Standardised images, or tokens."""

    targets: Num[Array, "B *targets"]
    """Classes, or the token after each token; a negative one is padding and does not count."""
