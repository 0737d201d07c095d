"""The parity vector of an artefact: a fixed input, and the updates that theta must make of it.

A checksum says that theta is the one that was written; parity says that this version of the code
makes the same of it. The input is a handful of tensors, formulas of their indices, followed for
three updates: factored and unfactored accumulators, hidden and other roles, time and the loss.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from mulo_cli.errors import ArtefactError
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.mup.roles import ParamRole, RoleKind
from mulo_cli.types import Params, Theta

INPUT = "waves-1"
"""Name of the input below; another input must have another name."""

ROLES = {
    "bias": ParamRole(kind=RoleKind.INPUT, in_axes=(), out_axes=(0,), fan_in=1, fan_out=3),
    "hidden": ParamRole(kind=RoleKind.HIDDEN, in_axes=(0,), out_axes=(1,), fan_in=4, fan_out=3),
    "kernel": ParamRole(kind=RoleKind.INPUT, in_axes=(0, 1), out_axes=(2,), fan_in=4, fan_out=3),
    "scale": ParamRole(kind=RoleKind.INPUT, in_axes=(), out_axes=(), fan_in=1, fan_out=1),
}
SHAPES = {"bias": (3,), "hidden": (4, 3), "kernel": (2, 2, 3), "scale": ()}

LOSSES = (2.5, 1.75, 2.0)
"""Of the three steps."""

HORIZON = 10
"""Length `T` of the run whose first steps these are."""

TOLERANCE = 2e-3
"""Largest difference, in units of a tensor's largest update. Other machines and versions of XLA
add in other orders: 1e-6 of a float32 becomes some 5e-4 in loss features that are differences of
nearly equal averages. A wrong constant or formula moves updates by 1e-2 and more."""

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
"""The program runs once, on a few numbers; without optimization it compiles five times faster."""


@dataclass(frozen=True)
class Parity:
    """What a card stores.

    Attributes:
        input: name of the fixed input.
        updates: tensor -> its updates of all steps, one after the other; None: not finite.
    """

    input: str
    updates: Mapping[str, list[float | None]]


def wave(shape: tuple[int, ...], phase: float) -> np.ndarray:
    """Return sin(phase + 0.7 i) over the elements i = 0, 1, ... of a tensor, in float32."""
    size = int(np.prod(shape))
    return np.sin(phase + 0.7 * np.arange(size)).astype(np.float32).reshape(shape)


def fixed_params() -> dict[str, np.ndarray]:
    """Return the tensors at the start."""
    return {name: wave(shape, float(i)) for i, (name, shape) in enumerate(SHAPES.items())}


def fixed_gradients() -> dict[str, np.ndarray]:
    """Return the gradients of all steps: a tenth of other waves."""
    tenth = np.float32(0.1)
    return {
        name: np.stack([tenth * wave(shape, 10.0 + i + 3.0 * step) for step in range(len(LOSSES))])
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def compute_parity(optimizer: LearnedOptimizer, theta: Theta) -> Parity:
    """Return what a theta makes of the fixed input with this code."""

    def follow(theta: Theta, params: Params, gradients: Params) -> Params:
        transformation = optimizer.build(theta, ROLES, jnp.asarray(HORIZON, jnp.int32))

        def step(carry: tuple[Any, Params], seen: tuple[Params, Float[Array, ""]]) -> tuple:
            state, params = carry
            gradient, loss = seen
            updates, state = transformation.update(gradient, state, params, loss=loss)
            return (state, optax.apply_updates(params, updates)), updates

        losses = jnp.asarray(LOSSES, jnp.float32)
        start = (transformation.init(params), params)
        return jax.lax.scan(step, start, (gradients, losses))[1]

    with _on_the_processor():
        arguments = (jax.tree.map(jnp.asarray, jax.device_get(theta)), *_inputs())
        updates = jax.device_get(_run(follow, *arguments))
    return Parity(INPUT, {name: _numbers(updates[name]) for name in SHAPES})


def check_parity(optimizer: LearnedOptimizer, theta: Theta, parity: Parity, where: str) -> float:
    """Compare a card's parity vector with what this code computes.

    Args:
        optimizer: as the card describes it.
        theta: of the artefact.
        parity: the card's.
        where: what an error calls the artefact.

    Returns:
        The largest difference, in units of a tensor's largest update.

    Raises:
        ArtefactError: they disagree.
    """
    if parity.input != INPUT:
        raise ArtefactError(
            f"the parity vector of {where} is for another input ({parity.input!r})",
            "use the version of mulo that wrote it (see `code_version` in the card)",
        )
    expected, found = parity.updates, compute_parity(optimizer, theta).updates
    worst = 0.0
    for name in SHAPES:
        difference = _difference(expected.get(name, []), found[name])
        if not difference <= TOLERANCE:
            raise ArtefactError(
                f"weights and code disagree in {where}: its updates of the fixed tensor {name!r} "
                f"differ from its card's by {difference:.2g} of the largest",
                "use the version of mulo that wrote it (see `code_version` in the card), or write "
                "the artefact again",
            )
        worst = max(worst, difference)
    return worst


def _difference(expected: list[float | None], found: list[float | None]) -> float:
    """Return the largest difference by the largest number; infinity for another length."""
    if len(expected) != len(found):
        return float("inf")
    a = np.array([np.nan if x is None else x for x in expected])
    b = np.array([np.nan if x is None else x for x in found])
    if (np.isfinite(a) != np.isfinite(b)).any():
        return float("inf")
    finite = np.isfinite(a)
    largest = max(np.abs(b[finite]).max(initial=0.0), np.finfo(np.float32).tiny)
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0) / largest)


def _inputs() -> tuple[Params, Params]:
    return jax.tree.map(jnp.asarray, fixed_params()), jax.tree.map(jnp.asarray, fixed_gradients())


def _numbers(updates: np.ndarray) -> list[float | None]:
    """Return float32 in the nine digits that tell all of them apart."""
    return [float(f"{x:.9g}") if np.isfinite(x) else None for x in updates.ravel()]


def _run(program: Any, *arguments: Any) -> Any:
    """Compile without optimization and run; with the usual options where XLA has not these."""
    with jax.default_matmul_precision("highest"):
        lowered = jax.jit(program).lower(*arguments)
        try:
            compiled = lowered.compile(compiler_options=QUICK)
        except jax.errors.JaxRuntimeError:
            compiled = lowered.compile()
        return compiled(*arguments)


def _on_the_processor() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which the CPU computes, where JAX may use it."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()
