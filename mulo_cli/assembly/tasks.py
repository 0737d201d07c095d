"""From names and sections to data sets and tasks."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from mulo_cli.assembly.shelves import look_up
from mulo_cli.datasets.base import Dataset
from mulo_cli.datasets.catalogue import DATASETS, DatasetEntry
from mulo_cli.errors import UsageError
from mulo_cli.optimizees.catalogue import OPTIMIZEES
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.evaluate import EvaluationTask
from mulo_cli.tasks.base import Task, classification_task


def build_dataset(name: str, *, with_data: bool = True) -> Dataset:
    """Load a data set by name, onto the default device as stored."""
    entry: DatasetEntry = look_up("data set", name, DATASETS)
    if not with_data and entry.describe is not None:
        return entry.describe()
    dataset = entry.load()
    return dataclasses.replace(dataset, splits=jax.tree.map(jnp.asarray, dict(dataset.splits)))


def build_task(section: TaskSection, dataset: Dataset, width: int, parametrization: str) -> Task:
    """Build the task of one width."""
    make = look_up("optimizee", section.optimizee, OPTIMIZEES)
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
