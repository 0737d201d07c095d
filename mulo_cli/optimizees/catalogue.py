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
        make: builds the flax module from `width`, `depth`, `num_classes`, `parametrization` and
            options.
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


COMMON = {
    "input_mult": float,
    "output_mult": float,
    "readout": str,
    "matmul_precision": str,
    "stacked": bool,
}
"""Options of every network."""

BLOCKS = {"heads": int, "ffn_multiple": int, "depth_power": float, **COMMON}
"""Options of every transformer."""

LANGUAGE_MODEL = OptimizeeEntry(
    TransformerLM,
    reads="text",
    options=BLOCKS,
    usual_options=lambda width: {"heads": usual_heads(width)},
    length=64,
)

OPTIMIZEES: Mapping[str, OptimizeeEntry] = {
    "mlp": OptimizeeEntry(MLP, reads="images", options=COMMON),
    "vit": OptimizeeEntry(
        ViT,
        reads="images",
        options={**BLOCKS, "patch": int, "pooling": str},
        usual_options=lambda width: {"heads": usual_heads(width)},
    ),
    "lm": LANGUAGE_MODEL,
    "transformer-lm": LANGUAGE_MODEL,
    "gpt": OptimizeeEntry(GPT, reads="text", options=BLOCKS, length=256),
}
