"""From recipes, references and artefacts to live objects; the only file that knows every shelf."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

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
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.references import OptimizerReference
from mulo_cli.recipes.schema import OptimizerSection, Recipe, TaskSection, as_dict, digest
from mulo_cli.results.environment import code_version
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
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


def load_learned_optimizer(path: Path) -> tuple[Card, LearnedOptimizer, Theta]:
    """Read an artefact, or the artefact of a finished run, and rebuild what it describes.

    Raises:
        ArtefactError: missing, damaged, or of an architecture this version does not have.
    """
    path = find_artefact(path)
    card = load_card(path)
    try:
        optimizer = _learned_optimizer(card.architecture, card.settings, card.parametrization)
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
        ArtefactError: neither a name nor a usable artefact.
    """
    if reference.name in OPTIMIZERS:
        return _hand_designed(reference)
    if not Path(reference.name).exists():
        hint = nearest_hint(reference.name, OPTIMIZERS)
        raise UsageError(
            f"{reference.name!r} is neither an optimizer nor an artefact",
            f"{hint}, or give the directory of a finished run",
        )
    if reference.settings:
        raise UsageError(
            f"optimizer {reference.text!r}: a meta-learned optimizer has no settings",
            "leave them away",
        )
    card, optimizer, theta = load_learned_optimizer(Path(reference.name))
    make = functools.partial(_build_with_theta, optimizer)
    return NamedOptimizer(reference.text, card.parametrization, make, theta)


def _hand_designed(reference: OptimizerReference) -> NamedOptimizer:
    entry = OPTIMIZERS[reference.name]
    for key in reference.settings:
        if key not in entry.defaults:
            raise UsageError(
                f"{reference.name} has no hyper-parameter {key!r}",
                nearest_hint(key, entry.defaults),
            )
    hyper = {**entry.defaults, **reference.settings}
    return NamedOptimizer(reference.text, entry.parametrization, entry.make, hyper)


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
