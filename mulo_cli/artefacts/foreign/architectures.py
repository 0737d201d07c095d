"""Which learned optimizer a bag of named arrays is, how large, and if it is none: why not.

Names and shapes are those of spec and papers, as our own optimizers have them at birth; published
files agree with them but for levels that say nothing (see `flatten`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from mulo_cli.artefacts.foreign.arrays import printable
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.mup.roles import leaf_name
from mulo_cli.mup.rules import standard
from mulo_cli.types import Theta

SIZES: Mapping[str, Mapping[str, str]] = {
    "small_fc_lopt": {"hidden_size": "nn/b0"},
    "velo": {
        "hidden_size": "ff_mod_stack/b0",
        "lstm_size": "lstm_init_state/hidden",
        "bank_size": "rnn_params/rnn_to_controls/b",
    },
}
"""Settings that are sizes, and the leaf whose last axis tells them."""

LARGEST_SIZE = 1_000_000
"""Of any axis; beyond it a file does not hold a learned optimizer."""

ALIKE = 0.5
"""Share of common names from which on a file is meant to be an architecture."""

SHOWN = 3
"""Complaints that an error tells."""

LSTM_LAYERS = ("rnn_params/linear/w", "rnn_params/linear_1/w", "rnn_params/linear_2/w")
TIME_INPUTS, LOSS_INPUTS = 9, 9
"""Of VeLO's LSTM: what is left of the run, and how the loss goes."""


@dataclass(frozen=True)
class Recognition:
    """What a bag of arrays was taken for.

    Attributes:
        architecture: name in the catalogue; None if it resembles nothing.
        sizes: settings read off shapes.
        complaints: in what it differs; none: it is exactly that.
    """

    architecture: str | None
    sizes: Mapping[str, int] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Return the complaints in one sentence."""
        more = len(self.complaints) - SHOWN
        return "; ".join(self.complaints[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def recognise(
    arrays: Mapping[str, np.ndarray], *, forgiven: frozenset[str] = frozenset()
) -> Recognition:
    """Tell which architecture arrays belong to; a pure function of names, shapes and numbers.

    Args:
        arrays: by name.
        forgiven: leaves that may be missing: the container never has them.
    """
    best, likeness = None, 0.0
    for name in LEARNED_OPTIMIZERS:
        known = expected_shapes(name, {}).keys()
        alike = len(known & arrays.keys()) / max(1, len((known - forgiven) | arrays.keys()))
        if alike > likeness:
            best, likeness = name, alike
    if best is None or likeness < ALIKE or best not in SIZES:
        return Recognition(None, complaints=("its names are those of no architecture known here",))
    sizes = {
        setting: int(arrays[leaf].shape[-1])
        for setting, leaf in SIZES[best].items()
        if leaf in arrays and arrays[leaf].ndim
    }
    if not all(0 < size <= LARGEST_SIZE for size in sizes.values()):
        return Recognition(best, sizes, ("a size is zero or absurd",))
    wanted = expected_shapes(best, sizes)
    relative = _relative(best, arrays, wanted)
    explained = set(LSTM_LAYERS) if relative else set()
    unexplained = {name: shape for name, shape in wanted.items() if name not in explained}
    rest = {name: array for name, array in arrays.items() if name not in explained}
    return Recognition(
        best, sizes, (*relative, *_complaints(best, sizes, rest, unexplained, forgiven))
    )


def expected_shapes(architecture: str, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every leaf by name."""
    return {
        leaf_name(path): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(_shapes(architecture, sizes))
    }


def to_theta(
    architecture: str, sizes: Mapping[str, int], arrays: Mapping[str, np.ndarray]
) -> Theta:
    """Return arrays that were recognised without complaint as a theta of ours, in float32."""
    return jax.tree.map_with_path(
        lambda path, leaf: np.ascontiguousarray(arrays[leaf_name(path)], np.float32).reshape(
            leaf.shape
        ),
        _shapes(architecture, sizes),
    )


def _shapes(architecture: str, sizes: Mapping[str, int]) -> Any:
    entry = LEARNED_OPTIMIZERS[architecture]
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(entry.make(entry.config(**sizes), standard).init, key)


def _complaints(
    architecture: str,
    sizes: Mapping[str, int],
    arrays: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    forgiven: frozenset[str],
) -> tuple[str, ...]:
    """Name every leaf that is missing, one too many, of another shape, or not of finite numbers."""
    of = f"{architecture} with {', '.join(f'{k} {v}' for k, v in sizes.items())}"
    found = []
    for name in wanted:
        if name not in arrays:
            found += [] if name in forgiven else [f"leaf {name!r} is missing"]
        elif arrays[name].shape != wanted[name]:
            found.append(f"leaf {name!r} has shape {arrays[name].shape}, {of} has {wanted[name]}")
    for name, array in arrays.items():
        if name not in wanted:
            found.append(f"leaf {printable(name)!r} is one too many")
        if not np.issubdtype(array.dtype, np.floating):
            found.append(f"leaf {printable(name)!r} has numbers of type {array.dtype}, not floats")
        elif not np.isfinite(array).all():
            found.append(f"leaf {printable(name)!r} has numbers that are not finite")
        elif not _exact_in_float32(array):
            found.append(f"leaf {printable(name)!r} has numbers that do not fit into float32")
    return tuple(found)


def _exact_in_float32(array: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool((array.astype(np.float32).astype(array.dtype) == array).all())


def _relative(
    architecture: str,
    arrays: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
) -> tuple[str, ...]:
    """Say what is known of VeLO's relatives (Celo): their LSTM reads another number of inputs."""
    if architecture != "velo" or not all(name in arrays for name in LSTM_LAYERS):
        return ()
    found = {arrays[name].shape for name in LSTM_LAYERS}
    ours, units = wanted[LSTM_LAYERS[0]]
    shape = found.pop()
    if found or len(shape) != len((ours, units)) or shape[1] != units or shape[0] == ours:
        return ()
    alone = (
        f" ({shape[0]} is what time, {TIME_INPUTS}, and loss features, {LOSS_INPUTS}, make without"
        " any feature of the tensor)"
        if shape[0] == TIME_INPUTS + LOSS_INPUTS
        else ""
    )
    return (
        f"it is a relative of VeLO: its LSTM reads {shape[0]} numbers per tensor, VeLO's reads "
        f"{ours}{alone}",
    )


def count(arrays: Mapping[str, np.ndarray]) -> int:
    """Return how many numbers there are."""
    return sum(math.prod(array.shape) for array in arrays.values())
