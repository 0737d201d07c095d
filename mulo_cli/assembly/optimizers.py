"""From what a user wrote after --optimizer to something that can be evaluated or tuned."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Int

from mulo_cli.assembly.learned import load_learned_optimizer, shipped_artefacts
from mulo_cli.assembly.shelves import look_up
from mulo_cli.errors import UsageError
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.optimizers.presets import PRESETS
from mulo_cli.optimizers.schedules import SCHEDULES
from mulo_cli.recipes.grids import Grid
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.references import WORDS, OptimizerReference, parse_optimizer
from mulo_cli.results.tuned import read_tuned
from mulo_cli.studies.evaluate import NamedOptimizer
from mulo_cli.studies.tune import Trial
from mulo_cli.types import Theta


def build_named_optimizer(reference: OptimizerReference) -> NamedOptimizer:
    """Turn what a user wrote after --optimizer into something that can be evaluated.

    A name on the shelf of hand-designed optimizers comes first; anything else is a path, or
    the name of an artefact that ships.

    Raises:
        UsageError: an unknown hyper-parameter, or settings on an artefact.
        DataError: the file of tuned values is not one.
        ArtefactError: neither a name nor a usable artefact.
    """
    if reference.name in OPTIMIZERS:
        return _hand_designed(reference)
    known = shipped_artefacts()
    if not reference.name or not (Path(reference.name).exists() or reference.name in known):
        hint = nearest_hint(reference.name, [*OPTIMIZERS, *known])
        raise UsageError(
            f"{reference.name!r} is neither an optimizer nor an artefact",
            f"{hint}, or give the directory of a finished run",
        )
    return _meta_learned(reference)


def build_trials(name: str, schedule: str, grid: Grid, seeds: int) -> tuple[Trial, ...]:
    """Build every configuration of a grid for every seed.

    Raises:
        UsageError: the optimizer does not have one of the grid's hyper-parameters.
    """
    optimizers = []
    for configuration in grid.configurations():
        values = ",".join(f"{key}={value!r}" for key, value in configuration.items())
        tail = "" if schedule == "constant" else f",schedule={schedule}"
        optimizers.append(build_named_optimizer(parse_optimizer(f"{name}:{values}{tail}")))
    return tuple(Trial(optimizer, seed) for optimizer in optimizers for seed in range(seeds))


def _meta_learned(reference: OptimizerReference) -> NamedOptimizer:
    if reference.settings or reference.tuned or reference.preset or reference.schedule:
        raise UsageError(
            f"optimizer {reference.text!r}: a meta-learned optimizer has no settings",
            "leave them away (only parametrization=mup|sp can be set)",
        )
    card, optimizer, theta = load_learned_optimizer(
        Path(reference.name), _parametrization(reference, LEARNED_OPTIMIZER_RULES)
    )
    return NamedOptimizer(
        name=reference.text,
        parametrization=reference.parametrization or card.parametrization,
        make=functools.partial(_build_with_theta, optimizer),
        hyper=theta,
        settings={"checksum": card.checksum},
        recipe_digest=card.recipe_digest,
    )


def _hand_designed(reference: OptimizerReference) -> NamedOptimizer:
    entry = OPTIMIZERS[reference.name]
    found = _values_by_name(reference)
    hyper = {**entry.defaults, **found.settings, **reference.settings}
    known = (*entry.defaults, *entry.optional)
    for key in hyper:
        if key not in known:
            raise UsageError(
                f"{reference.name} has no hyper-parameter {key!r}",
                nearest_hint(key, (*known, *WORDS)),
            )
    schedule = reference.schedule or found.schedule
    look_up("schedule", schedule, SCHEDULES)
    parametrization = _parametrization(reference, entry.rules) or entry.parametrization
    return NamedOptimizer(
        name=reference.text,
        parametrization=parametrization,
        make=entry.under(parametrization, schedule),
        hyper=hyper,
        settings={**hyper, "schedule": schedule},
        recipe_digest=None,
    )


class _Values(NamedTuple):
    """Hyper-parameters that have a name of their own."""

    settings: Mapping[str, float]
    schedule: str


def _values_by_name(reference: OptimizerReference) -> _Values:
    """Return the values that a preset or a file of tuned ones stands for; none without either."""
    if reference.tuned and reference.preset:
        raise UsageError(
            f"optimizer {reference.text!r} names a preset and a file of tuned values",
            "give one of them",
        )
    if reference.preset:
        presets = PRESETS[reference.name]
        return _Values(look_up("preset", reference.preset, presets), "constant")
    if reference.tuned:
        tuned = read_tuned(Path(reference.tuned))
        if tuned.optimizer != reference.name:
            raise UsageError(
                f"{reference.tuned!r} holds values of {tuned.optimizer}, not of {reference.name}",
                f"write {tuned.optimizer}:tuned={reference.tuned}",
            )
        return _Values(tuned.settings, tuned.schedule)
    return _Values({}, "constant")


def _parametrization(reference: OptimizerReference, rules: Mapping[str, Any]) -> str | None:
    """Return the parametrization that a user has asked for, if it is one of the rules'."""
    wanted = reference.parametrization
    if wanted is not None and wanted not in rules:
        raise UsageError(
            f"optimizer {reference.text!r}: there is no rule for parametrization {wanted!r}",
            f"known are: {', '.join(rules)}",
        )
    return wanted


def _build_with_theta(
    optimizer: LearnedOptimizer, hyper: Theta, roles: Roles, num_steps: Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """Offer a learned optimizer as a MakeOptimizer: its theta is its hyper-parameters."""
    return optimizer.build(hyper, roles, num_steps)
