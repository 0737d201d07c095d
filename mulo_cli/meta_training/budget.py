"""What a meta-training will cost, told from shapes alone: nothing is compiled or run."""

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mulo_cli.inner_training.state import InnerState, init_inner_state
from mulo_cli.inner_training.step import inner_step
from mulo_cli.inner_training.traced import count_flops, size_in_bytes, trace
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.meta_training.meta_step import make_init
from mulo_cli.meta_training.training import MetaTraining
from mulo_cli.tasks.base import Task
from mulo_cli.types import Data, PRNGKey, Theta

ATTAINED_SHARE = 0.14
"""Of a matrix product's speed, reached by the desk recipe on two CPU cores."""

PROBE_SIZE = 512
PROBE_REPEATS = 20


@dataclass(frozen=True)
class TaskBudget:
    """One task's share.

    Attributes:
        name: of the task.
        parameters: of its network.
        flops: floating-point operations of one inner step of one run.
    """

    name: str
    parameters: int
    flops: float


@dataclass(frozen=True)
class Budget:
    """What a whole meta-training costs.

    Attributes:
        meta_parameters: numbers in theta.
        tasks: per task.
        inner_steps: inner steps of all perturbed runs, meta-validation excluded.
        meta_training_flops: of all perturbed runs; two recipes with equal ones are matched.
        validation_flops: of all meta-validations.
        state_bytes: what is carried from meta-step to meta-step, and saved.
        data_bytes: the data sets as stored.
    """

    meta_parameters: int
    tasks: tuple[TaskBudget, ...]
    inner_steps: int
    meta_training_flops: float
    validation_flops: float
    state_bytes: int
    data_bytes: int


def estimate_budget(training: MetaTraining) -> Budget:
    """Add up parameters, floating-point operations and memory of a meta-training."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    init = make_init(training.learned_optimizer, training.estimators, training.optimizer)
    state = jax.eval_shape(init, key)
    tasks = tuple(
        _task_budget(task, training.learned_optimizer, state.shared.theta)
        for task in training.tasks
    )
    per_task = training.steps * training.inner_steps // len(tasks)
    validation = training.validation
    validations = 1 + -(-training.steps // validation.every)
    flops = sum(task.flops for task in tasks)
    return Budget(
        meta_parameters=count(state.shared.theta),
        tasks=tasks,
        inner_steps=training.steps * training.inner_steps,
        meta_training_flops=per_task * flops,
        validation_flops=validations * validation.seeds * validation.steps * flops,
        state_bytes=size_in_bytes(state),
        data_bytes=max(size_in_bytes(task.data) for task in training.tasks),
    )


def estimate_seconds(budget: Budget) -> float:
    """Guess how long a meta-training takes here, from the speed of one matrix product.

    Rough: the share of that speed which small networks reach differs between machines.
    """
    flops = budget.meta_training_flops + budget.validation_flops
    return flops / (ATTAINED_SHARE * _matrix_product_speed())


def count(tree: PyTree) -> int:
    """Return how many numbers a tree of arrays or shapes holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _task_budget(task: Task, learned_optimizer: LearnedOptimizer, theta: PyTree) -> TaskBudget:
    """Trace one inner step and count its operations; of theta the shapes will do."""
    horizon = jnp.int32(1)

    def init(theta: Theta, key: PRNGKey) -> InnerState:
        return init_inner_state(task, learned_optimizer.build(theta, task.roles, horizon), key)

    def step(theta: Theta, state: InnerState, data: Data, key: PRNGKey) -> InnerState:
        optimizer = learned_optimizer.build(theta, task.roles, horizon)
        return inner_step(task, optimizer, state, task.batch(data, key, state.step))[0]

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(init, theta, key)
    data = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), task.data)
    flops = count_flops(trace(step, theta, state, data, key))
    return TaskBudget(task.name, count(state.params), float(flops))


def _matrix_product_speed() -> float:
    """Return floating-point operations per second of a matrix product on the default device."""
    product = jax.jit(lambda x: x @ x / PROBE_SIZE)
    x = jnp.ones((PROBE_SIZE, PROBE_SIZE))
    jax.block_until_ready(product(x))
    started = time.perf_counter()
    for _ in range(PROBE_REPEATS):
        x = product(x)
    jax.block_until_ready(x)
    return PROBE_REPEATS * 2 * PROBE_SIZE**3 / (time.perf_counter() - started)
