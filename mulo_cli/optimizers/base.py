"""The MakeOptimizer interface: hand-designed and learned optimizers are alike from here on."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import optax
from jaxtyping import Array, Int

from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import Rule
from mulo_cli.optimizers.schedules import SCHEDULES, MakeSchedule
from mulo_cli.types import Hyper


@runtime_checkable
class MakeOptimizer(Protocol):
    """Build an optimizer; `hyper` is traced (a grid is a vmap over it), `roles` are static."""

    def __call__(
        self, hyper: Hyper, roles: Roles, num_steps: Int[Array, ""]
    ) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer of a run of `num_steps` steps."""
        ...


@runtime_checkable
class MakeUnderRule(Protocol):
    """Build a hand-designed optimizer whose updates are multiplied by a rule's factors."""

    def __call__(
        self, hyper: Hyper, roles: Roles, num_steps: Int[Array, ""], *, rule: Rule
    ) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer; `hyper["learning_rate"]` may be a schedule."""
        ...


@dataclass(frozen=True)
class HandDesigned:
    """One entry of the shelf.

    Attributes:
        make: builds it.
        defaults: the hyper-parameters it always has, under optax's names.
        rules: its rule under each parametrization it is defined for; the first is its own.
        optional: hyper-parameters that are off unless they are given.
    """

    make: MakeUnderRule
    defaults: Mapping[str, float]
    rules: Mapping[str, Rule]
    optional: tuple[str, ...] = ()

    @property
    def parametrization(self) -> str:
        """Of the networks it trains, unless told otherwise."""
        return next(iter(self.rules))

    def under(self, parametrization: str, schedule: str = "constant") -> MakeOptimizer:
        """Return it under one of its parametrizations, with a schedule of the learning rate."""
        return functools.partial(
            _make_scheduled, self.make, self.rules[parametrization], SCHEDULES[schedule]
        )


def _make_scheduled(
    make: MakeUnderRule,
    rule: Rule,
    schedule: MakeSchedule,
    hyper: Hyper,
    roles: Roles,
    num_steps: Int[Array, ""],
) -> optax.GradientTransformationExtraArgs:
    scheduled = {**hyper, "learning_rate": schedule(hyper["learning_rate"], num_steps)}
    return make(scheduled, roles, num_steps, rule=rule)
