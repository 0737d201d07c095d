"""PyLO's names for small_fc_lopt: torch Linear layers, (out, in), without the decays.

P. Janson, B. Therien et al., PyLO (2025): `network.input`, `network.linear_0`, `network.output`.
The decays of the released muLO stand in PyLO's code, not in its files.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mulo_cli.artefacts.foreign.arrays import Malformed
from mulo_cli.errors import UsageError, shortened

LAYERS = ("network.input", "network.linear_0", "network.output")
"""In the order of w0, w1, w2."""

DECAYS = {"momentum_decays": 3, "rms_decays": 1, "adafactor_decays": 3}
"""Leaves that a file of PyLO does not have, and how many numbers each has."""

RELEASED_MULO = {
    "momentum_decays": (0.15216392, 0.14245212, 0.06812963),
    "rms_decays": (0.01079706,),
    "adafactor_decays": (0.18621896, -0.10864615, -0.06185547),
}
"""The deltas that PyLO's code has for the released muLO."""

LARGEST_FLOAT = float(np.finfo(np.float32).max)

NOTE = "mulo"
"""Key of the metadata in which files written here say what PyLO's format cannot."""


def is_pylo(arrays: Mapping[str, np.ndarray]) -> bool:
    """Say whether the names are PyLO's."""
    return any(f"{layer}.weight" in arrays for layer in LAYERS)


def from_pylo(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays under our names, matrices as (in, out); unknown ones keep their names.

    Raises:
        Malformed: it has a leaf under both names.
    """
    ours = {f"{layer}.weight": f"nn/w{index}" for index, layer in enumerate(LAYERS)}
    ours |= {f"{layer}.bias": f"nn/b{index}" for index, layer in enumerate(LAYERS)}
    renamed = {
        ours.get(name, name): array.T if name.endswith(".weight") else array
        for name, array in arrays.items()
    }
    if len(renamed) < len(arrays):
        raise Malformed("it has a layer under two names")
    return renamed


def to_pylo(theta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the network of a small_fc_lopt under PyLO's names, matrices as (out, in)."""
    found = {}
    for index, layer in enumerate(LAYERS):
        found[f"{layer}.weight"] = np.asarray(theta["nn"][f"w{index}"]).T
        found[f"{layer}.bias"] = np.asarray(theta["nn"][f"b{index}"])
    return found


def decays_as_arrays(values: Mapping[str, Any], origin: str) -> dict[str, np.ndarray]:
    """Check decays and return them as leaves of theta.

    Args:
        values: deltas by leaf.
        origin: what an error calls the place they come from.

    Raises:
        UsageError: a leaf is missing, unknown, or not so many finite numbers.
    """
    for name in (*DECAYS, *values):
        found = values.get(name)
        wanted = DECAYS.get(name)
        right = (
            isinstance(found, list | tuple)
            and len(found) == wanted
            and all(type(number) in (int, float) for number in found)
            and all(abs(number) < LARGEST_FLOAT for number in found)
        )
        if not right:
            raise UsageError(
                f"{origin}: {shortened(name)} is not {wanted or 'one of the decays'}"
                f"{' finite numbers' if wanted else ''}",
                "give momentum_decays (3 numbers), rms_decays (1) and adafactor_decays (3)",
            )
    return {name: np.asarray(values[name], np.float32) for name in DECAYS}


def write_note(decays: Mapping[str, Any], **more: Any) -> dict[str, str]:
    """Return metadata: what PyLO's format cannot hold, so that our own import is exact."""
    exact = {name: np.asarray(decays[name]).astype(float).tolist() for name in DECAYS}
    return {"format": "pt", NOTE: json.dumps({"decays": exact, **more})}


def read_note(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what a file written here says about itself; None if there is nothing.

    Raises:
        Malformed: there is something, and it is not ours.
    """
    if NOTE not in metadata:
        return None
    try:
        found = json.loads(metadata[NOTE])
    except (ValueError, RecursionError, TypeError) as error:
        raise Malformed("its metadata `mulo` is not JSON") from error
    expected = {
        "decays": dict,
        "name": str,
        "parametrization": str,
        "settings": dict,
        "licence": str,
        "notice": str,
    }
    if not isinstance(found, dict) or found.keys() != expected.keys():
        raise Malformed("its metadata `mulo` is not what this program writes")
    if not all(isinstance(found[key], kind) for key, kind in expected.items()):
        raise Malformed("its metadata `mulo` is not what this program writes")
    return found
