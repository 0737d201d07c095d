"""Meta-train on whatever devices and processes this process is given, and print theta's checksum.

    python -m tests.meta_training.one_layout DIRECTORY MOST_STEPS [COORDINATOR COUNT INDEX]

Run by the tests of layouts: devices and processes are fixed before jax begins. Two tasks (one of
them next to nothing, quick to compile), eight pairs each, one pair a block; a run that is in
DIRECTORY goes on.
"""

import sys
from pathlib import Path

import jax

from mulo_cli.gradient_estimators.antithetic import EstimatorConfig
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.meta_training.checkpoints import Checkpoints
from mulo_cli.meta_training.meta_loop import Ended, meta_train
from mulo_cli.meta_training.meta_optimizer import MetaOptimizerConfig, meta_optimizer
from mulo_cli.meta_training.training import MetaTraining, lay_out
from mulo_cli.meta_training.validation import ValidationConfig
from mulo_cli.results.records import MetaStepRecord
from tests.worlds import descent_optimizer, digits_task, quadratic_task

STEPS, PAIRS, TRUNCATION = 20, 8, 5


def training() -> MetaTraining:
    """Return a meta-training that takes a second, and whose every number hangs on rounding."""
    tasks, learned = (digits_task(8, depth=1), quadratic_task()), descent_optimizer()
    config = EstimatorConfig(PAIRS, 1, 0.01, TRUNCATION, 10, 25)
    return MetaTraining(
        tasks=tasks,
        learned_optimizer=learned,
        estimators=tuple(pes(task, learned, config) for task in tasks),
        optimizer=meta_optimizer(MetaOptimizerConfig(STEPS, 2, 0.01, 0.001, 0.0, 1.0)),
        validation=ValidationConfig(every=10, seeds=1, steps=10, window=5),
        steps=STEPS,
        seed=3,
        checkpoint_every=5,
        inner_steps=len(tasks) * 2 * PAIRS * TRUNCATION,
    )


def main(directory: str, most: str, coordinator: str = "", count: str = "1", index: str = "0"):
    """Do at most so many meta-steps; print layout and checksum."""
    if coordinator:
        jax.distributed.initialize(coordinator, int(count), int(index))
    jax.config.update("jax_numpy_dtype_promotion", "standard")  # optax's schedules need it
    checkpoints = Checkpoints(Path(directory), 2) if index == "0" else None
    what, records = training(), []
    layout = lay_out(what, jax.devices())

    def enough() -> bool:
        return sum(isinstance(record, MetaStepRecord) for record in records) >= int(most)

    for record in meta_train(what, checkpoints, enough, layout=layout):
        records.append(record)  # enough() looks at the list while it grows
    ended = records[-1]
    assert isinstance(ended, Ended)
    print(len(set(layout.owners.values())), ended.step, ended.checksum, float(ended.best.loss))


if __name__ == "__main__":
    main(*sys.argv[1:])
