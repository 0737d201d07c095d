"""Every hand-designed optimizer by name."""

from collections.abc import Mapping

from mulo_cli.mup import rules
from mulo_cli.optimizers import hand_designed as made
from mulo_cli.optimizers.base import HandDesigned, under_rule

TUNABLE = ("hidden_lr_mult", "eps_scaling")
"""Optional hyper-parameters of every optimizer that does not see how large gradients are."""

RANDOM_READOUT = {"mup": {"readout": "normal"}}
"""An optimizer whose updates are a share of their tensor cannot start from zero."""

OPTIMIZERS: Mapping[str, HandDesigned] = {
    "adam": HandDesigned(made.adam, made.ADAM_DEFAULTS, under_rule(rules.adam_like), TUNABLE),
    "adamw": HandDesigned(made.adam, made.ADAMW_DEFAULTS, under_rule(rules.adam_like), TUNABLE),
    "muadam": HandDesigned(
        made.adam,
        made.ADAM_DEFAULTS,
        under_rule(rules.adam_like),
        TUNABLE,
        parametrization="mup",
    ),
    "adopt": HandDesigned(
        made.adopt,
        made.ADOPT_DEFAULTS,
        under_rule(rules.adam_like),
        (*TUNABLE, "weight_decay"),
    ),
    "lamb": HandDesigned(
        made.lamb,
        made.LAMB_DEFAULTS,
        under_rule(rules.lamb),
        TUNABLE,
        variants={"ours": rules.lamb, "paper": rules.lamb_paper},
        network=RANDOM_READOUT,
    ),
    "muon": HandDesigned(
        made.muon,
        made.MUON_DEFAULTS,
        under_rule(rules.muon, sp=rules.muon_standard),
        (*TUNABLE, "weight_decay", "adam_learning_rate", "adam_weight_decay"),
    ),
    "sgd": HandDesigned(
        made.sgd, made.SGD_DEFAULTS, under_rule(rules.sgd), ("momentum", "hidden_lr_mult")
    ),
    "sophia": HandDesigned(
        made.sophia, made.SOPHIA_DEFAULTS, under_rule(rules.adam_like), ("hidden_lr_mult",)
    ),
}
