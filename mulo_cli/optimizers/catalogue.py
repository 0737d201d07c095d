"""Every hand-designed optimizer by name."""

from collections.abc import Mapping

from mulo_cli.optimizers.base import HandDesigned
from mulo_cli.optimizers.hand_designed import ADAM_DEFAULTS, adamw, muadam

OPTIMIZERS: Mapping[str, HandDesigned] = {
    "adamw": HandDesigned(adamw, {**ADAM_DEFAULTS, "weight_decay": 1e-4}, "sp"),
    "muadam": HandDesigned(muadam, ADAM_DEFAULTS, "mup"),
}
