"""Coordinate check: what training does to every layer and every tensor of a network.

G. Yang et al., "Tensor Programs V" (2022), on verifying muP by coordinate checks; muLO (B. Therien
et al., 2025), section 5.2.2, Figures 2 and 9 to 12: the change of each layer's pre-activations, and
of the logits, since initialisation. G. Yang, J. Simon and J. Bernstein, "A spectral condition for
feature learning" (2023): spectral norms. One network is measured at a time; what is compared with
what (widths, depths) is nothing that is known here.
"""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mulo_cli.inner_training.sharding import placed
from mulo_cli.results.coordinate_records import CoordinateIdentity, CoordinateRecord
from mulo_cli.studies.check_programs import (
    CheckPrograms,
    CoordinateConfig,
    compile_check,
    estimate_memory,
    number_of,
    references_of,
)
from mulo_cli.studies.coordinate_traces import (
    Series,
    finite,
    layer_traces,
    numbers,
    tensor_traces,
)
from mulo_cli.studies.evaluate import EvaluationTask, NamedOptimizer
from mulo_cli.studies.lanes import seed_keys
from mulo_cli.studies.tensors import (
    ITERATIONS_AT_START,
    ITERATIONS_OF_CHANGE,
    ITERATIONS_OF_FIRST_CHANGE,
    TensorNumbers,
)
from mulo_cli.types import Params, PRNGKey

__all__ = [
    "CheckPrograms",
    "CoordinateConfig",
    "Moved",
    "compile_check",
    "estimate_memory",
    "identity",
    "measure",
]

VECTOR_SEED = 0x7370
"""Of the vectors that power iteration starts from; the same for every network of a shape."""


@dataclass(frozen=True)
class Moved:
    """Where a check is: steps of one seed's network that are measured; not a result."""

    seed: int
    step: int


def identity(
    task: EvaluationTask,
    optimizer: NamedOptimizer,
    config: CoordinateConfig,
    seed: int,
    code_version: str,
) -> CoordinateIdentity:
    """Return what the record of one seed's network will be of."""
    return CoordinateIdentity(
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
        data=task.digest,
        code=_joined(task.code, optimizer.code),
        readout=task.readout,
    )


def measure(
    task: EvaluationTask,
    optimizer: NamedOptimizer,
    programs: CheckPrograms,
    config: CoordinateConfig,
    seeds: Sequence[int],
    code_version: str,
) -> Iterator[Moved | CoordinateRecord]:
    """Train one network per seed, one after another, and yield a record for each.

    A `Moved` after each step is the caller's opportunity to stop. A seed has the initialisation and
    the data order that it has in an evaluation, whatever other seeds there are.
    """
    for seed, key in zip(seeds, seed_keys(seeds), strict=True):
        series = yield from _train_and_look(task, optimizer, programs, config, seed, key)
        told = identity(task, optimizer, config, seed, code_version)
        yield CoordinateRecord(
            **{name: getattr(told, name) for name in told.__dataclass_fields__},
            losses=numbers(series.losses),
            layers=layer_traces(programs.anatomy, series),
            tensors=tensor_traces(programs.anatomy, series),
        )


def _train_and_look(
    task: EvaluationTask,
    optimizer: NamedOptimizer,
    programs: CheckPrograms,
    config: CoordinateConfig,
    seed: int,
    key: PRNGKey,
) -> Generator[Moved, None, Series]:
    """Train one network, and measure it before training and after each step.

    At its end nothing refers to the network any more: there is never more than one.
    """
    hyper, leaves = placed(optimizer.hyper, task.mesh), programs.anatomy.leaves
    data = jax.device_put(task.task.data)
    lane, probe = programs.start(key, hyper, data)
    before = jax.tree.map(jnp.copy, lane.state.params)
    nothing = tuple(map(jnp.zeros_like, references_of(leaves, before)))
    at_start = programs.look(before, nothing, probe)
    series = Series(
        layers=[jax.device_get(programs.compare(at_start.outputs, at_start.outputs))],
        reads=[None if x is None else finite(float(x)) for x in at_start.reads],
        added=[[float(x) for x in at_start.added]],
    )
    of_start, _ = _look_at_tensors(
        programs, before, before, _random_vectors(programs), 0.0, ITERATIONS_AT_START
    )
    series.tensors.append(of_start)
    vectors = _random_vectors(programs)
    for step in range(config.steps):
        lane, loss = programs.train(lane, hyper, data, number_of(step))
        params = lane.state.params
        now = programs.look(params, references_of(leaves, before), probe)
        series.losses.append(float(loss[0]))
        series.layers.append(jax.device_get(programs.compare(now.outputs, at_start.outputs)))
        series.added.append([float(x) for x in now.added])
        iterations = ITERATIONS_OF_CHANGE if step else ITERATIONS_OF_FIRST_CHANGE
        told, vectors = _look_at_tensors(programs, params, before, vectors, 1.0, iterations)
        series.tensors.append(told)
        if step in (0, config.steps - 1):
            series.pushes.append(jax.device_get(programs.push(params, before, probe)))
        del params, now
        yield Moved(seed, step + 1)
    return series


def _look_at_tensors(
    programs: CheckPrograms,
    params: Params,
    before: Params,
    vectors: Sequence[Array],
    share: float,
    iterations: int,
) -> tuple[list[TensorNumbers], list[Array]]:
    """Measure one leaf after the other: temporaries of one at a time are in memory."""
    told, left = [], []
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(before), strict=True)
    for look, (now, old), vector in zip(programs.tensors, pairs, vectors, strict=True):
        found, vector = look(now, old, vector, np.float32(share), np.int32(iterations))
        told.append(jax.device_get(found))
        left.append(vector)
    return told, left


def _random_vectors(programs: CheckPrograms) -> list[Array]:
    """Return what power iteration starts from: for each leaf normal numbers."""
    draw = np.random.default_rng(VECTOR_SEED)
    return [
        jnp.asarray(draw.standard_normal(leaf.vectors_shape, np.float32))
        for leaf in programs.anatomy.leaves
    ]


def _joined(*digests: str) -> str:
    """Return one digest for the user's network and the user's optimizer; empty without both."""
    given = [digest for digest in digests if digest]
    return given[0] if len(given) == 1 else _sha256(given)


def _sha256(digests: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest() if digests else ""
