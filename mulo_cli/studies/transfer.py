"""Learning-rate transfer: all rates of one size as lanes of one program, seed by seed.

A. Gupta et al., "Extending muP: spectral conditions for feature learning across optimizers",
appendix D: losses at each learning rate and width or depth; a training stops once its validation
loss has not improved for 150 iterations.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mulo_cli.results.transfer_records import TransferIdentity, TransferRow
from mulo_cli.studies.costs import training_costs
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask, Progress
from mulo_cli.studies.lane_count import UNKNOWN, fitting_programs, most_lanes
from mulo_cli.studies.lanes import Lane, lane_programs
from mulo_cli.studies.seats import (
    Ended,
    Measured,
    SeatPrograms,
    Trial,
    compile_seats,
    largest_seed,
    take_turns,
)
from mulo_cli.types import Data, Hyper


@dataclass(frozen=True)
class TransferConfig:
    """How each training goes.

    Attributes:
        steps: at most; a multiple of `validate_every`.
        validate_every: steps between two validations.
        validation_batches: of the test split; the same each time, for all networks.
        patience: steps without a lower validation loss after which a training stops.
        window: steps whose mean is the smoothed training loss.
    """

    steps: int
    validate_every: int
    validation_batches: int
    patience: int
    window: int


def transfer_identity(
    task: EvaluationTask, trial: Trial, config: TransferConfig, code_version: str
) -> TransferIdentity:
    """Return what a row will say of itself; nothing is trained."""
    return TransferIdentity(
        optimizer=trial.optimizer.name,
        learning_rate=trial.optimizer.hyper["learning_rate"],
        settings=trial.optimizer.settings,
        parametrization=trial.optimizer.parametrization,
        task=task.optimizee,
        dataset=task.dataset,
        real=task.real,
        width=task.width,
        depth=task.depth,
        batch_size=task.batch_size,
        seed=trial.seed,
        **vars(config),
        code_version=code_version,
        data=task.digest,
    )


def compile_transfer(
    task: EvaluationTask,
    trials: Sequence[Trial],
    config: TransferConfig,
    lanes: int | None,
    budget: int = UNKNOWN,
) -> SeatPrograms:
    """Compile lanes for the trials of one size; a segment ends with a validation.

    Args:
        task: what is trained.
        trials: all of this size, done or not.
        config: how.
        lanes: how many; None: as many as fit.
        budget: bytes that they may take then.

    Raises:
        MuloError: there is no room for one lane.
    """
    optimizer = trials[0].optimizer
    lane = lane_programs(task.task, optimizer.make, config.steps)

    def train(
        state: Lane, hyper: Hyper, data: dict[str, Data], numbers: Int[Array, " K"]
    ) -> tuple[Lane, Measured]:
        state, losses = lane.train(state, hyper, data["train"], numbers)
        batches = jnp.arange(config.validation_batches)
        return state, Measured(losses, lane.validation_loss(state, hyper, data["test"], batches))

    data = {"train": task.task.data, "test": task.test_data}
    numbers = np.arange(config.validate_every, dtype=np.int32)

    def compile_lanes(lanes: int) -> SeatPrograms:
        return compile_seats(lane.start, train, data, trials[0], numbers, lanes, budget)

    if lanes is not None:
        return compile_lanes(lanes)
    like = EvaluationConfig(config.steps, 1, config.window, (config.steps,))
    of_one = training_costs(task, optimizer, like, 0).network_bytes
    together = largest_seed(trials)
    return fitting_programs(compile_lanes, together, of_one, budget, most_lanes(together))


def measure_transfer(
    task: EvaluationTask,
    trials: Sequence[Trial],
    config: TransferConfig,
    programs: SeatPrograms,
    code_version: str,
) -> Generator[Progress | TransferRow, None, None]:
    """Train every trial until it stops and yield its row then, in no particular order.

    Args:
        task: of one size.
        trials: at least one; rates and seeds.
        config: how.
        programs: compiled for such trials.
        code_version: told in rows.
    """

    def has_ended(done: Sequence[Measured]) -> bool:
        validation = np.array([of.validation for of in done])
        return not _is_finite(done[-1]) or stops_early(
            validation, config.validate_every, config.patience
        )

    with closing(take_turns(trials, programs, config.steps, has_ended)) as records:
        for record in records:
            if isinstance(record, Ended):
                told = transfer_identity(task, record.trial, config, code_version)
                yield TransferRow(
                    **vars(told),
                    **summarise(record, config),
                    parameters=record.sizes["parameters"],
                    seconds_per_step=record.seconds_per_step,
                )
            else:
                yield record


def stops_early(validation: Float[np.ndarray, " V"], every: int, patience: int) -> bool:
    """Whether a training stops: its lowest validation loss is `patience` steps ago or more.

    Args:
        validation: losses, one each `every` steps; equal ones are no improvement.
        every: steps between two of them.
        patience: steps.
    """
    return (len(validation) - 1 - _lowest(validation)) * every >= patience


def summarise(ended: Ended, config: TransferConfig) -> dict[str, Any]:
    """Return the fields of a row that losses tell."""
    validation = np.array([of.validation for of in ended.segments])
    told = {
        "stopped_at": len(ended.losses),
        "validation": tuple(float(of) if np.isfinite(of) else None for of in validation),
    }
    if not all(map(_is_finite, ended.segments)):
        nothing = dict.fromkeys(("validation_loss", "training_loss", "best_step"))
        return {**told, **nothing, "status": "diverged"}
    best = _lowest(validation)
    best_step = (best + 1) * config.validate_every
    early = stops_early(validation, config.validate_every, config.patience)
    return {
        **told,
        "validation_loss": float(validation[best]),
        "training_loss": float(
            np.mean(ended.losses[max(0, best_step - config.window) : best_step])
        ),
        "best_step": best_step,
        "status": "stopped early" if early else "all steps",
    }


def _is_finite(segment: Measured) -> bool:
    return all(np.isfinite(np.asarray(told)).all() for told in segment)


def _lowest(validation: Float[np.ndarray, " V"]) -> int:
    """Return the place of the first lowest loss; one that is not finite is above all others."""
    return int(np.argmin(np.where(np.isfinite(validation), validation, np.inf)))
