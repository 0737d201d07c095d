"""Every learned optimizer by name: its configuration class, and what builds it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.small_fc_lopt import SmallFcLoptConfig, small_fc_lopt
from mulo_cli.learned_optimizers.velo import VeloConfig, velo


@dataclass(frozen=True)
class Architecture:
    """One entry of the shelf.

    Attributes:
        config: a frozen dataclass; cards store its fields as settings.
        make: (config, rule from role to update multiplier) -> learned optimizer.
    """

    config: type
    make: Callable[[Any, Callable], LearnedOptimizer]


LEARNED_OPTIMIZERS: Mapping[str, Architecture] = {
    "small_fc_lopt": Architecture(SmallFcLoptConfig, small_fc_lopt),
    "velo": Architecture(VeloConfig, velo),
}
