"""What training does to single tensors: sizes, spectral norms, how far they shrink.

G. Yang, J. Simon and J. Bernstein, "A spectral condition for feature learning" (2023): a layer
learns features if spectral norms of its weights and of their updates are of the order of
(fan_out/fan_in)^1/2. Norms are found by power iteration: x -> A^T A x.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mulo_cli.mup.kinds import ParamRole, RoleKind, size
from mulo_cli.tasks.layers import LOGITS, NAMESAKE
from mulo_cli.types import Concrete

ITERATIONS_AT_START = 20
"""Of a random matrix the largest singular values lie close together."""

ITERATIONS_OF_FIRST_CHANGE = 15
ITERATIONS_OF_CHANGE = 6
"""A change is iterated on from the vector that the step before has left."""

Matrices: TypeAlias = Float[Array, "S R I O"]
"""`S` tensors with a name of their own, each of `R` matrices."""

Vectors: TypeAlias = Float[Array, "S R O"]


@dataclass(frozen=True)
class Leaf:
    """One array of parameters, and the tensors that it is.

    Attributes:
        names: of its tensors, in their order along the first axis that counts layers.
        layers: of each tensor, the name of the layer it belongs to.
        role: what it is to muP.
        shape: as it is stored.
    """

    names: tuple[str, ...]
    layers: tuple[str, ...]
    role: ParamRole
    shape: tuple[int, ...]

    @property
    def vector(self) -> bool:
        """Whether it has no input axes."""
        return not self.role.in_axes

    @property
    def hidden(self) -> bool:
        """Whether it is measured by its spectral norm."""
        return self.role.kind is RoleKind.HIDDEN and not self.vector

    @property
    def output(self) -> bool:
        """Whether it is measured by what it adds to the logits."""
        return self.role.kind is RoleKind.OUTPUT and not self.vector

    @property
    def spectral_unit(self) -> float:
        """The spectral norm that a layer which learns features has."""
        return math.sqrt(self.role.fan_out / self.role.fan_in)

    @property
    def spectral_unit_at_start(self) -> float:
        """The spectral norm of a random matrix whose elements have variance 1/fan_in."""
        return 1.0 + self.spectral_unit

    @property
    def vectors_shape(self) -> tuple[int, int, int]:
        """Shape of the vectors that power iteration carries."""
        tensors, count = len(self.names), size(self.shape, self.role.stack_axes)
        return tensors, count // tensors, size(self.shape, self.role.out_axes)


class TensorNumbers(NamedTuple):
    """What is measured of a leaf at one time.

    Attributes:
        rms: root mean square of the elements.
        spectral: spectral norm; of several matrices in one tensor their root mean square; zero
            for vectors.
        along: inner product with the leaf before training.
        square: squared norm of the leaf before training.
    """

    rms: Float[Concrete, " S"]
    spectral: Float[Concrete, " S"]
    along: Float[Concrete, " S"]
    square: Float[Concrete, " S"]


def leaf_of(name: str, role: ParamRole, shape: Sequence[int], layers: Sequence[str]) -> Leaf:
    """Tell the tensors of one leaf by name.

    A stack is taken apart where its layers are, and where nothing is known about its layers; the
    matrices of a stack that is one layer (experts) are one tensor.

    Args:
        name: path of the leaf.
        role: what it is to muP.
        shape: as it is stored.
        layers: names of the layers that the network shows.
    """
    parts = name.split("/")
    owner = parts[:-1] or parts
    stack = _stack_place(owner, layers) if role.stack_axes else 0
    if not stack:
        layer = "/".join(owner)
        layer = NAMESAKE if layer == LOGITS and NAMESAKE in layers else layer
        return Leaf((name,), (layer,), role, tuple(shape))
    numbered = [
        [*parts[: stack - 1], f"{parts[stack - 1]}_{number}", *parts[stack:]]
        for number in range(shape[role.stack_axes[0]])
    ]
    return Leaf(
        names=tuple("/".join(one) for one in numbered),
        layers=tuple("/".join(one[:-1] or one) for one in numbered),
        role=role,
        shape=tuple(shape),
    )


def look_at_tensors(
    leaf: Leaf,
    now: Float[Array, "..."],
    before: Float[Array, "..."],
    vectors: Vectors,
    share: Float[Array, ""],
    iterations: Int[Array, ""],
) -> tuple[TensorNumbers, Vectors]:
    """Measure now - share x before.

    Args:
        leaf: what `now` and `before` are.
        now: the leaf, as it is stored.
        before: the leaf before training.
        vectors: where power iteration starts.
        share: 1 measures the change; 0 measures the leaf itself, by the very same program.
        iterations: number of them.

    Returns:
        What was measured, and the vectors to start from the next time.
    """
    old = as_matrices(leaf, before)
    change = as_matrices(leaf, now) - share * old
    inner = (1, 2, 3)
    spectral = jnp.zeros(len(leaf.names), jnp.float32)
    if not leaf.vector:
        norms, vectors = power_iteration(change, vectors, iterations)
        spectral = jnp.sqrt(jnp.mean(jnp.square(norms), axis=1))
    numbers = TensorNumbers(
        rms=jnp.sqrt(jnp.mean(jnp.square(change), axis=inner)),
        spectral=spectral,
        along=jnp.sum(change * old, axis=inner),
        square=jnp.sum(jnp.square(old), axis=inner),
    )
    return numbers, vectors


def pushed(
    leaf: Leaf, gradient: Float[Array, "..."], change: Float[Array, "..."]
) -> tuple[Float[Array, " S"], Float[Array, " S"]]:
    """Return a gradient's root mean square, and its norm times the norm of a change."""
    inner = (1, 2, 3)
    gradients, changes = as_matrices(leaf, gradient), as_matrices(leaf, change)
    norms = [jnp.sqrt(jnp.sum(jnp.square(x), axis=inner)) for x in (gradients, changes)]
    return jnp.sqrt(jnp.mean(jnp.square(gradients), axis=inner)), norms[0] * norms[1]


