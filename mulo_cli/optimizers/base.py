"""The MakeOptimizer interface: hand-designed and learned optimizers are alike from here on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import optax
from jaxtyping import Array, Int

from mulo_cli.mup.roles import Roles
from mulo_cli.types import Hyper


@runtime_checkable
class MakeOptimizer(Protocol):
    """Build an optimizer; `hyper` is traced (a grid is a vmap over it), `roles` are static."""

    def __call__(
        self, hyper: Hyper, roles: Roles, num_steps: Int[Array, ""]
    ) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer of a run of `num_steps` steps."""
        ...


@dataclass(frozen=True)
class HandDesigned:
    """One entry of the shelf.

    Attributes:
        make: builds it.
        defaults: every hyper-parameter it has, under optax's names.
        parametrization: of the networks it trains, unless told otherwise.
    """

    make: MakeOptimizer
    defaults: Mapping[str, float]
    parametrization: Literal["mup", "sp"]
