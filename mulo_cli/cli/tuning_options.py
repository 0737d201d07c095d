"""The options of `mulo tune-adam`: which belong to a search, which to a study of transfer."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mulo_cli.errors import UsageError
from mulo_cli.processes import Place

if TYPE_CHECKING:
    from mulo_cli.recipes.grids import Grid
    from mulo_cli.recipes.schema import TaskSection
    from mulo_cli.results.transfer_records import Axis
    from mulo_cli.studies.evaluate import EvaluationConfig
    from mulo_cli.studies.transfer import TransferConfig

ONLY_TRANSFER = (
    "widths", "depths", "validate_every", "validation_batches", "patience", "expect", "plot",
)  # fmt: skip
"""Options that mean nothing to the search of a grid."""


@dataclass(frozen=True)
class SearchRequest:
    """A grid to be searched.

    Attributes:
        optimizer: as written, without what the grid varies.
        parametrization: None: the optimizer's own.
        grid: what is varied.
        schedule: of the learning rate.
        section: the network and its data; one width.
        config: how it is trained.
        lanes: networks in one program; None: what fits.
        folder: of rows, best values and the number of lanes.
        format: of the output.
        place: of this process among those that share the search.
    """

    optimizer: str
    parametrization: str | None
    grid: "Grid"
    schedule: str
    section: "TaskSection"
    config: "EvaluationConfig"
    lanes: int | None
    folder: Path
    format: Literal["table", "jsonl"] | None
    place: Place


@dataclass(frozen=True)
class TransferRequest:
    """Sizes whose best learning rates are to be compared.

    Attributes:
        optimizer: as written, without its rate.
        parametrizations: of the networks; one None: the optimizer's own.
        grid: of learning rates.
        schedule: of the learning rate.
        axis: what grows.
        sections: network and data at each size; one width each.
        config: how each is trained.
        seeds: networks per rate and size.
        lanes: networks in one program; None: what fits.
        expect: the verdict that is hoped for.
        plot: file of the picture.
        folder: of rows and the number of lanes.
        format: of the output.
        place: of this process among those that share the study.
    """

    optimizer: str
    parametrizations: tuple[str | None, ...]
    grid: "Grid"
    schedule: str
    axis: "Axis"
    sections: tuple["TaskSection", ...]
    config: "TransferConfig"
    seeds: int
    lanes: int | None
    expect: Literal["transfers", "drifts"] | None
    plot: Path | None
    folder: Path
    format: Literal["table", "jsonl"] | None
    place: Place


@dataclass(frozen=True)
class TuningOptions:
    """Everything as it was written; None is left to defaults."""

    optimizer: str
    width: int | None
    grid: str | None
    schedule: str
    parametrization: str | None
    dataset: str | None
    task: str | None
    depth: int | None
    batch_size: int | None
    steps: int
    seeds: int | None
    window: int
    lanes: int | None
    widths: str | None
    depths: str | None
    validate_every: int | None
    validation_batches: int | None
    patience: int | None
    expect: Literal["transfers", "drifts"] | None
    plot: Path | None
    out: Path | None
    format: Literal["table", "jsonl"] | None
    place: Place

    @property
    def name(self) -> str:
        """Of the optimizer, without its settings."""
        return self.optimizer.partition(":")[0]

    def of_search(self) -> SearchRequest:
        """Read the options as those of a search.

        Raises:
            UsageError: an option of `--transfer`, or a value that cannot be.
        """
        from mulo_cli.cli.commands.evaluate import told_steps
        from mulo_cli.recipes.grids import load_grid
        from mulo_cli.recipes.schema import TaskSection
        from mulo_cli.studies.evaluate import EvaluationConfig

        for option in ONLY_TRANSFER:
            if getattr(self, option) is not None:
                spelled = option.replace("_", "-")
                raise UsageError(f"--{spelled} needs --transfer", f"add it, or leave --{spelled}")
        task, width = self.task or "mlp", self.width or 32
        section = TaskSection(
            self._dataset(task), task, [width], self.depth or 3, self.batch_size or 64
        )
        return SearchRequest(
            optimizer=self.optimizer,
            parametrization=self.parametrization,
            grid=load_grid(self.grid or "small", self.name),
            schedule=self.schedule,
            section=section,
            config=EvaluationConfig(
                self.steps,
                self.seeds or 1,
                self.window,
                told_steps(None, self.steps, self.window),
            ),
            lanes=self.lanes,
            folder=self._folder("tune", task, section.dataset, f"w{width}"),
            format=self.format,
            place=self.place,
        )

    def of_transfer(self) -> TransferRequest:
        """Read the options as those of a study of transfer.

        Raises:
            UsageError: no sizes, both kinds of them, or a value that cannot be.
        """
        from mulo_cli.recipes.grids import load_grid
        from mulo_cli.recipes.schema import TaskSection

        axis, sizes = self._sizes()
        task = self.task or "gpt:length=32"
        dataset, batch_size = self._dataset(task), self.batch_size or 16
        sections = tuple(
            TaskSection(dataset, task, [size], self.depth or 2, batch_size)
            if axis == "width"
            else TaskSection(dataset, task, [self.width or 32], size, batch_size)
            for size in sizes
        )
        parametrizations = self._parametrizations()
        if self.expect is not None and len(parametrizations) > 1:
            raise UsageError(
                f"--expect {self.expect} says nothing about each of several parametrizations",
                f"give one of them: --parametrization {parametrizations[0]}",
            )
        return TransferRequest(
            optimizer=self.optimizer,
            parametrizations=parametrizations,
            grid=load_grid(self._rates(axis), self.name),
            schedule=self.schedule,
            axis=axis,
            sections=sections,
            config=self._transfer_config(),
            seeds=self.seeds or 3,
            lanes=self.lanes,
            expect=self.expect,
            plot=self.plot,
            folder=self._folder("transfer", task, dataset, f"{axis}s"),
            format=self.format,
            place=self.place,
        )

    def _parametrizations(self) -> tuple[str | None, ...]:
        named = (self.parametrization or "").split(",")
        return tuple(dict.fromkeys(name.strip() or None for name in named))

    def _rates(self, axis: "Axis") -> str:
        """Return the grid of a study of transfer; `paper` means the list that fits what grows."""
        from mulo_cli.recipes.grids import known_grids

        if self.grid != "paper":
            return self.grid or "rates"
        if f"paper-{axis}s" not in known_grids(self.name):
            raise UsageError(
                f"no paper gives learning rates of {self.name} over {axis}s",
                "give --grid rates, or a TOML file: learning_rate = [1e-3, 1e-2]",
            )
        return f"paper-{axis}s"

    def _transfer_config(self) -> "TransferConfig":
        from mulo_cli.studies.transfer import TransferConfig

        every = self.validate_every or 25
        if self.steps % every:
            raise UsageError(
                f"--steps {self.steps} is no multiple of --validate-every {every}",
                f"for example --steps {-(-self.steps // every) * every}",
            )
        if self.window > self.steps:
            raise UsageError(
                f"--window {self.window} is longer than --steps {self.steps}",
                "lower --window or train longer",
            )
        return TransferConfig(
            steps=self.steps,
            validate_every=every,
            validation_batches=self.validation_batches or 8,
            patience=self.patience or 150,
            window=self.window,
        )

    def _sizes(self) -> tuple["Axis", tuple[int, ...]]:
        from mulo_cli.recipes.references import parse_widths

        if self.widths is not None and self.depths is not None:
            raise UsageError("--widths and --depths are both given", "let one of them grow")
        if self.widths is None and self.depths is None:
            raise UsageError(
                "--transfer needs sizes to compare",
                "give --widths 32..256, or --depths 2..16 --width 64",
            )
        if self.widths is not None:
            if self.width is not None:
                raise UsageError("--width is given beside --widths", "leave it away")
            return "width", parse_widths(self.widths)
        if self.depth is not None:
            raise UsageError("--depth is given beside --depths", "leave it away")
        assert self.depths is not None
        return "depth", parse_widths(self.depths, "--depths")

    def _dataset(self, task: str) -> str:
        from mulo_cli.assembly.tasks import usual_dataset

        return self.dataset or usual_dataset(task)

    def _folder(self, verb: str, task: str, dataset: str, size: str) -> Path:
        from mulo_cli.results.run_directory import RUNS

        named = (self.optimizer, *self._other_parametrization(), task, dataset)
        return self.out or RUNS / "-".join((verb, *map(file_name, named), size))

    def _other_parametrization(self) -> tuple[str, ...]:
        """Return what was asked for if it is another parametrization than the optimizer's own."""
        from mulo_cli.optimizers.catalogue import OPTIMIZERS

        own = OPTIMIZERS[self.name].parametrization if self.name in OPTIMIZERS else None
        asked = [name for name in self._parametrizations() if name is not None]
        return () if asked in ([], [own]) else ("-".join(asked),)


def file_name(text: str) -> str:
    """Return what a user wrote as a part of a folder's name."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-")
