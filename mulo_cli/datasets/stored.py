"""What every reader of image files gives: arrays in memory, and what was done to get them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StoredImages:
    """Classified images as arrays, ready to be used or written down.

    Attributes:
        splits: "train" and "test" -> `{inputs: uint8[n, r, c(, ch)], targets: int32[n]}`; images of
            both splits have one shape.
        num_classes: `C`; targets are 0..C-1.
        classes: what the classes are called, in the order of targets; () where unknown.
        notes: one plain sentence for each thing that was converted or assumed.
    """

    splits: Mapping[str, Mapping[str, np.ndarray]]
    num_classes: int
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
