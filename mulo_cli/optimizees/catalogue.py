"""Every optimizee by name."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import flax.linen as nn

from mulo_cli.optimizees.mlp import MLP


@runtime_checkable
class MakeOptimizee(Protocol):
    """Build a network of a given width; the other fields describe the task."""

    def __call__(self, *, width: int, depth: int, num_classes: int, mup: bool) -> nn.Module:
        """Return the flax module."""
        ...


OPTIMIZEES: Mapping[str, MakeOptimizee] = {"mlp": MLP}
