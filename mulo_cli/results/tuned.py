"""The file that `mulo tune-adam` leaves: the best configuration, and on what it was the best."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from mulo_cli.bounded_files import MIB, read_bounded
from mulo_cli.errors import DataError
from mulo_cli.results.records import EvaluationRow


@dataclass(frozen=True)
class Tuned:
    """The best configuration of a grid; `mulo evaluate` takes it as `NAME:tuned=FILE`.

    Attributes:
        optimizer: its name on the shelf.
        settings: every hyper-parameter.
        schedule: of the learning rate.
        rule: under muP, where the optimizer has several.
        smoothed_loss: mean training loss of the last `window` of `steps` steps, over seeds.
        configurations: how many were tried.
        on_border: hyper-parameters whose best value is the first or last of the grid's: the true
            best may lie beyond.
    """

    optimizer: str
    settings: Mapping[str, float]
    schedule: str
    parametrization: str
    smoothed_loss: float
    configurations: int
    on_border: tuple[str, ...]
    task: str
    dataset: str
    width: int
    depth: int
    batch_size: int
    steps: int
    window: int
    seeds: int
    code_version: str
    rule: str | None = None
    kind: Literal["tuned"] = "tuned"


@dataclass(frozen=True)
class Configuration:
    """What became of one configuration of a grid.

    Attributes:
        rows: one per seed.
        loss: smoothed final training loss, mean over seeds; None if any of them diverged.
    """

    rows: tuple[EvaluationRow, ...]
    loss: float | None

    @property
    def optimizer(self) -> str:
        """The name it was tried under."""
        return self.rows[0].optimizer

    @property
    def settings(self) -> Mapping[str, float]:
        """Its hyper-parameters."""
        return {k: v for k, v in self.rows[0].settings.items() if not isinstance(v, str)}


def rank_configurations(rows: Iterable[EvaluationRow]) -> list[Configuration]:
    """Return configurations from the lowest loss to the highest, then those that diverged."""
    groups: dict[str, list[EvaluationRow]] = {}
    for row in rows:
        groups.setdefault(row.optimizer, []).append(row)
    tried = [Configuration(tuple(of), _mean_loss(of)) for of in groups.values()]
    return sorted(tried, key=lambda c: (c.loss is None, c.loss or 0.0, c.optimizer))


def tuned_from(best: Configuration, configurations: int, on_border: tuple[str, ...]) -> Tuned:
    """Return what is written down of the best configuration.

    Args:
        best: it; its loss is a number.
        configurations: how many were tried.
        on_border: its hyper-parameters that are first or last in the grid.
    """
    assert best.loss is not None  # the caller has refused a grid without any
    row = best.rows[0]
    rule = row.settings.get("rule")
    return Tuned(
        optimizer=row.optimizer.partition(":")[0],
        settings=best.settings,
        schedule=str(row.settings["schedule"]),
        parametrization=row.parametrization,
        smoothed_loss=best.loss,
        configurations=configurations,
        on_border=on_border,
        task=row.task,
        dataset=row.dataset,
        width=row.width,
        depth=row.depth,
        batch_size=row.batch_size,
        steps=row.steps,
        window=row.window,
        seeds=len(best.rows),
        code_version=row.code_version,
        rule=None if rule is None else str(rule),
    )


def _mean_loss(rows: Sequence[EvaluationRow]) -> float | None:
    losses = [row.final_loss for row in rows if row.final_loss is not None]
    return sum(losses) / len(losses) if len(losses) == len(rows) else None


def read_tuned(path: Path) -> Tuned:
    """Read the file back.

    Raises:
        DataError: missing, or not such a file.
    """
    hint = "give a file that `mulo tune-adam` wrote"
    try:
        return TypeAdapter(Tuned).validate_json(read_bounded(path, MIB))
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}", hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"])) or "it"
        raise DataError(
            f"{str(path)!r} has no tuned values: {what}: {first['msg']}", hint
        ) from error
