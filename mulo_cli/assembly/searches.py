"""From a grid to trials: every configuration of an optimizer, for every seed."""

import dataclasses
from collections.abc import Mapping, Sequence

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.shelves import look_up
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.datasets.base import Dataset
from mulo_cli.errors import UsageError
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.optimizers.schedules import SCHEDULES
from mulo_cli.recipes.grids import Grid
from mulo_cli.recipes.references import OptimizerReference, parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.search_file import Facts
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.studies.seats import Trial

RATE = "learning_rate"

NO_SCHEDULE = ("none", "constant")
"""Two words for a rate that stays as it is; rows do not tell it."""


def build_trials(
    text: str, schedule: str, grid: Grid, seeds: int, parametrization: str | None = None
) -> tuple[Trial, ...]:
    """Build every configuration of a grid for every seed.

    Args:
        text: the optimizer; it may have settings that the grid does not vary.
        schedule: of the learning rate; `none` is `constant`.
        grid: varies the rest.
        seeds: trials of each configuration.
        parametrization: of the networks; None: the optimizer's own.

    Raises:
        UsageError: the optimizer does not have one of the grid's hyper-parameters, or grid and
            settings both give it.
    """
    reference = _tunable(text, grid, schedule, parametrization)
    optimizers = [
        build_named_optimizer(_configured(reference, configuration))
        for configuration in grid.configurations()
    ]
    return tuple(Trial(optimizer, seed) for optimizer in optimizers for seed in range(seeds))


def build_transfer_trials(
    text: str, schedule: str, grid: Grid, seeds: int, parametrization: str | None = None
) -> tuple[Trial, ...]:
    """Build every learning rate for every seed; their optimizers are named without the rate.

    Raises:
        UsageError: as for `build_trials`; or the grid varies something else, or no rate.
    """
    varied = [name for name, values in grid.values.items() if len(values) > 1 and name != RATE]
    if varied or RATE not in grid.values:
        raise UsageError(
            f"the grid varies {', '.join(varied)}" if varied else f"the grid has no {RATE}",
            f"--transfer looks at learning rates: give a list of {RATE} and one value of the rest",
        )
    beside = {name: value for name, (value, *_) in grid.values.items() if name != RATE}
    name = _written(text, beside)
    return tuple(
        dataclasses.replace(trial, optimizer=dataclasses.replace(trial.optimizer, name=name))
        for trial in build_trials(text, schedule, grid, seeds, parametrization)
    )


def build_task_for(
    optimizer: NamedOptimizer, section: TaskSection, dataset: Dataset | None = None
) -> EvaluationTask:
    """Build the task that an optimizer is tried on.

    Args:
        optimizer: has the parametrization, and may ask for options of the network.
        section: of one width.
        dataset: None: it is loaded.
    """
    (width,) = section.widths
    dataset = dataset or build_dataset(section.dataset)
    return build_evaluation_task(
        section, dataset, width, optimizer.parametrization, optimizer.network
    )


def program_facts(task: EvaluationTask, trials: Sequence[Trial], steps: int) -> Facts:
    """Return what tells the program of a search from others, in words.

    Args:
        task: what is trained.
        trials: all of the search: their programs are the same, and their number is a bound on
            lanes, so that a larger grid chooses anew.
        steps: of a training.
    """
    optimizer = trials[0].optimizer
    settings = optimizer.settings
    words = {key: value for key, value in settings.items() if isinstance(value, str)}
    return {
        "optimizer": optimizer.name.partition(":")[0],
        "varied": " ".join(settings),
        **words,
        "parametrization": optimizer.parametrization,
        "task": task.optimizee,
        "dataset": task.dataset,
        "data": task.digest,
        "width": task.width,
        "depth": task.depth,
        "batch_size": task.batch_size,
        "steps": steps,
        "trials": len(trials),
    }


def _tunable(
    text: str, grid: Grid, schedule: str, parametrization: str | None
) -> OptimizerReference:
    reference = parse_optimizer(text)
    look_up("optimizer", reference.name, OPTIMIZERS)
    for name in grid.values:
        if name in reference.settings:
            raise UsageError(
                f"{text!r} sets {name}, and the grid varies it", "leave it to one of them"
            )
    if schedule not in NO_SCHEDULE:
        look_up("schedule", schedule, SCHEDULES)
        reference = _with_word(reference, "schedule", schedule)
    if parametrization is not None:
        reference = _with_word(reference, "parametrization", parametrization)
    return reference


def _with_word(reference: OptimizerReference, name: str, value: str) -> OptimizerReference:
    if getattr(reference, name) not in (None, value):
        raise UsageError(
            f"{reference.text!r} says another {name} than --{name} {value}", "leave one of them"
        )
    return dataclasses.replace(reference, **{name: value})


def _configured(
    reference: OptimizerReference, configuration: Mapping[str, float]
) -> OptimizerReference:
    """Return an optimizer with one configuration, named as a user would write it."""
    said = {"schedule": reference.schedule, "parametrization": reference.parametrization}
    words = {key: word for key, word in said.items() if word and f"{key}=" not in reference.text}
    return dataclasses.replace(
        reference,
        text=_written(reference.text, {**configuration, **words}),
        settings={**reference.settings, **configuration},
    )


def _written(text: str, settings: Mapping[str, float | str]) -> str:
    """Add settings to what was written of an optimizer."""
    parts = [f"{key}={value}" for key, value in settings.items()]
    return ("," if ":" in text else ":").join([text, ",".join(parts)]) if parts else text
