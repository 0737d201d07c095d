"""The LearnedOptimizer interface: theta at birth, and theta made into an optax transformation."""

from collections.abc import Callable
from typing import NamedTuple

import optax
from jaxtyping import Array, Int

from mulo_cli.mup.roles import Roles
from mulo_cli.types import PRNGKey, Theta


class LearnedOptimizer(NamedTuple):
    """A learned optimizer before it has been given meta-parameters.

    Attributes:
        init: key -> initial theta.
        build: (theta, roles, number of steps `T` of the run) -> an optax transformation. Its
            `update` takes `loss=` and may ignore it.
    """

    init: Callable[[PRNGKey], Theta]
    build: Callable[[Theta, Roles, Int[Array, ""]], optax.GradientTransformationExtraArgs]
