"""Weights in and out: every container becomes an artefact and goes back, to the bit."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mulo_cli.artefacts.store import load_card
from mulo_cli.artefacts.trees import tree_checksum
from mulo_cli.assembly.learned import load_and_measure
from mulo_cli.assembly.weight_export import export_weights
from mulo_cli.assembly.weight_import import import_weights
from mulo_cli.assembly.weight_inspection import inspect_weights
from mulo_cli.assembly.weight_settings import Given
from mulo_cli.errors import ArtefactError
from tests.artefacts.foreign_files import (
    SMALL,
    VELO,
    bring_in,
    msgpack_of,
    mulo_pickle,
    pylo_file,
    velo_container,
)


def theta_in(folder: Path):
    return load_and_measure(folder)[0].theta


# --- Round trips ----------------------------------------------------------------------------------

WRITTEN = {"flax msgpack": msgpack_of, "VeLO container": velo_container, "pickle": mulo_pickle}


@pytest.mark.parametrize("theta", [SMALL, VELO], ids=["small_fc_lopt", "velo"])
@pytest.mark.parametrize("container", WRITTEN)
def test_every_container_becomes_an_artefact_to_the_bit(tmp_path, container, theta):
    report = bring_in(tmp_path, WRITTEN[container](theta))
    assert report.container == container
    loaded, distance = load_and_measure(tmp_path / "artefact")
    assert tree_checksum(loaded.theta) == tree_checksum(theta) == report.checksum
    assert distance == 0
    assert loaded.card.source["container"] == container
    assert loaded.card.source["file"] == "theta.state"
    assert loaded.card.last_checksum is None
    assert loaded.card.recipe is None


def test_there_and_back_by_pylo_is_exact(tmp_path):
    settings = ("step_size=0.02", "time_feature=plain", "base_fan_in=128")
    bring_in(tmp_path, mulo_pickle(SMALL), settings=settings, licence="MIT", name="µ")
    export_weights(tmp_path / "artefact", tmp_path / "out.safetensors", overwrite=False)
    import_weights(tmp_path / "out.safetensors", tmp_path / "again", Given(), overwrite=False)
    first, again = load_card(tmp_path / "artefact"), load_card(tmp_path / "again")
    assert tree_checksum(theta_in(tmp_path / "again")) == tree_checksum(SMALL)
    changed = {"source", "code_version"}
    one, other = dataclasses.asdict(first), dataclasses.asdict(again)
    assert {k: v for k, v in one.items() if k not in changed} == {
        k: v for k, v in other.items() if k not in changed
    }
    assert again.fan_in == "relative"
    assert again.source["assumed"] == []
    export_weights(tmp_path / "again", tmp_path / "more.safetensors", overwrite=False)
    assert (tmp_path / "more.safetensors").read_bytes() == (
        tmp_path / "out.safetensors"
    ).read_bytes()


def test_what_pylo_sees_is_torchs_layout(tmp_path):
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    bring_in(tmp_path, msgpack_of(SMALL))
    report = export_weights(tmp_path / "artefact", tmp_path / "out.safetensors", overwrite=False)
    tensors = safetensors_numpy.load_file(tmp_path / "out.safetensors")
    assert {name: array.shape for name, array in tensors.items()} == {
        "network.input.weight": (5, 39),
        "network.input.bias": (5,),
        "network.linear_0.weight": (5, 5),
        "network.linear_0.bias": (5,),
        "network.output.weight": (2, 5),
        "network.output.bias": (2,),
    }
    features = np.linspace(-1, 1, 39, dtype=np.float32)
    torch_like = tensors["network.input.weight"] @ features + tensors["network.input.bias"]
    np.testing.assert_allclose(
        torch_like, features @ SMALL["nn"]["w0"] + SMALL["nn"]["b0"], rtol=1e-5, atol=1e-6
    )
    assert any("momentum_decays" in text for text in report.left_behind)


def test_another_version_of_safetensors_metadata_changes_nothing_in_theta(tmp_path):
    report = bring_in(tmp_path, pylo_file(SMALL, license="apache-2.0"))
    assert report.licence == "unknown", "metadata of others is shown, not believed"
    card = load_card(tmp_path / "artefact")
    assert card.source["notes"]["license"] == "apache-2.0"


# --- Described ------------------------------------------------------------------------------------


def test_an_artefact_is_described_after_its_checks(tmp_path):
    bring_in(tmp_path, velo_container(VELO), licence="MIT")
    report = inspect_weights(tmp_path / "artefact")
    assert (report.container, report.architecture, report.licence) == ("artefact", "velo", "MIT")
    assert report.numbers == sum(leaf.size for leaf in jax.tree.leaves(VELO))
    assert "agrees" in report.notes["parity"]
    card = json.loads((tmp_path / "artefact" / "card.json").read_text())
    for change in ({"checksum": "0" * 64}, {"parity": {"input": "waves-1", "updates": {}}}):
        (tmp_path / "artefact" / "card.json").write_text(json.dumps(card | change))
        with pytest.raises(ArtefactError):
            inspect_weights(tmp_path / "artefact")


def test_numbers_that_are_not_finite_are_told(tmp_path):
    leaves = {"a": np.array([1, np.nan, -2], np.float32), "b": np.full(2, np.inf, np.float32)}
    (tmp_path / "odd").write_bytes(msgpack_of({"nn": leaves}))
    report = inspect_weights(tmp_path / "odd")
    a, b = report.tensors
    assert (a.least, a.largest, a.finite) == (-2, 1, False)
    assert (b.least, b.largest, b.finite) == (None, None, False)
    assert report.architecture is None
    assert not report.importable
