"""From recipes, references and artefacts to live objects; the only file that knows every shelf."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from mulo_cli.artefacts.card import Card
from mulo_cli.artefacts.store import find_artefact, load_card, load_theta
from mulo_cli.datasets.base import Dataset
from mulo_cli.datasets.catalogue import DATASETS, DatasetEntry
from mulo_cli.errors import ArtefactError, UsageError
from mulo_cli.gradient_estimators.antithetic import SIGNS, EstimatorConfig
from mulo_cli.gradient_estimators.base import GradientEstimator
from mulo_cli.gradient_estimators.catalogue import GRADIENT_ESTIMATORS
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.meta_training.checkpoints import BestTheta
from mulo_cli.meta_training.meta_loop import MetaTraining
from mulo_cli.meta_training.meta_optimizer import MetaOptimizerConfig, meta_optimizer
from mulo_cli.meta_training.validation import ValidationConfig
from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.optimizers.presets import PRESETS
from mulo_cli.optimizers.schedules import SCHEDULES
from mulo_cli.recipes.grids import Grid
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.references import WORDS, OptimizerReference, parse_optimizer
from mulo_cli.recipes.schema import OptimizerSection, Recipe, TaskSection, as_dict, digest
from mulo_cli.results.environment import code_version
from mulo_cli.results.tuned import read_tuned
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.studies.tune import Trial
from mulo_cli.tasks.base import Task, classification_task
from mulo_cli.types import Theta

Entry = TypeVar("Entry")


def build_meta_training(recipe: Recipe, *, with_data: bool = True) -> MetaTraining:
    """Build everything that a recipe asks for.

    Args:
        recipe: resolved.
        with_data: False leaves shapes in place of data, enough to reckon a budget.

    Raises:
        UsageError: the recipe names something that no shelf has, or cannot be done.
        DataError: the data set is not there.
    """
    dataset = build_dataset(recipe.task.dataset, with_data=with_data)
    learned_optimizer = build_learned_optimizer(recipe.optimizer, recipe.parametrization)
    tasks = tuple(
        build_task(recipe.task, dataset, width, recipe.parametrization)
        for width in recipe.task.widths
    )
    estimator = recipe.estimator
    return MetaTraining(
        tasks=tasks,
        learned_optimizer=learned_optimizer,
        estimators=tuple(build_estimator(recipe, task, learned_optimizer) for task in tasks),
        optimizer=meta_optimizer(_fields(MetaOptimizerConfig, recipe.meta_optimizer)),
        validation=_fields(ValidationConfig, recipe.validation),
        steps=recipe.meta_optimizer.steps,
        seed=recipe.seed,
        checkpoint_every=recipe.checkpoint.every,
        inner_steps=len(tasks) * estimator.pairs * len(SIGNS) * estimator.truncation,
    )


def build_dataset(name: str, *, with_data: bool = True) -> Dataset:
    """Load a data set by name, onto the default device as stored."""
    entry: DatasetEntry = _look_up("data set", name, DATASETS)
    if not with_data and entry.describe is not None:
        return entry.describe()
    dataset = entry.load()
    return dataclasses.replace(dataset, splits=jax.tree.map(jnp.asarray, dict(dataset.splits)))


def build_task(section: TaskSection, dataset: Dataset, width: int, parametrization: str) -> Task:
    """Build the task of one width."""
    make = _look_up("optimizee", section.optimizee, OPTIMIZEES)
    if section.batch_size > dataset.size("train"):
        raise UsageError(
            f"a batch size of {section.batch_size} is larger than {dataset.name} "
            f"({dataset.size('train')} training examples)",
            "lower the batch size",
        )

    def make_network(width: int) -> nn.Module:
        return make(
            width=width,
            depth=section.depth,
            num_classes=dataset.num_classes,
            mup=parametrization == "mup",
        )

    name = f"{section.optimizee}-{dataset.name}-w{width}"
    return classification_task(name, dataset, make_network, width, section.batch_size)


def build_evaluation_task(
    section: TaskSection, dataset: Dataset, width: int, parametrization: str
) -> EvaluationTask:
    """Build the task of one width with the facts that evaluation rows tell."""
    return EvaluationTask(
        task=build_task(section, dataset, width, parametrization),
        test_data=dataset.splits["test"],
        optimizee=section.optimizee,
        dataset=dataset.name,
        real=dataset.real,
        width=width,
        depth=section.depth,
        batch_size=section.batch_size,
    )


def build_learned_optimizer(section: OptimizerSection, parametrization: str) -> LearnedOptimizer:
    """Build a learned optimizer from a recipe's section."""
    settings = dataclasses.asdict(section)
    architecture = settings.pop("architecture")
    return _learned_optimizer(architecture, settings, parametrization)


