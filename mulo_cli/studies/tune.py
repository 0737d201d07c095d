"""Tune: a grid of configurations as lanes of one compiled program.

muLO (B. Therien et al., 2025), appendix B, tunes AdamW and muAdam over some 500 configurations.
"""

from collections.abc import Generator, Sequence
from contextlib import closing

import numpy as np
from jaxtyping import Array, Int

from mulo_cli.results.records import EvaluationRow
from mulo_cli.studies.costs import training_costs
from mulo_cli.studies.evaluate import (
    EvaluationConfig,
    EvaluationTask,
    Progress,
    identity,
)
from mulo_cli.studies.lane_count import UNKNOWN, fitting_programs, most_lanes
from mulo_cli.studies.lanes import Lane, lane_programs, segments
from mulo_cli.studies.loss_summaries import summarise_losses
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


def compile_tuning(
    task: EvaluationTask,
    trials: Sequence[Trial],
    config: EvaluationConfig,
    lanes: int | None,
    budget: int = UNKNOWN,
) -> SeatPrograms:
    """Compile lanes for the trials of a search.

    Args:
        task: what is trained.
        trials: all of the search, done or not: on them, not on what is left, depends the number.
        config: how.
        lanes: how many; None: as many as fit.
        budget: bytes that they may take then.

    Raises:
        MuloError: there is no room for one lane.
    """
    optimizer = trials[0].optimizer
    lane = lane_programs(task.task, optimizer.make, config.steps)

    def train(
        state: Lane, hyper: Hyper, data: Data, numbers: Int[Array, " K"]
    ) -> tuple[Lane, Measured]:
        state, losses = lane.train(state, hyper, data, numbers)
        return state, Measured(losses)

    numbers = segments(config.steps)[0]

    def compile_lanes(lanes: int) -> SeatPrograms:
        return compile_seats(lane.start, train, task.task.data, trials[0], numbers, lanes, budget)

    if lanes is not None:
        return compile_lanes(lanes)
    of_one = training_costs(task, optimizer, config, 0).network_bytes
    together = largest_seed(trials)
    return fitting_programs(compile_lanes, together, of_one, budget, most_lanes(together))


def tune(
    task: EvaluationTask,
    trials: Sequence[Trial],
    config: EvaluationConfig,
    programs: SeatPrograms,
    code_version: str,
) -> Generator[Progress | EvaluationRow, None, None]:
    """Train every trial and yield its row when it has ended, in no particular order.

    A `Progress`, after each segment of a wave, counts the steps of all trials together. A run that
    diverges ends with its segment, and counts as if it had done all of its steps.

    Args:
        task: what is trained.
        trials: at least one.
        config: `seeds` is not looked at: trials name theirs.
        programs: compiled for such trials.
        code_version: told in rows.
    """
    with closing(take_turns(trials, programs, config.steps, has_diverged)) as records:
        for record in records:
            yield _row(task, record, config, code_version) if isinstance(record, Ended) else record


def has_diverged(done: Sequence[Measured]) -> bool:
    """Whether the last segment has a loss that is not finite: there is nothing to hope for."""
    return not np.isfinite(done[-1].losses).all()


def _row(
    task: EvaluationTask, ended: Ended, config: EvaluationConfig, code_version: str
) -> EvaluationRow:
    """Return the row of a trial; what a diverged one did not do counts as not finite."""
    done = ended.losses[: config.steps]
    losses = np.pad(done, (0, config.steps - len(done)), constant_values=np.nan)
    trial = ended.trial
    return EvaluationRow(
        **vars(identity(task, trial.optimizer, config, trial.seed, code_version)),
        **summarise_losses(losses, config.window, config.at),
        **ended.sizes,
        test_accuracy=None,
        seconds_per_step=ended.seconds_per_step,
    )
