"""The programs of a meta-training on the devices of a layout, and the state they work on.

What is compiled here is what the loop calls. All processes call the same functions in the same
order; each does its own pieces of work, and learns what the others found.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array

from mulo_cli.gradient_estimators.base import PairReports, Runs
from mulo_cli.meta_training.crossing import Tree, everybodys, sent
from mulo_cli.meta_training.layout import Device, Item, Layout
from mulo_cli.meta_training.meta_step import (
    MetaState,
    MetaStepInfo,
    Shared,
    make_init,
    make_learn,
    make_unroll,
    no_info,
)
from mulo_cli.meta_training.programs import CompileLater, Program, Source
from mulo_cli.meta_training.training import MetaTraining
from mulo_cli.meta_training.validation import ValidationLosses, make_validators
from mulo_cli.types import PRNGKey, Theta


class Work(NamedTuple):
    """A meta-training, and which device does what of it."""

    training: MetaTraining
    layout: Layout


class Placed(NamedTuple):
    """The state of a meta-training, where it is worked on."""

    shared: Shared
    """On the device that leads this process."""
    runs: Mapping[Item, Runs]
    """Of this process' pieces of work, each on the device that does it."""


class Engine(NamedTuple):
    """What the loop calls; the first call of each may wait for its compilation."""

    step: Callable[[Placed], tuple[Placed, MetaStepInfo]]
    validate: Callable[[Theta], list[ValidationLosses]]


def state_shapes(training: MetaTraining) -> MetaState:
    """Return the shapes of the whole state, whatever the layout."""
    return jax.eval_shape(_init_of(training), training.root)


def begin(work: Work, shapes: MetaState) -> Placed:
    """Return the state before the first meta-step, where it is worked on."""
    init = _init_of(work.training)
    with jax.default_device(work.layout.lead):
        shared = jax.jit(lambda root: init(root).shared)(work.training.root)
    nothing = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes.runs)
    return put_in_place(work, MetaState(shared, nothing))


def put_in_place(work: Work, whole: MetaState) -> Placed:
    """Give each device its part of a state that every process has the whole of."""
    runs = {
        item: jax.device_put(_of_block(whole.runs[item.task], work, item), device)
        for item, device in work.layout.here.items()
    }
    return Placed(jax.device_put(whole.shared, work.layout.lead), runs)


def collect(work: Work, shapes: MetaState, state: Placed) -> MetaState:
    """Undo `put_in_place`: return the whole state as arrays of every host."""
    blocks: list[list[Runs]] = [[] for _ in work.training.tasks]
    for item, device in work.layout.owners.items():
        runs = state.runs.get(item)
        if runs is None:
            of_block = _of_block(shapes.runs[item.task], work, item)
            runs = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), of_block)
        blocks[item.task].append(sent(jax.device_get(runs), device.process_index))
    whole = (jax.tree.map(lambda *b: np.concatenate(b), *of_task) for of_task in blocks)
    return MetaState(jax.device_get(state.shared), tuple(whole))


def compile_engine(work: Work, shapes: MetaState, compile_later: CompileLater) -> Engine:
    """Trace all programs and begin to compile them, those of the first step first."""
    inputs = _Inputs(work.training)
    unroll = _unrolling(work, shapes, inputs, compile_later)
    learn = _learning(work, shapes, inputs, compile_later)
    validate = _validating(work, shapes, inputs, compile_later)

    def step(state: Placed) -> tuple[Placed, MetaStepInfo]:
        runs, reports = unroll(state)
        shared, info = learn(state.shared, reports)
        return Placed(shared, runs), info

    return Engine(step, validate)


class _Inputs:
    """Root key and data sets on any device; arrays that tasks have in common only once.

    Arrays are told apart by identity: they must live as long as this does.
    """

    def __init__(self, training: MetaTraining) -> None:
        self._training, self._root = training, training.root
        self._placed: dict[tuple[int, Device], Array] = {}

    def on(self, device: Device, task: int) -> tuple[PRNGKey, Any]:
        """Return the root key, and the data of a task."""

        def put(leaf: Array) -> Array:
            key = id(leaf), device
            if key not in self._placed:
                self._placed[key] = jax.device_put(leaf, device)
            return self._placed[key]

        return put(self._root), jax.tree.map(put, self._training.tasks[task].data)


def _unrolling(
    work: Work, shapes: MetaState, inputs: _Inputs, compile_later: CompileLater
) -> Callable[[Placed], tuple[dict[Item, Runs], tuple[PairReports, ...]]]:
    """Return what unrolls all pieces: state -> (runs of this process, reports of all pairs)."""
    here = work.layout.here
    programs: dict[tuple[int, Device], Program] = {}
    for item, device in here.items():
        if (item.task, device) not in programs:
            source = _unroll_source(work, shapes, item, device, inputs)
            programs[item.task, device] = compile_later(source)
    owners = {item: device.process_index for item, device in work.layout.owners.items()}
    devices = set(here.values())

    def unroll(state: Placed) -> tuple[dict[Item, Runs], tuple[PairReports, ...]]:
        knows = state.shared.theta, state.shared.step
        known = {device: jax.device_put(knows, device) for device in devices}
        runs, reports = {}, {}
        for item, device in here.items():
            root, data = inputs.on(device, item.task)
            first = np.array(_first_pair(work, item), np.int32)
            runs[item], reports[item] = programs[item.task, device](
                state.runs[item], *known[device], root, data, first
            )
        return runs, _everybodys_reports(work, reports, owners)

    return unroll


