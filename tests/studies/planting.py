"""Checking networks with a planted mistake: which sizes, which data, what counts as found."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.datasets.base import Dataset
from mulo_cli.recipes.references import parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.coordinate_records import CoordinateRecord
from mulo_cli.results.coordinates import CoordinateCheck, check_coordinates
from mulo_cli.studies.coord_check import CoordinateConfig, compile_check, measure
from tests.studies.planted import Mistake

CODE = "0.0.0"


@dataclass(frozen=True)
class World:
    """Where a mistake is planted.

    Attributes:
        network: name of the world.
        optimizee: with options.
        dataset: it is trained on.
        sizes: widths, or depths.
        other: the depth, or the width.
        axis: what the sizes are.
        batch_size, steps, seeds: of the check.
    """

    network: str
    optimizee: str
    dataset: str
    sizes: tuple[int, ...]
    other: int
    axis: str = "width"
    batch_size: int = 32
    steps: int = 5
    seeds: int = 8
    loaded: dict[str, Dataset] = field(default_factory=dict, compare=False)


WORLDS = {
    one.network: one
    for one in (
        World("mlp", "mlp", "digits", (64, 128, 512, 1024), 3),
        World("vit", "vit:heads=2,patch=4", "digits", (32, 64, 128, 256), 2),
        World("lm", "lm:heads=2,length=16", "pydoc:tokens=bytes", (32, 64, 128, 256), 2),
        World("lm-depth", "lm:heads=2,length=16,depth_power=0.5", "pydoc:tokens=bytes",
              (2, 4, 8, 16), 64, axis="depth"),
        World("lm-depth-1", "lm:heads=2,length=16,depth_power=1", "pydoc:tokens=bytes",
              (2, 4, 8, 16), 64, axis="depth"),
    )
}  # fmt: skip


def world(network: str, sizes: Sequence[int] = (), seeds: int = 0) -> World:
    """Return a world, with other sizes or seeds where they are given."""
    import dataclasses

    known = WORLDS[network]
    return dataclasses.replace(known, sizes=tuple(sizes) or known.sizes, seeds=seeds or known.seeds)


def check(where: World, mistake: Mistake, first_seed: int = 0) -> CoordinateCheck:
    """Plant a mistake at every size, train, and judge."""
    records: list[CoordinateRecord] = []
    for size in where.sizes:
        records += _records(where, mistake, size, range(first_seed, first_seed + where.seeds))
    return check_coordinates(records)


def found(one: CoordinateCheck, mistake: Mistake) -> bool:
    """Say whether a check failed and named the mistake's layer, and its tensor if there is one."""
    culprit = one.verdict.culprit
    if one.passed or culprit is None or culprit.layer != mistake.layer:
        return False
    return not mistake.tensor or culprit.tensor == mistake.tensor


def _records(where: World, mistake: Mistake, size: int, seeds: range) -> list[CoordinateRecord]:
    data = build_dataset(where.dataset)
    width, depth = (size, where.other) if where.axis == "width" else (where.other, size)
    optimizer = build_named_optimizer(parse_optimizer(mistake.optimizer))
    section = TaskSection(where.dataset, where.optimizee, [width], depth, where.batch_size)
    task = build_evaluation_task(section, data, width, optimizer.parametrization, optimizer.network)
    task, optimizer = mistake.plant(task, optimizer, size)
    config = CoordinateConfig(where.steps)
    programs = compile_check(task, optimizer, config)
    told = measure(task, optimizer, programs, config, tuple(seeds), CODE)
    return [record for record in told if isinstance(record, CoordinateRecord)]
