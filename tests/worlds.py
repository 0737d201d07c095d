"""Small worlds for tests: tasks and learned optimizers whose every number can be told by hand."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.tasks import build_task
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.small_fc_lopt import SmallFcLoptConfig, small_fc_lopt
from mulo_cli.mup.roles import infer_roles
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.tasks.base import Task, TaskAux
from mulo_cli.types import Batch

DECAY = 0.8
"""`a` of the linear world x <- a x + theta."""

START = 2.0
"""x at the start of a run in the linear world."""


def quadratic_task() -> Task:
    """Loss x^2 / 2 of a single number that starts at `START`; it has no ceiling."""

    def init(key: jax.Array) -> dict[str, jax.Array]:
        del key
        return {"x": jnp.float32(START)}

    def loss(params: dict[str, jax.Array], batch: Batch) -> tuple[jax.Array, TaskAux]:
        del batch
        value = 0.5 * jnp.square(params["x"])
        return value, TaskAux(value, value[None, None], {})

    def batch(data: Any, key: jax.Array, step: jax.Array) -> Batch:
        del key, step
        return Batch(data["inputs"], data["targets"])

    data = {"inputs": jnp.zeros((1, 1)), "targets": jnp.zeros((1,), jnp.int32)}
    return Task("quadratic", infer_roles(init, init), data, batch, init, loss, None)


class NoState(NamedTuple):
    """The linear optimizer remembers nothing."""


def linear_optimizer(theta: float = 0.3) -> LearnedOptimizer:
    """Return the rule x <- a x + theta, which makes every loss quadratic in theta."""

    def build(meta: Any, roles: Any, num_steps: Any) -> optax.GradientTransformationExtraArgs:
        del roles, num_steps

        def update(updates: Any, state: NoState, params: Any = None, **extra: Any):
            del updates, extra
            return jax.tree.map(lambda x: (DECAY - 1.0) * x + meta["push"], params), state

        return optax.GradientTransformationExtraArgs(lambda params: NoState(), update)

    return LearnedOptimizer(lambda key: {"push": jnp.float32(theta)}, build)


def descent_optimizer() -> LearnedOptimizer:
    """Return gradient descent with momentum, both of them learned: quick to compile."""

    def build(meta: Any, roles: Any, num_steps: Any) -> optax.GradientTransformationExtraArgs:
        del roles, num_steps
        descent = optax.chain(optax.trace(meta["momentum"]), optax.scale(-meta["rate"]))
        return optax.with_extra_args_support(descent)

    def init(key: jax.Array) -> dict[str, jax.Array]:
        del key
        return {"rate": jnp.float32(0.1), "momentum": jnp.float32(0.5)}

    return LearnedOptimizer(init, build)


def digits_task(
    width: int, parametrization: str = "mup", batch_size: int = 32, depth: int = 3
) -> Task:
    """Return an MLP of so many hidden layers on the digits."""
    section = TaskSection("digits", "mlp", [width], depth, batch_size)
    return build_task(section, build_dataset("digits"), width, parametrization)


def small_optimizer(parametrization: str = "mup", hidden_size: int = 4) -> LearnedOptimizer:
    """Return small_fc_lopt as the desk recipe has it."""
    config = SmallFcLoptConfig(hidden_size=hidden_size, step_size=0.03)
    return small_fc_lopt(config, LEARNED_OPTIMIZER_RULES[parametrization])