def build_estimator(
    recipe: Recipe, task: Task, learned_optimizer: LearnedOptimizer
) -> GradientEstimator:
    """Build the gradient estimator of one task."""
    section = recipe.estimator
    make = _look_up("gradient estimator", section.name, GRADIENT_ESTIMATORS)
    return make(task, learned_optimizer, _fields(EstimatorConfig, section))


def build_card(recipe: Recipe, best: BestTheta, checksums: Mapping[str, str]) -> Card:
    """Write down what a finished meta-training has made.

    Args:
        recipe: what it was made with.
        best: the theta that is kept, its loss and its step.
        checksums: of the "best" and the "last" theta.
    """
    settings = dataclasses.asdict(recipe.optimizer)
    return Card(
        name=f"{recipe.name}-{recipe.parametrization}",
        architecture=settings.pop("architecture"),
        settings=settings,
        parametrization=recipe.parametrization,
        fan_in="absolute",
        meta_parameters=sum(leaf.size for leaf in jax.tree.leaves(best.theta)),
        checksum=checksums["best"],
        last_checksum=checksums["last"],
        recipe=as_dict(recipe),
        recipe_digest=digest(recipe),
        training={
            "meta_steps": recipe.meta_optimizer.steps,
            "selected_by": "lowest meta-validation loss: mean over whole trainings, held-out seeds",
            "selected_at_meta_step": int(best.step),
            "meta_validation_loss": float(best.loss),
        },
        licence="unknown",
        code_version=code_version(),
    )


def load_learned_optimizer(
    path: Path, parametrization: str | None = None
) -> tuple[Card, LearnedOptimizer, Theta]:
    """Read an artefact, or the artefact of a finished run, and rebuild what it describes.

    Args:
        path: of either.
        parametrization: of the networks it is to train, where it is not the card's.

    Raises:
        ArtefactError: missing, damaged, or of an architecture this version does not have.
    """
    path = find_artefact(path)
    card = load_card(path)
    try:
        optimizer = _learned_optimizer(
            card.architecture, card.settings, parametrization or card.parametrization
        )
    except (UsageError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{str(path)!r} holds a {card.architecture!r} that this version cannot build: "
            f"{' '.join(str(error).split())}",
            f"use mulo {card.code_version}, which wrote it",
        ) from error
    key = jax.eval_shape(lambda: jax.random.key(0))
    theta = load_theta(path, card, jax.eval_shape(optimizer.init, key))
    return card, optimizer, theta


def learned_optimizer(
    path: str | Path, *, roles: Roles, num_steps: int | Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """Return a meta-learned optimizer as an optax transformation.

    Args:
        path: a finished run directory or an artefact directory.
        roles: muP roles of the params, from `mulo_cli.infer_roles`.
        num_steps: length `T` of the training to come.

    Raises:
        ArtefactError: there is no usable artefact.
    """
    _, optimizer, theta = load_learned_optimizer(Path(path))
    return optimizer.build(theta, roles, jnp.asarray(num_steps, jnp.int32))


def build_named_optimizer(reference: OptimizerReference) -> NamedOptimizer:
    """Turn what a user wrote after --optimizer into something that can be evaluated.

    A name on the shelf of hand-designed optimizers comes first; anything else is a path.

    Raises:
        UsageError: an unknown hyper-parameter, or settings on an artefact.
        DataError: the file of tuned values is not one.
        ArtefactError: neither a name nor a usable artefact.
    """
    if reference.name in OPTIMIZERS:
        return _hand_designed(reference)
    if not reference.name or not Path(reference.name).exists():
        hint = nearest_hint(reference.name, OPTIMIZERS)
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
    _look_up("schedule", schedule, SCHEDULES)
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
        return _Values(_look_up("preset", reference.preset, presets), "constant")
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


def _learned_optimizer(
    architecture: str, settings: Mapping[str, Any], parametrization: str
) -> LearnedOptimizer:
    entry = _look_up("architecture", architecture, LEARNED_OPTIMIZERS)
    return entry.make(entry.config(**settings), LEARNED_OPTIMIZER_RULES[parametrization])


def _look_up(what: str, name: str, shelf: Mapping[str, Entry]) -> Entry:
    if name not in shelf:
        raise UsageError(f"unknown {what} {name!r}", nearest_hint(name, shelf))
    return shelf[name]


def _fields(config: Callable[..., Entry], section: Any) -> Entry:
    """Build an engine's configuration from the recipe's section with the same field names."""
    fields = dataclasses.fields(cast(Any, config))
    return config(**{field.name: getattr(section, field.name) for field in fields})
