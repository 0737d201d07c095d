"""From names and sections to data sets, networks and tasks."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from mulo_cli.assembly.shelves import look_up
from mulo_cli.datasets.base import Dataset, at_length
from mulo_cli.errors import UsageError
from mulo_cli.optimizees.catalogue import OPTIMIZEES, OptimizeeEntry
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.references import NamedReference, parse_named
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.evaluate import EvaluationTask
from mulo_cli.tasks.base import Task, supervised_task

USUAL_DATASETS = {"images": "digits", "text": "pydoc"}
"""Real data that comes with Python and the packages, by what networks read."""

NOTHING: Mapping[str, str] = {}
"""What most optimizers ask of networks."""

PRECISION = "matmul_precision"
"""The option of every network that a recipe has a key for."""

EXACT = "float32"
"""The usual precision of matrix products, which names do not tell."""

LENGTH = "length"
"""The option of networks that read text that says how many tokens an example has."""


def usual_dataset(network: str) -> str:
    """Return the data set that a network is trained on when none is named: every machine has it.

    Raises:
        UsageError: there is no such network.
    """
    entry = look_up("optimizee", parse_named(network).name, OPTIMIZEES)
    return USUAL_DATASETS[entry.reads]


def build_task(
    section: TaskSection,
    dataset: Dataset,
    width: int,
    parametrization: str,
    asked: Mapping[str, str] = NOTHING,
) -> Task:
    """Build the task of one width.

    Args:
        section: what is trained.
        dataset: on what.
        width: of the network.
        parametrization: of the network.
        asked: options that an optimizer asks for (`NamedOptimizer.network`); those of the section
            win.

    Raises:
        UsageError: network and data set do not fit, or an option is not the network's.
    """
    section = spelled_out(section)
    reference = parse_named(section.optimizee)
    entry = look_up("optimizee", reference.name, OPTIMIZEES)
    _refuse_misfits(section, entry, dataset)
    wanted = dataclasses.replace(reference, options={**asked, **reference.options})
    options = _options(wanted, entry)
    if entry.reads == "text":
        dataset = at_length(dataset, options.pop(LENGTH, entry.length))
    make = _network_of(entry, options, section, dataset, width, parametrization)
    name = f"{section.optimizee}-{dataset.name}-w{width}"
    return supervised_task(name, dataset, make, width, section.batch_size)


def build_evaluation_task(
    section: TaskSection,
    dataset: Dataset,
    width: int,
    parametrization: str,
    asked: Mapping[str, str] = NOTHING,
) -> EvaluationTask:
    """Build the task of one width with the facts that evaluation rows tell; as `build_task`."""
    section = spelled_out(section)
    return EvaluationTask(
        task=build_task(section, dataset, width, parametrization, asked),
        test_data=dataset.splits["test"],
        optimizee=section.optimizee,
        dataset=dataset.name,
        real=dataset.real,
        width=width,
        depth=section.depth,
        batch_size=section.batch_size,
        digest=dataset.digest,
    )


def spelled_out(section: TaskSection) -> TaskSection:
    """Return a section whose network's name tells the precision of its products, as rows do.

    Raises:
        UsageError: the name tells it already.
    """
    if section.matmul_precision == EXACT:
        return section
    refuse_precision_in_name(section)
    optimizee = with_option(section.optimizee, PRECISION, section.matmul_precision)
    return dataclasses.replace(section, optimizee=optimizee, matmul_precision=EXACT)


def refuse_precision_in_name(section: TaskSection) -> None:
    """Let a recipe tell the precision of matrix products in one place.

    Raises:
        UsageError: the network's name tells it.
    """
    if PRECISION in parse_named(section.optimizee).options:
        raise UsageError(
            f"task.optimizee = {section.optimizee!r} tells {PRECISION}",
            f"in a recipe that is a key of its own: task.{PRECISION}",
        )


def with_option(network: str, key: str, value: str | int) -> str:
    """Return a network's name with one more option."""
    return f"{network}{',' if parse_named(network).options else ':'}{key}={value}"


def _network_of(
    entry: OptimizeeEntry,
    options: Mapping[str, Any],
    section: TaskSection,
    dataset: Dataset,
    width: int,
    parametrization: str,
) -> Callable[[int], nn.Module]:
    """Return width -> network; what depends on the width of the task stays as it is there."""
    settings = {**entry.usual_options(width), **options}

    def make(width: int) -> nn.Module:
        return entry.make(
            width=width,
            depth=section.depth,
            num_classes=dataset.num_classes,
            parametrization=parametrization,
            **settings,
        )

    return make


def _refuse_misfits(section: TaskSection, entry: OptimizeeEntry, dataset: Dataset) -> None:
    if entry.reads != dataset.kind:
        fitting = ", ".join(name for name, one in OPTIMIZEES.items() if one.reads == dataset.kind)
        raise UsageError(
            f"{section.optimizee} reads {entry.reads}, and {dataset.name} is {dataset.kind}",
            f"networks for {dataset.kind} are: {fitting}; "
            "`mulo data list` tells what data sets there are",
        )
    if section.batch_size > dataset.sizes["train"]:
        raise UsageError(
            f"a batch size of {section.batch_size} is larger than {dataset.name} "
            f"({dataset.sizes['train']} training examples)",
            "lower the batch size",
        )


def _options(reference: NamedReference, entry: OptimizeeEntry) -> dict[str, Any]:
    """Return a network's options as values of their types."""
    known = {**entry.options, **({LENGTH: int} if entry.reads == "text" else {})}
    for key in reference.options:
        if key not in known:
            raise UsageError(
                f"network {reference.name!r} has no option {key!r}", nearest_hint(key, known)
            )
    return {
        key: _value(reference, key, known[key], text) for key, text in reference.options.items()
    }


def _value(reference: NamedReference, key: str, kind: type, text: str) -> Any:
    words = {"true": True, "false": False}
    try:
        value = words[text] if kind is bool else kind(text)
        if kind is float and not math.isfinite(value):
            raise ValueError
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a finite number"}[kind]
        raise UsageError(
            f"{key}={text} in {reference.text!r} is not {wanted}", f"give {wanted}"
        ) from None
    if kind is int and value < 1:
        raise UsageError(f"{key}={text} in {reference.text!r} is below 1", "give 1 or more")
    return value
