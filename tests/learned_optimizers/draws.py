"""Random worlds for learned optimizers: tensors, gradients, losses and meta-parameters to try."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mulo_cli.mup.roles import ParamRole, RoleKind

UPDATES = 6

PARAM_SCALE = 0.05
"""Parameters and their updates are so small that storing them in float32 loses less than 1e-8."""

SHAPES = [(), (1,), (7,), (3, 5), (5, 3), (4, 4), (1, 6), (2, 3, 4), (3, 3, 2), (2, 2, 3, 3)]
"""Every rank from 0 to 4, with ties between axes, both orders, and axes of length one."""

MAGNITUDES = [0.0, 1e-4, 1.0, 1e3]

NOT_FINITE = (np.nan, np.inf, -np.inf)

ABSOLUTE = 2e-7
"""How far a small parameter may be from the oracle's after six updates."""


def role(fan_in: int, stack_axes: tuple[int, ...] = ()) -> ParamRole:
    """Return the role of a hidden matrix, whose update multiplier under muP is 1/fan_in."""
    return ParamRole(RoleKind.HIDDEN, (0,), (1,), fan_in, fan_out=1, stack_axes=stack_axes)


def float32(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def drawn_params(generator: np.random.Generator, shapes: Sequence, scale=PARAM_SCALE) -> list:
    return [float32(scale * float32(generator.standard_normal(shape))) for shape in shapes]


def drawn_gradients(
    generator: np.random.Generator,
    shapes: Sequence,
    magnitude: float,
    spoiled: float = 0.05,
    values: Sequence[float] = NOT_FINITE,
) -> list[list[np.ndarray]]:
    """Return one list of tensors per update, here and there with an entry that is not finite."""

    def gradient(shape):
        clean = magnitude * float32(generator.standard_normal(shape))
        return float32(np.where(generator.random(shape) < spoiled, generator.choice(values), clean))

    return [[gradient(shape) for shape in shapes] for _ in range(UPDATES)]


def shaken(generator: np.random.Generator, theta: Any, by: float = 0.1) -> Any:
    """Return theta with N(0, by^2) added to every number: no bias is zero."""
    return jax.tree.map(lambda x: float32(x + by * generator.standard_normal(x.shape)), theta)


def by_tensor(gradients: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Return one array per tensor, updates along its first axis, as a scan wants them."""
    return [np.stack(steps) for steps in zip(*gradients, strict=True)]


def runner(make: Callable[[Any], optax.GradientTransformationExtraArgs]) -> Callable:
    """Return a compiled function: (theta, params, gradients, losses) -> (params, sum of updates).

    Gradients have a leading axis of updates, in every leaf; they do not depend on the params.
    """

    @jax.jit
    def run(theta, params, gradients, losses):
        optimizer = make(theta)

        def step(carry, given):
            (params, state, total), (gradients, loss) = carry, given
            updates, state = optimizer.update(gradients, state, params, loss=loss)
            total = jax.tree.map(jnp.add, total, updates)
            return (optax.apply_updates(params, updates), state, total), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        start = (params, optimizer.init(params), zeros)
        (params, _, total), _ = jax.lax.scan(step, start, (gradients, losses))
        return params, total

    return run
