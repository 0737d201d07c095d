"""The options of `mulo coord-check`: what they ask for, and what contradicts itself."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mulo_cli.errors import UsageError

if TYPE_CHECKING:
    from mulo_cli.results.coordinate_fits import Axis

BUILT_IN = "muadam:learning_rate=0.1"
"""What is checked when nobody says what to check, besides the newest run. Not with optax's rate of
1e-3: there, Adam's epsilon of 1e-8 shows in the gradients of hidden layers from width 256 on."""

NETWORK = "mlp"

BUILT_IN_DATASET = "synthetic/imagenet32"
"""On which it is checked: the inputs and classes of the papers, on every machine."""

OWN_DATASET = "digits"
"""On which the user's own network is checked unless another is named."""

WIDTHS = "64..1024"

WIDTH = 256
"""At which depths are compared unless another is named."""

DEPTH = 3

HASH_LENGTH = 8
"""Characters in the name of a folder."""

Expected: TypeAlias = Literal["pass", "fail"]
Readout: TypeAlias = Literal["auto", "forward", "update"]
PlotMeasure: TypeAlias = Literal["change_std", "change_l1", "size", "mean"]


@dataclass(frozen=True)
class Contestant:
    """An optimizer under one parametrization, as asked for.

    Attributes:
        optimizer: as written.
        parametrization: of the networks; None: its own.
        contrast: whether it is shown beside another, and decides nothing.
    """

    optimizer: str
    parametrization: str | None
    contrast: bool


@dataclass(frozen=True)
class CheckOptions:
    """Everything as it was written; None is left to defaults."""

    widths: str | None
    depths: str | None
    optimizers: tuple[str, ...]
    optimizee: str
    parametrization: str | None
    both: bool
    dataset: str | None
    width: int | None
    depth: int | None
    batch_size: int
    steps: int
    seeds: int
    readout: Readout
    expect: Expected | None
    out: Path | None
    fresh: bool
    skip_large: bool
    plot: Path | None
    plot_measure: PlotMeasure
    everything: bool
    shard: bool
    format: Literal["table", "jsonl"] | None

    @property
    def axis(self) -> "Axis":
        """What is compared."""
        return "width" if self.depths is None else "depth"

    def sizes(self) -> tuple[int, ...]:
        """Return the widths, or depths, that are compared.

        Raises:
            UsageError: they cannot be read, are too few, or contradict another option.
        """
        from mulo_cli.recipes.references import EXAMPLES, parse_widths
        from mulo_cli.results.coordinate_fits import MIN_SEEDS, MIN_SIZES

        self._refuse_contradictions()
        option = f"--{self.axis}s"
        found = parse_widths(self.depths or self.widths or WIDTHS, option)
        if len(found) < MIN_SIZES:
            raise UsageError(
                f"a slope needs at least {MIN_SIZES} {self.axis}s, {option} names {len(found)}",
                EXAMPLES[option],
            )
        if self.seeds < MIN_SEEDS:
            raise UsageError(
                f"--seeds {self.seeds} is too few: the interval of a slope is taken over seeds",
                f"give at least {MIN_SEEDS}",
            )
        return found

    def usual_dataset(self) -> str:
        """Return the data set: the one that was named, or the usual one of the network.

        Raises:
            UsageError: there is no such network.
        """
        from mulo_cli.assembly.tasks import usual_dataset
        from mulo_cli.recipes.references import is_user_function

        if self.dataset:
            return self.dataset
        if is_user_function(self.optimizee):
            return OWN_DATASET
        alone = not self.optimizers and self.optimizee == NETWORK
        return BUILT_IN_DATASET if alone else usual_dataset(self.optimizee)

    def contestants(self, optimizers: Sequence[str]) -> list[Contestant]:
        """Return what is checked: every optimizer, under one parametrization or two.

        Args:
            optimizers: as written, or what is checked where none was named.

        Raises:
            UsageError: an optimizer names another parametrization.
        """
        if not self.both:
            return [self._contestant(text, self.parametrization) for text in optimizers]
        first = self.parametrization or "mup"
        return [
            self._contestant(text, name, contrast=name == "sp")
            for text in optimizers
            for name in (first, "sp")
        ]

    def folder(self, contestants: Sequence[Contestant], dataset: str) -> Path:
        """Return where records are kept: a folder of its own for all that is asked but seeds."""
        from mulo_cli.results.run_directory import RUNS

        asked = {
            "sizes": [self.axis, *self.sizes()],
            "contestants": [[one.optimizer, one.parametrization] for one in contestants],
            "network": [self.optimizee, self.width, self.depth, self.readout],
            "training": [dataset, self.batch_size, self.steps],
        }
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self.out or RUNS / f"coord-check-{digest[:HASH_LENGTH]}"

    def _refuse_contradictions(self) -> None:
        if self.depths is not None and self.widths is not None:
            raise UsageError("--widths and --depths are both given", "let one of them grow")
        if self.depths is not None and self.depth is not None:
            raise UsageError("--depth is given beside --depths", "leave it away")
        if self.depths is None and self.width is not None:
            raise UsageError(
                "--width is given without --depths",
                "for one width at several depths: --depths 2..64 --width 256",
            )
        if self.both and self.parametrization == "sp":
            raise UsageError(
                "--both shows SP beside another parametrization, and --parametrization is sp",
                "leave one of them away",
            )

    def _contestant(
        self, text: str, parametrization: str | None, *, contrast: bool = False
    ) -> Contestant:
        from mulo_cli.recipes.references import is_user_function, parse_optimizer

        if parametrization and not is_user_function(text):
            own = parse_optimizer(text).parametrization
            if own not in (None, parametrization):
                option = "--both" if self.both else f"--parametrization {parametrization}"
                raise UsageError(
                    f"optimizer {text!r} contradicts {option}", "leave one of them away"
                )
        return Contestant(text, parametrization, contrast)
