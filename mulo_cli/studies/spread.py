"""What a study trains, spread over several devices: as it was before, but for where it lies."""

import dataclasses

from jax.sharding import Mesh

from mulo_cli.inner_training.sharding import placed, spread_task
from mulo_cli.studies.evaluate import EvaluationTask


def spread(task: EvaluationTask, mesh: Mesh | None) -> EvaluationTask:
    """Return a task each of whose networks is spread over a mesh.

    Args:
        task: with its data, of which every device gets all.
        mesh: of `mesh_of`; None: nothing is changed.
    """
    if mesh is None:
        return task
    return dataclasses.replace(
        task, task=spread_task(task.task, mesh), test_data=placed(task.test_data, mesh), mesh=mesh
    )
