"""Every hand-designed optimizer by name."""

from collections.abc import Mapping

from mulo_cli.mup.rules import adam_like, standard
from mulo_cli.optimizers.base import HandDesigned
from mulo_cli.optimizers.hand_designed import (
    ADAM_DEFAULTS,
    ADAMW_DEFAULTS,
    SGD_DEFAULTS,
    adam,
    adamw,
    sgd,
)

OPTIMIZERS: Mapping[str, HandDesigned] = {
    "adamw": HandDesigned(adamw, ADAMW_DEFAULTS, {"sp": standard, "mup": adam_like}),
    "muadam": HandDesigned(adam, ADAM_DEFAULTS, {"mup": adam_like, "sp": standard}),
    "sgd": HandDesigned(sgd, SGD_DEFAULTS, {"sp": standard}, optional=("momentum",)),
}
