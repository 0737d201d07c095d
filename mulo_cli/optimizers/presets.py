"""Published values: what the papers found best for their baselines on their tasks.

muLO (B. Therien et al.), version 4 (2025), Tables 7 (muAdam) and 9 (AdamW): tuned at width 1024 and
depth 3 over 1 000 steps; version 2 (2024), Tables 3 (muAdam, with multipliers of the network) and 5
(AdamW).
"""

from collections.abc import Mapping
from typing import TypeAlias

Preset: TypeAlias = Mapping[str, float]
"""Hyper-parameters under optax's names; what a paper does not name stays at optax's default."""


def _muadam(learning_rate: float, b1: float, b2: float) -> Preset:
    return {"learning_rate": learning_rate, "b1": b1, "b2": b2}


def _adamw(learning_rate: float, b1: float, b2: float, weight_decay: float) -> Preset:
    return {"learning_rate": learning_rate, "b1": b1, "b2": b2, "weight_decay": weight_decay}


PRESETS: Mapping[str, Mapping[str, Preset]] = {
    "adamw": {
        "paper/lm1b-transformer-lm": _adamw(7.02e-4, 0.9, 0.99, 0.001),
        "paper/imagenet32-vit": _adamw(1.70e-4, 0.9, 0.999, 0.01),
        "paper/imagenet32-mlp": _adamw(7.02e-4, 0.9, 0.999, 0.01),
        "paper/imagenet64-mlp": _adamw(7.02e-4, 0.9, 0.99, 0.001),
        "paper/cifar10-mlp": _adamw(2.89e-3, 0.9, 0.95, 0.0001),
        "paper-v2/imagenet32-mlp": _adamw(7.02e-4, 0.9, 0.95, 0.0001),
    },
    "muadam": {
        "paper/lm1b-transformer-lm": _muadam(0.1077, 0.85, 0.999),
        "paper/imagenet32-vit": _muadam(0.044173, 0.85, 0.999),
        "paper/imagenet32-mlp": _muadam(0.044173, 0.85, 0.999),
        "paper/imagenet64-mlp": _muadam(0.028289, 0.85, 0.99),
        "paper/cifar10-mlp": _muadam(0.1473, 0.9, 0.95),
        "paper-v2/imagenet32-mlp": {
            "learning_rate": 0.1,
            "input_mult": 0.25,
            "output_mult": 0.25,
            "hidden_lr_mult": 4.0,
        },
    },
}
