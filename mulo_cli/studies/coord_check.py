"""Coordinate check: how far training moves the coordinates of every layer, width by width.

G. Yang et al., "Tensor Programs V" (2022), on verifying muP by coordinate checks; muLO (B. Therien
et al., 2025), section 5.2.2, Figures 2 and 10 to 12: the standard deviation over coordinates of the
change of each layer's pre-activations, and of the logits, since initialisation.
"""

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mulo_cli.results.coordinates import CoordinateRecord
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.studies.lanes import Lane, lane_programs, seed_keys
from mulo_cli.tasks.base import TaskAux
from mulo_cli.types import Batch, Data, Hyper, Params, PRNGKey

LOGITS = "logits"
"""What the last layer's pre-activations are called."""

READOUT = "readout"
"""The last layer of every optimizee: but for a constant factor its output is the logits."""

OUTPUT = "__call__"
"""Under which flax keeps a module's output, beside the outputs of its own parts."""


@dataclass(frozen=True)
class CoordinateConfig:
    """How a coordinate check trains.

    Attributes:
        steps: length `T` of each training; every step is measured.
        seeds: networks per optimizer and width: initialisation, data order and probe batch.
    """

    steps: int
    seeds: int


@dataclass(frozen=True)
class Moved:
    """Where a check is: steps of one seed's network that are measured; not a result."""

    seed: int
    step: int


class CheckPrograms(NamedTuple):
    """The compiled programs of one optimizer at one width, and what they take.

    Attributes:
        layers: names, in the network's order, the logits last.
        start: (key, hyper-parameters, data) -> the network before training, and its probe batch.
        train: (lane, hyper-parameters, data, numbers of steps) -> (lane, losses).
        look: (params, probe batch) -> what each layer puts out.
        spread: (now, at the start) -> standard deviation of each layer's change.
        memory: bytes in use at once while the hungriest of them runs, as the compiler tells.
    """

    layers: tuple[str, ...]
    start: Callable[[PRNGKey, Hyper, Data], tuple[Lane, Batch]]
    train: Callable[..., tuple[Lane, Array]]
    look: Callable[[Params, Batch], tuple[Array, ...]]
    spread: Callable[[tuple[Array, ...], tuple[Array, ...]], Float[Array, " layers"]]
    memory: int


def compile_check(
    task: EvaluationTask, optimizer: NamedOptimizer, config: CoordinateConfig
) -> CheckPrograms:
    """Compile everything that measuring one optimizer at one width needs; nothing is run.

    One program looks at the network both at the start and later: two programs may round one product
    differently, and a layer that has not moved would seem to have moved a little.
    """
    lanes = lane_programs(task.task, optimizer.make, config.steps)
    hyper, data = optimizer.hyper, task.task.data

    def start(key: PRNGKey, hyper: Hyper, data: Data) -> tuple[Lane, Batch]:
        lane = lanes.start(key, hyper)
        return lane, task.task.batch(data, lane.key_test, jnp.int32(0))

    def outputs(params: Params, probe: Batch) -> OrderedDict[str, Array]:
        return layer_outputs(task.task.loss(params, probe)[1])

    def look(params: Params, probe: Batch) -> tuple[Array, ...]:
        return tuple(outputs(params, probe).values())

    key = seed_keys(range(1))[0]
    starting = jax.jit(start).lower(key, hyper, data).compile()
    lane, probe = jax.eval_shape(start, key, hyper, data)
    training = jax.jit(lanes.train, donate_argnums=0).lower(lane, hyper, data, _number(0)).compile()
    return CheckPrograms(
        layers=tuple(jax.eval_shape(outputs, lane.state.params, probe)),
        start=starting,
        train=training,
        look=jax.jit(look).lower(lane.state.params, probe).compile(),
        spread=jax.jit(_spread),
        memory=max(_memory(starting), _memory(training)),
    )


def measure(
    task: EvaluationTask,
    optimizer: NamedOptimizer,
    programs: CheckPrograms,
    config: CoordinateConfig,
    code_version: str,
) -> Iterator[Moved | CoordinateRecord]:
    """Train one network per seed, one after another, and yield a record for each.

    A `Moved` after each step is the caller's opportunity to stop. A seed has the initialisation and
    the data order that it has in an evaluation.
    """
    for seed, key in enumerate(seed_keys(range(config.seeds))):
        changes_TxL = yield from _train_and_look(task, optimizer, programs, config, seed, key)
        yield CoordinateRecord(
            optimizer=optimizer.name,
            settings=optimizer.settings,
            parametrization=optimizer.parametrization,
            recipe_digest=optimizer.recipe_digest,
            task=task.optimizee,
            dataset=task.dataset,
            real=task.real,
            width=task.width,
            depth=task.depth,
            batch_size=task.batch_size,
            seed=seed,
            steps=config.steps,
            code_version=code_version,
            change={
                layer: tuple(map(float, changes_TxL[:, place]))
                for place, layer in enumerate(programs.layers)
            },
        )


def layer_outputs(aux: TaskAux) -> OrderedDict[str, Array]:
    """Return what each layer of a network put out, by name, in order; the logits come last, once.

    For a dense layer this is its pre-activation. A layer that is called several times is taken as
    it was called last. The order is that of the calls, which a plain dict would lose in jax.
    """
    named = OrderedDict(_walk(aux.activations, ()))
    named.pop(READOUT, None)
    named[LOGITS] = aux.logits
    return named


def _walk(captured: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    for name, inner in captured.items():
        if name != OUTPUT:
            yield from _walk(inner, (*path, name))
        elif path:  # the network's own output is the logits
            yield "/".join(path), inner[-1]


def _train_and_look(
    task: EvaluationTask,
    optimizer: NamedOptimizer,
    programs: CheckPrograms,
    config: CoordinateConfig,
    seed: int,
    key: PRNGKey,
) -> Generator[Moved, None, Float[np.ndarray, "T layers"]]:
    """Train one network; return how far each layer had moved after each step.

    At its end nothing refers to the network any more: there is never more than one.
    """
    hyper, data = optimizer.hyper, task.task.data
    lane, probe = programs.start(key, hyper, data)
    at_start = programs.look(lane.state.params, probe)
    changes = []
    for step in range(config.steps):
        lane, _ = programs.train(lane, hyper, data, _number(step))
        now = programs.look(lane.state.params, probe)
        changes.append(np.asarray(programs.spread(now, at_start)))
        yield Moved(seed, step + 1)
    return np.stack(changes)


def _spread(now: tuple[Array, ...], at_start: tuple[Array, ...]) -> Float[Array, " layers"]:
    """Return each layer's standard deviation of the change, over examples and coordinates."""
    return jnp.stack([jnp.std(new - old) for new, old in zip(now, at_start, strict=True)])


def _number(step: int) -> np.ndarray:
    return np.array([step], np.int32)


def _memory(program: Any) -> int:
    """Return the bytes a compiled program has in use: arguments, results and what lies between."""
    told = program.memory_analysis()
    if told is None:  # some devices do not tell
        return 0
    held = told.argument_size_in_bytes + told.output_size_in_bytes - told.alias_size_in_bytes
    return held + told.temp_size_in_bytes