def power_iteration(
    matrices: Matrices, vectors: Vectors, iterations: Int[Array, ""]
) -> tuple[Float[Array, "S R"], Vectors]:
    """Return the spectral norms of matrices from below, and the vectors that come out last.

    Args:
        matrices: (inputs, outputs) each.
        vectors: where to start; a matrix of zeros leaves its vector as it is.
        iterations: number of them; each reads the matrices twice.
    """

    def iterate(_: Array, carried: tuple[Array, Vectors]) -> tuple[Array, Vectors]:
        _, at = carried
        there, _ = _normed(jnp.einsum("srio,sro->sri", matrices, at))
        back, norms = _normed(jnp.einsum("srio,sri->sro", matrices, there))
        return norms, jnp.where(norms[..., None] == 0.0, at, back)

    nothing = jnp.zeros(matrices.shape[:2], matrices.dtype)
    return jax.lax.fori_loop(jnp.int32(0), iterations, iterate, (nothing, _normed(vectors)[0]))


def as_matrices(leaf: Leaf, array: Float[Array, "..."]) -> Matrices:
    """Return a leaf as matrices (inputs, outputs) in float32; a vector has one input."""
    role = leaf.role
    order = (*role.stack_axes, *role.in_axes, *role.out_axes)
    tensors, count, outs = leaf.vectors_shape
    shape = (tensors, count, size(leaf.shape, role.in_axes), outs)
    return array.transpose(order).reshape(shape).astype(jnp.float32)


def _stack_place(owner: Sequence[str], layers: Sequence[str]) -> int:
    """Return how many names of a path lead to the one that is numbered; 0 if none is."""
    shown = ["/".join(owner[:count]) for count in range(1, len(owner) + 1)]
    for count, path in enumerate(shown, 1):
        if any(layer == f"{path}_0" or layer.startswith(f"{path}_0/") for layer in layers):
            return count
    return 0 if shown[-1] in layers else 1


def _normed(vectors: Float[Array, "... n"]) -> tuple[Float[Array, "... n"], Float[Array, "..."]]:
    """Return vectors of length one, and the lengths they had; of zeros zeros."""
    norms = jnp.linalg.norm(vectors, axis=-1)
    return vectors / jnp.where(norms == 0.0, 1.0, norms)[..., None], norms
