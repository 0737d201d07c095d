"""Files as other projects write them, made here: nobody else's bits are part of the tests."""

import contextlib
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np
import safetensors.numpy

from mulo_cli.assembly.learned import make_learned_optimizer
from mulo_cli.assembly.weight_import import import_weights
from mulo_cli.assembly.weight_reports import ImportReport
from mulo_cli.assembly.weight_settings import Given


def theta_of(architecture: str, seed: int = 1, **sizes: int) -> Any:
    """Return a theta in which every leaf is different from zero."""
    birth = make_learned_optimizer(architecture, sizes, "mup").init
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (0.2 * rng.standard_normal(x.shape)).astype(np.float32),
        jax.eval_shape(birth, jax.random.key(0)),
    )


SMALL = theta_of("small_fc_lopt", hidden_size=5)
VELO = theta_of("velo", hidden_size=4, lstm_size=6, bank_size=3)


def published(theta: Any) -> dict[str, Any]:
    """Return a theta with the levels and names of published files."""
    if "nn" in theta:
        return {**theta, "nn": {"~": theta["nn"]}}
    rnn = dict(theta["rnn_params"])
    rnn["rnn/linear"] = rnn.pop("rnn")["linear"]
    return {**theta, "rnn_params": rnn, "ff_mod_stack": {"~": theta["ff_mod_stack"]}}


def msgpack_of(theta: Any) -> bytes:
    """learned_optimization's and Celo's `theta.state`."""
    return flax.serialization.msgpack_serialize(published(theta))


def velo_container(theta: Any) -> bytes:
    """Google's released `params`."""
    around = {"params": published(theta), "gen_id": "gen 7", "step": np.int64(12)}
    return flax.serialization.msgpack_serialize(around)


@contextlib.contextmanager
def haiku() -> Iterator[Any]:
    """Put Haiku's mapping where it would be, had it been installed; yield it."""
    module = types.ModuleType("haiku._src.data_structures")

    class FlatMapping(dict):
        def __reduce__(self):
            return FlatMapping, (dict(self),)

    FlatMapping.__module__, FlatMapping.__qualname__ = module.__name__, "FlatMapping"
    module.FlatMapping = FlatMapping  # type: ignore[attr-defined]
    names = ("haiku", "haiku._src", module.__name__)
    former = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: types.ModuleType(name) for name in names[:2]})
    sys.modules[module.__name__] = module
    try:
        yield FlatMapping
    finally:
        for name, was in former.items():
            sys.modules.pop(name) if was is None else sys.modules.__setitem__(name, was)


def mulo_pickle(theta: Any, protocol: int = 4, leaf: Any = np.asarray) -> bytes:
    """The muLO code's `global_stepN.pickle`: Haiku's mappings of arrays."""
    with haiku() as mapping:

        def wrap(tree: Any) -> Any:
            if isinstance(tree, dict):
                return mapping({key: wrap(child) for key, child in tree.items()})
            return leaf(tree)

        return pickle.dumps(wrap(published(theta)), protocol=protocol)


def pylo_tensors(theta: Any) -> dict[str, np.ndarray]:
    """PyLO's names and layout."""
    layers = {"network.input": "0", "network.linear_0": "1", "network.output": "2"}
    tensors = {}
    for layer, index in layers.items():
        tensors[f"{layer}.weight"] = np.ascontiguousarray(theta["nn"][f"w{index}"].T)
        tensors[f"{layer}.bias"] = theta["nn"][f"b{index}"]
    return tensors


def pylo_file(theta: Any, **metadata: str) -> bytes:
    """PyLO's safetensors."""
    return safetensors.numpy.save(pylo_tensors(theta), metadata={"format": "pt", **metadata})


def contents(root: Path) -> dict[str, bytes]:
    """Return every file under a folder."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def bring_in(folder: Path, content: bytes, **said) -> ImportReport:
    """Import a file called theta.state into `folder/artefact`."""
    (folder / "theta.state").write_bytes(content)
    overwrite = said.pop("overwrite", False)
    return import_weights(
        folder / "theta.state", folder / "artefact", Given(**said), overwrite=overwrite
    )
