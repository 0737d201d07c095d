"""The optimizer of the learned optimizer's own parameters.

muLO (B. Therien et al., 2025), appendix C: AdamW with linear warm-up and cosine annealing,
clipped to a global norm.
"""

from dataclasses import dataclass
from typing import Literal

import optax


@dataclass(frozen=True)
class MetaOptimizerConfig:
    """Settings of AdamW on theta.

    Attributes:
        steps: meta-steps in all, warm-up included.
        warmup_steps: meta-steps of linear warm-up from 0.
        learning_rate: rate at the end of the warm-up.
        final_learning_rate: rate at the end of the cosine.
        weight_decay: AdamW's decoupled decay.
        clip_norm: largest global norm of what is clipped.
        clip: "gradient", before AdamW sees it, as the paper says; or "update", after AdamW, as the
            published code does (where it never acts: an update's norm is far below 1).
    """

    steps: int
    warmup_steps: int
    learning_rate: float
    final_learning_rate: float
    weight_decay: float
    clip_norm: float
    clip: Literal["gradient", "update"] = "gradient"


def meta_optimizer(config: MetaOptimizerConfig) -> optax.GradientTransformation:
    """Build the meta-optimizer."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.steps,
        end_value=config.final_learning_rate,
    )
    clip = optax.clip_by_global_norm(config.clip_norm)
    adamw = optax.adamw(schedule, weight_decay=config.weight_decay)
    return optax.chain(clip, adamw) if config.clip == "gradient" else optax.chain(adamw, clip)
