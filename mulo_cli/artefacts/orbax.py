"""Orbax as we use it: one process writes and reads, whoever else takes part in its work.

Left to itself Orbax lets all processes of `jax.distributed` write together, and waits for them.
"""

import jax
import orbax.checkpoint as ocp


def checkpointer() -> ocp.Checkpointer:
    """Return what writes and reads trees of arrays in this process alone."""
    handler = ocp.StandardCheckpointHandler
    if jax.process_count() == 1:
        return ocp.Checkpointer(handler())
    us = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=us, active_processes={us}, barrier_sync_key_prefix=f"process-{us}"
    )
    return ocp.Checkpointer(handler(multiprocessing_options=alone), multiprocessing_options=alone)
