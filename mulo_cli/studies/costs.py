"""What a training will cost, told from shapes alone: nothing is compiled or run.

Memory is that of the networks of one program, as `evaluate` groups seeds, beside one copy of the
data; more programs train at once only where there is room.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from mulo_cli.inner_training.state import InnerState
from mulo_cli.inner_training.traced import count_flops, peak_bytes, size_in_bytes, trace
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationTask, NamedOptimizer
from mulo_cli.studies.lane_count import PROGRAM_BYTES, even_lanes, most_lanes
from mulo_cli.studies.lanes import lane_programs
from mulo_cli.types import Data, Hyper, Params, PRNGKey


@dataclass(frozen=True)
class TrainingCosts:
    """What the trainings of one optimizer on one task cost.

    Attributes:
        parameters: of one network.
        parameter_bytes, optimizer_bytes, gradient_bytes: of one network.
        activation_bytes: of one network: its batch, what its backward pass keeps and makes.
        update_bytes: of one network: what one update makes beside the new parameters and state.
        data_bytes: both splits, as far as they rest on the device.
        flops: floating-point operations of one step of one network.
        seeds: networks, one of each.
        steps: of each training.
    """

    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    gradient_bytes: int
    activation_bytes: int
    update_bytes: int
    data_bytes: int
    flops: int
    seeds: int
    steps: int

    @property
    def network_bytes(self) -> int:
        """Memory of one network in training."""
        return (
            self.parameter_bytes
            + self.optimizer_bytes
            + self.gradient_bytes
            + self.activation_bytes
            + self.update_bytes
        )

    @property
    def together(self) -> int:
        """Networks of one program."""
        fitting = PROGRAM_BYTES // max(1, self.network_bytes)
        return even_lanes(self.seeds, min(fitting, most_lanes(self.seeds)))

    @property
    def memory(self) -> int:
        """Bytes of the networks of one program, and of the data."""
        return self.data_bytes + self.together * self.network_bytes

    @property
    def training_flops(self) -> int:
        """Floating-point operations of all trainings."""
        return self.flops * self.steps * self.seeds


def training_costs(
    task: EvaluationTask, optimizer: NamedOptimizer, config: EvaluationConfig, data_bytes: int
) -> TrainingCosts:
    """Tell parameters, memory and floating-point operations of a training.

    Args:
        task: its data may be shapes alone.
        optimizer: trains it.
        config: how.
        data_bytes: of the data that rests on the device.
    """
    network = task.task
    steps = jnp.int32(config.steps)

    def learn(params: Params, data: Data, key: PRNGKey, step: Array) -> tuple[Params, Array]:
        batch = network.batch(data, key, step)
        (loss, _), gradients = jax.value_and_grad(network.loss, has_aux=True)(params, batch)
        return gradients, loss

    def update(
        hyper: Hyper, before: InnerState, gradients: Params, loss: Array, data: Data, key: PRNGKey
    ) -> tuple[Params, optax.OptState]:
        batch = network.batch(data, key, before.step)
        made = optimizer.make(hyper, network.roles, steps)
        updates, state = made.update(
            gradients,
            before.optimizer_state,
            before.params,
            loss=loss,
            obj_fn=lambda params: network.loss(params, batch)[0],
        )
        return optax.apply_updates(before.params, updates), state

    key = jax.eval_shape(lambda: jax.random.key(0))
    start = lane_programs(network, optimizer.make, config.steps).start
    before = jax.eval_shape(start, key, optimizer.hyper).state
    params, state, step = before
    data = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), network.data)
    loss = jax.ShapeDtypeStruct((), jnp.float32)
    learning = trace(learn, params, data, key, step)
    updating = trace(update, optimizer.hyper, before, params, loss, data, key)
    own, remembered = size_in_bytes(params), size_in_bytes(state)
    return TrainingCosts(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        parameter_bytes=own,
        optimizer_bytes=remembered,
        gradient_bytes=own,
        activation_bytes=max(0, peak_bytes(learning) - own),
        update_bytes=max(0, peak_bytes(updating) - own - remembered),
        data_bytes=data_bytes,
        flops=count_flops(learning) + count_flops(updating),
        seeds=config.seeds,
        steps=config.steps,
    )
