"""From a recipe to everything that a meta-training needs."""

import dataclasses
from collections.abc import Mapping

import jax

from mulo_cli.artefacts.card import LICENCE_UNKNOWN, META_TRAINING, Card, fan_in_of
from mulo_cli.artefacts.parity import compute_parity
from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.learned import build_learned_optimizer
from mulo_cli.assembly.shelves import fields_of, look_up
from mulo_cli.assembly.tasks import build_task, refuse_precision_in_name
from mulo_cli.gradient_estimators.antithetic import SIGNS, EstimatorConfig
from mulo_cli.gradient_estimators.base import GradientEstimator
from mulo_cli.gradient_estimators.catalogue import GRADIENT_ESTIMATORS
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.meta_training.checkpoints import BestTheta
from mulo_cli.meta_training.meta_optimizer import MetaOptimizerConfig, meta_optimizer
from mulo_cli.meta_training.training import MetaTraining
from mulo_cli.meta_training.validation import ValidationConfig
from mulo_cli.recipes.schema import Recipe, as_dict, digest
from mulo_cli.results.environment import code_version
from mulo_cli.tasks.base import Task


def build_meta_training(recipe: Recipe, *, with_data: bool = True) -> MetaTraining:
    """Build everything that a recipe asks for.

    Args:
        recipe: resolved.
        with_data: False leaves shapes in place of data, enough to reckon a budget.

    Raises:
        UsageError: the recipe names something that no shelf has, or cannot be done.
        DataError: the data set is not there.
    """
    refuse_precision_in_name(recipe.task)
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
        optimizer=meta_optimizer(fields_of(MetaOptimizerConfig, recipe.meta_optimizer)),
        validation=fields_of(ValidationConfig, recipe.validation),
        steps=recipe.meta_optimizer.steps,
        seed=recipe.seed,
        checkpoint_every=recipe.checkpoint.every,
        inner_steps=len(tasks) * estimator.pairs * len(SIGNS) * estimator.truncation,
    )


def build_estimator(
    recipe: Recipe, task: Task, learned_optimizer: LearnedOptimizer
) -> GradientEstimator:
    """Build the gradient estimator of one task."""
    section = recipe.estimator
    make = look_up("gradient estimator", section.name, GRADIENT_ESTIMATORS)
    return make(task, learned_optimizer, fields_of(EstimatorConfig, section))


def build_card(recipe: Recipe, best: BestTheta, checksums: Mapping[str, str]) -> Card:
    """Write down what a finished meta-training has made.

    Args:
        recipe: what it was made with.
        best: the theta that is kept, its loss and its step.
        checksums: of the "best" and the "last" theta.
    """
    settings = dataclasses.asdict(recipe.optimizer)
    optimizer = build_learned_optimizer(recipe.optimizer, recipe.parametrization)
    return Card(
        name=f"{recipe.name}-{recipe.parametrization}",
        architecture=settings.pop("architecture"),
        settings=settings,
        parametrization=recipe.parametrization,
        fan_in=fan_in_of(settings),
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
        licence=LICENCE_UNKNOWN,
        code_version=code_version(),
        parity=compute_parity(optimizer, best.theta),
        notice="",
        source={"container": META_TRAINING},
    )
