"""The MakeOptimizer interface: hand-designed and learned optimizers are alike from here on."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import optax
from jaxtyping import Array, Int

from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import Rule, standard
from mulo_cli.optimizers.schedules import SCHEDULES, MakeSchedule
from mulo_cli.types import Hyper

RATES = ("learning_rate", "adam_learning_rate")
"""Hyper-parameters that a schedule acts on."""


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
        rules: its rule under each parametrization it is defined for.
        optional: hyper-parameters that are off unless they are given.
        parametrization: of the networks it trains, unless told otherwise.
        variants: rules for muP that can be chosen by name; the first is that of `rules`.
        network: what it asks of the networks that it trains: parametrization -> option -> value.
    """

    make: MakeUnderRule
    defaults: Mapping[str, float]
    rules: Mapping[str, Rule]
    optional: tuple[str, ...] = ()
    parametrization: str = "sp"
    variants: Mapping[str, Rule] = field(default_factory=dict)
    network: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def under(
        self, parametrization: str, schedule: str = "constant", variant: str | None = None
    ) -> MakeOptimizer:
        """Return it under one of its parametrizations.

        Args:
            parametrization: of the networks.
            schedule: of the learning rate.
            variant: name of the rule, where it has several for muP.
        """
        rule = self.variants[variant] if variant else self.rules[parametrization]
        return functools.partial(_make_scheduled, self.make, rule, SCHEDULES[schedule])


def under_rule(mup: Rule, sp: Rule = standard) -> dict[str, Rule]:
    """Return the rules by parametrization; a rule for muP knows both forms of a readout."""
    return {"sp": sp, "mup": mup, "spectral": mup}


def _make_scheduled(
    make: MakeUnderRule,
    rule: Rule,
    schedule: MakeSchedule,
    hyper: Hyper,
    roles: Roles,
    num_steps: Int[Array, ""],
) -> optax.GradientTransformationExtraArgs:
    rates = {key: schedule(hyper[key], num_steps) for key in RATES if key in hyper}
    return make({**hyper, **rates}, roles, num_steps, rule=rule)
