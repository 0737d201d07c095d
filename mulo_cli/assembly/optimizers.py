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
from mulo_cli.mup.scaling import scale_by_width
from mulo_cli.optimizers.base import HandDesigned
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.optimizers.presets import PRESETS
from mulo_cli.optimizers.schedules import SCHEDULES
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.references import WORDS, OptimizerReference
from mulo_cli.results.tuned import read_tuned
from mulo_cli.studies.evaluate import NamedOptimizer
from mulo_cli.tasks.base import MULTIPLIERS
from mulo_cli.types import Theta

EPS_SCALING = "eps_scaling"
"""The only hyper-parameter that a meta-learned optimizer has beside its theta."""

WHOLE = frozenset({"update_interval"})
"""Hyper-parameters that are numbers of steps."""


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


def _meta_learned(reference: OptimizerReference) -> NamedOptimizer:
    words = (reference.tuned, reference.preset, reference.schedule, reference.rule)
    if any(words) or reference.settings.keys() - {EPS_SCALING}:
        raise UsageError(
            f"optimizer {reference.text!r}: a meta-learned optimizer has no settings",
            f"leave them away (only parametrization={'|'.join(LEARNED_OPTIMIZER_RULES)} and "
            f"{EPS_SCALING} can be set)",
        )
    card, optimizer, theta = load_learned_optimizer(
        Path(reference.name), _parametrization(reference, LEARNED_OPTIMIZER_RULES)
    )
    power = reference.settings.get(EPS_SCALING, 0.0)
    if power and card.settings.get("clip_gradients"):
        raise UsageError(
            f"optimizer {reference.text!r} clips gradients by their norm, and {EPS_SCALING} would "
            "change what it clips",
            f"leave {EPS_SCALING} away, or import the weights with clip_gradients=false",
        )
    return NamedOptimizer(
        name=reference.text,
        parametrization=reference.parametrization or card.parametrization,
        make=functools.partial(_build_with_theta, optimizer, power),
        hyper=theta,
        settings={"checksum": card.checksum, **reference.settings},
        recipe_digest=card.recipe_digest,
    )


def _hand_designed(reference: OptimizerReference) -> NamedOptimizer:
    entry = OPTIMIZERS[reference.name]
    found = _values_by_name(reference)
    hyper = {**entry.defaults, **found.settings, **reference.settings}
    known = (*entry.defaults, *entry.optional, *MULTIPLIERS)
    for key in hyper:
        if key not in known:
            raise UsageError(
                f"{reference.name} has no hyper-parameter {key!r}",
                nearest_hint(key, (*known, *WORDS)),
            )
    _refuse_fractions(reference.name, hyper)
    schedule = reference.schedule or found.schedule
    look_up("schedule", schedule, SCHEDULES)
    wanted = _parametrization(reference, entry.rules) or found.parametrization
    parametrization = wanted or entry.parametrization
    rule = _variant(reference, found.rule, entry, parametrization)
    network = entry.network.get(parametrization, {})
    asked = {"network_wanted": ",".join(f"{key}={value}" for key, value in network.items())}
    return NamedOptimizer(
        name=reference.text,
        parametrization=parametrization,
        make=entry.under(parametrization, schedule, rule),
        hyper=hyper,
        settings={
            **hyper,
            "schedule": schedule,
            **({"rule": rule} if rule else {}),
            **(asked if network else {}),
        },
        recipe_digest=None,
        network=network,
    )


def _refuse_fractions(name: str, hyper: Mapping[str, float]) -> None:
    for key in WHOLE & hyper.keys():
        if hyper[key] < 1 or hyper[key] % 1:
            raise UsageError(
                f"{name} with {key}={hyper[key]:g}: {key} counts steps",
                f"give a whole number, 1 or more: {name}:{key}=10",
            )


def _variant(
    reference: OptimizerReference, tuned: str | None, entry: HandDesigned, parametrization: str
) -> str | None:
    """Return the name of the rule for muP, None where there is nothing to choose."""
    if parametrization == "sp" or not entry.variants:
        if reference.rule:
            raise UsageError(
                f"optimizer {reference.text!r} has no rule to choose"
                + (" under sp" if entry.variants else ""),
                "leave rule= away" + (", or add parametrization=mup" if entry.variants else ""),
            )
        return None
    name = reference.rule or tuned or next(iter(entry.variants))
    look_up("rule", name, entry.variants)
    return name


class _Values(NamedTuple):
    """Hyper-parameters that have a name of their own, and words that came with them."""

    settings: Mapping[str, float]
    schedule: str = "constant"
    parametrization: str | None = None
    rule: str | None = None


def _values_by_name(reference: OptimizerReference) -> _Values:
    """Return the values that a preset or a file of tuned ones stands for; none without either."""
    if reference.tuned and reference.preset:
        raise UsageError(
            f"optimizer {reference.text!r} names a preset and a file of tuned values",
            "give one of them",
        )
    if reference.preset:
        presets = PRESETS.get(reference.name, {})
        return _Values(look_up("preset", reference.preset, presets))
    if reference.tuned:
        tuned = read_tuned(Path(reference.tuned))
        if tuned.optimizer != reference.name:
            raise UsageError(
                f"{reference.tuned!r} holds values of {tuned.optimizer}, not of {reference.name}",
                f"write {tuned.optimizer}:tuned={reference.tuned}",
            )
        return _Values(tuned.settings, tuned.schedule, tuned.parametrization, tuned.rule)
    return _Values({})


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
    optimizer: LearnedOptimizer,
    eps_scaling: float,
    hyper: Theta,
    roles: Roles,
    num_steps: Int[Array, ""],
) -> optax.GradientTransformationExtraArgs:
    """Offer a learned optimizer as a MakeOptimizer: its theta is its hyper-parameters."""
    made = optimizer.build(hyper, roles, num_steps)
    return optax.chain(scale_by_width(roles, eps_scaling), made) if eps_scaling else made