def _unroll_source(
    work: Work, shapes: MetaState, item: Item, device: Device, inputs: _Inputs
) -> Source:
    """Return the program that unrolls a block of a task on a device."""
    there = SingleDeviceSharding(device)
    runs = _shaped(_of_block(shapes.runs[item.task], work, item), there)
    theta, step = _shaped((shapes.shared.theta, shapes.shared.step), there)
    return Source(
        f"unroll_{item.task}",
        make_unroll(work.training.estimators, item.task),
        (runs, theta, step, *inputs.on(device, item.task), np.array(0, np.int32)),
        (runs, _no_reports(work.training.estimators[item.task].pairs_per_block)),
        donates_first=True,
    )


def _everybodys_reports(
    work: Work, reports: Mapping[Item, PairReports], owners: Mapping[Item, int]
) -> tuple[PairReports, ...]:
    """Return the reports of all pairs of each task, in their order."""
    known = {item: np.array(jax.device_get(of_block)) for item, of_block in reports.items()}
    size = {estimator.pairs_per_block for estimator in work.training.estimators}
    (pairs_per_block,) = size
    told = everybodys(known, owners, (len(PairReports._fields), pairs_per_block))
    return tuple(
        PairReports(*np.concatenate([told[i] for i in owners if i.task == task], axis=1))
        for task in range(len(work.training.tasks))
    )


def _learning(
    work: Work, shapes: MetaState, inputs: _Inputs, compile_later: CompileLater
) -> Callable[[Shared, tuple[PairReports, ...]], tuple[Shared, MetaStepInfo]]:
    """Return (shared state, reports) -> (shared state, info), on the device that leads."""
    lead = work.layout.lead
    root, _ = inputs.on(lead, 0)
    shared = _shaped(shapes.shared, SingleDeviceSharding(lead))
    reports = tuple(_no_reports(estimator.pairs) for estimator in work.training.estimators)
    learn = compile_later(
        Source(
            "learn",
            make_learn(work.training.estimators, work.training.optimizer),
            (shared, root, reports),
            (shared, no_info(len(work.training.tasks))),
            donates_first=True,
        )
    )
    return lambda shared, reports: learn(shared, root, reports)


def _validating(
    work: Work, shapes: MetaState, inputs: _Inputs, compile_later: CompileLater
) -> Callable[[Theta], list[ValidationLosses]]:
    """Return theta -> losses on all tasks; each is found by one device."""
    layout, none = work.layout, ValidationLosses(jnp.float32(0), jnp.float32(0))
    devices = {task: layout.validator(task) for task in range(len(work.training.tasks))}
    owners = {task: device.process_index for task, device in devices.items()}
    validators = make_validators(
        work.training.tasks, work.training.learned_optimizer, work.training.validation
    )
    programs = {}
    for task, device in devices.items():
        if owners[task] == layout.process:
            theta = _shaped(shapes.shared.theta, SingleDeviceSharding(device))
            arguments = (theta, *inputs.on(device, task))
            source = Source(f"validate_{task}", validators[task], arguments, none)
            programs[task] = compile_later(source)

    def validate(theta: Theta) -> list[ValidationLosses]:
        begun = {
            task: program(jax.device_put(theta, devices[task]), *inputs.on(devices[task], task))
            for task, program in programs.items()
        }
        known = {task: np.array(jax.device_get(losses)) for task, losses in begun.items()}
        told = everybodys(known, owners, (len(none),))
        return [ValidationLosses(*told[task]) for task in devices]

    return validate


def _init_of(training: MetaTraining) -> Callable[[PRNGKey], MetaState]:
    return make_init(training.learned_optimizer, training.estimators, training.optimizer)


def _of_block(runs: Tree, work: Work, item: Item) -> Tree:
    """Return the runs of one block, of those of all pairs of a task; shapes will do."""
    first, size = _first_pair(work, item), work.training.estimators[item.task].pairs_per_block

    def cut(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)
        return leaf[first : first + size]

    return jax.tree.map(cut, runs)


def _first_pair(work: Work, item: Item) -> int:
    return item.block * work.training.estimators[item.task].pairs_per_block


def _no_reports(pairs: int) -> PairReports:
    return PairReports(*np.zeros((len(PairReports._fields), pairs), np.float32))


def _shaped(tree: Tree, sharding: SingleDeviceSharding) -> Tree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
