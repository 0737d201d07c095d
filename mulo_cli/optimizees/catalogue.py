"""Every optimizee by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import flax.linen as nn

from mulo_cli.optimizees.gpt import GPT
from mulo_cli.optimizees.mlp import MLP
from mulo_cli.optimizees.transformer import usual_heads
from mulo_cli.optimizees.transformer_lm import TransformerLM
from mulo_cli.optimizees.vit import ViT


@dataclass(frozen=True)
class OptimizeeEntry:
    """One entry of the shelf.

    Attributes:
        make: builds the flax module from `width`, `depth`, `num_classes`, `mup` and options.
        reads: what kind of data set it can be trained on.
        options: fields of the module that a user may set -> their type.
        usual_options: width -> values of options that depend on it.
        length: tokens `L` of an example, unless told otherwise (text only).
    """

    make: Callable[..., nn.Module]
    reads: Literal["images", "text"]
    options: Mapping[str, type] = field(default_factory=dict)
    usual_options: Callable[[int], Mapping[str, Any]] = lambda width: {}
    length: int = 0


OPTIMIZEES: Mapping[str, OptimizeeEntry] = {
    "mlp": OptimizeeEntry(MLP, reads="images", options={"stacked": bool}),
    "vit": OptimizeeEntry(
        ViT,
        reads="images",
        options={
            "heads": int,
            "ffn_multiple": int,
            "patch": int,
            "pooling": str,
            "stacked": bool,
        },
        usual_options=lambda width: {"heads": usual_heads(width)},
    ),
    "lm": OptimizeeEntry(
        TransformerLM,
        reads="text",
        options={"heads": int, "ffn_multiple": int, "stacked": bool},
        usual_options=lambda width: {"heads": usual_heads(width)},
        length=64,
    ),
    "gpt": OptimizeeEntry(
        GPT,
        reads="text",
        options={"heads": int, "depth_power": float, "stacked": bool},
        length=256,
    ),
}
