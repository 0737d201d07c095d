"""One inner step: a batch, its gradient, one update."""

import jax
import optax
from jaxtyping import Array, Float

from mulo_cli.inner_training.state import InnerState
from mulo_cli.tasks.base import Task
from mulo_cli.types import Batch


def inner_step(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    state: InnerState,
    batch: Batch,
) -> tuple[InnerState, Float[Array, ""]]:
    """Train one step.

    Returns:
        The next state, and the loss of the batch at the parameters *before* their update.
    """
    (loss, _), gradients = jax.value_and_grad(task.loss, has_aux=True)(state.params, batch)
    updates, optimizer_state = optimizer.update(
        gradients,
        state.optimizer_state,
        state.params,
        loss=loss,
        obj_fn=lambda params: task.loss(params, batch)[0],  # second-order optimizers want it
    )
    params = optax.apply_updates(state.params, updates)
    return InnerState(params, optimizer_state, state.step + 1), loss
