"""What an import assumes, is told, refuses, and never overwrites."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mulo_cli.artefacts.store import load_card
from mulo_cli.artefacts.trees import named_leaves, tree_checksum
from mulo_cli.assembly import weight_import
from mulo_cli.assembly.learned import load_and_measure, make_learned_optimizer
from mulo_cli.assembly.weight_export import export_weights
from mulo_cli.assembly.weight_import import import_weights
from mulo_cli.assembly.weight_inspection import inspect_weights
from mulo_cli.assembly.weight_settings import ASSUMED, Given
from mulo_cli.errors import ArtefactError, MuloError, OutputError, UsageError
from tests.artefacts.foreign_files import (
    SMALL,
    VELO,
    bring_in,
    contents,
    msgpack_of,
    mulo_pickle,
    pylo_file,
    velo_container,
)

CELO = Path(__file__).parents[3] / "shared/data/learned_optimizer_weights/celo.theta.state"
RELEASED = {
    "momentum_decays": [0.15216392, 0.14245212, 0.06812963],
    "rms_decays": [0.01079706],
    "adafactor_decays": [0.18621896, -0.10864615, -0.06185547],
}
WRITTEN = {"flax msgpack": msgpack_of, "VeLO container": velo_container, "pickle": mulo_pickle}


@pytest.fixture(autouse=True)
def without_parity(monkeypatch):
    """Make cards without a parity vector, which takes half a second; it is tested elsewhere."""
    monkeypatch.setattr(weight_import, "compute_parity", lambda optimizer, theta: None)


def theta_in(folder: Path):
    return load_and_measure(folder)[0].theta


# --- What a file does not tell --------------------------------------------------------------------


@pytest.mark.parametrize("theta", [SMALL, VELO], ids=["small_fc_lopt", "velo"])
@pytest.mark.parametrize("container", WRITTEN)
def test_what_is_assumed_is_that_of_the_source_and_is_said(tmp_path, container, theta):
    report = bring_in(tmp_path, WRITTEN[container](theta))
    parametrization, settings = ASSUMED[report.architecture, container]
    assert report.parametrization == parametrization
    assert settings.items() <= dict(report.settings).items()
    assert {"parametrization", "step_size", "base_fan_in"} <= set(report.assumed)
    assert set(report.read) <= {"hidden_size", "lstm_size", "bank_size"}
    assert report.given == ()
    assert report.licence == "unknown"
    assert load_card(tmp_path / "artefact").source["assumed"] == list(report.assumed)


def test_the_published_constants(tmp_path):
    """Spec, sections 2, 3 and 6."""
    assert bring_in(tmp_path, velo_container(VELO)).settings == {
        "hidden_size": 4,
        "lstm_size": 6,
        "bank_size": 3,
        "step_size": 0.001,
        "magnitude_scale": 0.001,
        "fraction_left": "offset",
        "interpolation_scale": 100.0,
        "parameter_scale": True,
        "loss_feature_horizon": 10,
        "base_fan_in": 1,
    }
    of_mulo = bring_in(tmp_path, mulo_pickle(VELO), overwrite=True)
    assert of_mulo.parametrization == "mup"
    assert of_mulo.settings["interpolation_scale"] == 1.0
    assert of_mulo.settings["parameter_scale"] is False
    assert bring_in(tmp_path, mulo_pickle(SMALL), overwrite=True).settings == {
        "hidden_size": 5,
        "step_size": 0.01,
        "magnitude_scale": 0.001,
        "time_feature": "offset",
        "clip_gradients": True,
        "base_fan_in": 1,
    }
    original = bring_in(tmp_path, msgpack_of(SMALL), overwrite=True)
    assert (original.parametrization, original.settings["step_size"]) == ("sp", 0.001)


def test_what_is_given_wins_and_is_said(tmp_path):
    (tmp_path / "NOTICE").write_text("Copyright µ\n")
    report = bring_in(
        tmp_path,
        msgpack_of(SMALL),
        name="mine",
        parametrization="mup",
        settings=("step_size = 0.5", "base_fan_in=64"),
        licence="MIT",
        notice_file=tmp_path / "NOTICE",
    )
    card = load_card(tmp_path / "artefact")
    assert set(report.given) == {"parametrization", "step_size", "base_fan_in"}
    assert not set(report.given) & set(report.assumed)
    assert (card.name, card.licence, card.notice) == ("mine", "MIT", "Copyright µ\n")
    assert (card.settings["step_size"], card.fan_in) == (0.5, "relative")


def test_pylos_decays_are_the_released_ones_unless_said_otherwise(tmp_path):
    report = bring_in(tmp_path, pylo_file(SMALL))
    assert report.decays == "released-mulo"
    for name, expected in RELEASED.items():
        np.testing.assert_array_equal(
            theta_in(tmp_path / "artefact")[name], np.array(expected, np.float32)
        )
    assert (
        bring_in(tmp_path, pylo_file(SMALL), decays="initial", overwrite=True).decays == "initial"
    )
    np.testing.assert_array_equal(theta_in(tmp_path / "artefact")["momentum_decays"], 0)
    (tmp_path / "decays.toml").write_text(
        "momentum_decays = [1, 2, 3]\nrms_decays = [4.5]\nadafactor_decays = [-1.0, 0.0, 1.0]\n"
    )
    path = str(tmp_path / "decays.toml")
    report = bring_in(tmp_path, pylo_file(SMALL), decays=path, overwrite=True)
    assert report.decays == "file decays.toml", "the card does not tell where it was made"
    np.testing.assert_array_equal(theta_in(tmp_path / "artefact")["momentum_decays"], [1, 2, 3])


def test_every_assumption_is_one_that_its_architecture_takes():
    for (architecture, _), (parametrization, settings) in ASSUMED.items():
        make_learned_optimizer(architecture, settings, parametrization)
    assert named_leaves(SMALL).keys() == {
        *RELEASED,
        *(f"nn/{kind}{layer}" for kind in "wb" for layer in range(3)),
    }


# --- What is refused ------------------------------------------------------------------------------


def refused(folder: Path, kind: type[MuloError], content: bytes, said: str, **given) -> None:
    with pytest.raises(kind) as caught:
        bring_in(folder, content, **given)
    assert said in caught.value.message, caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert not (folder / "artefact").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"settings": ("step_siz=1",)}, "'step_siz'"),
        ({"settings": ("step_size",)}, "key=value"),
        ({"settings": ("=1",)}, "key=value"),
        ({"settings": ("step_size=large",)}, "step_size"),
        ({"settings": ("base_fan_in=0",)}, "base_fan_in"),
        ({"settings": ("time_feature=late",)}, "time_feature"),
        ({"settings": ("hidden_size=7",)}, "the file tells it"),
        ({"settings": ("step_size=nan",)}, "step_size"),
        ({"settings": ("step_size=inf",)}, "step_size"),
        ({"settings": ("step_size=" + "[" * 9_000,)}, "step_size"),
        ({"decays": "initial"}, "has its own"),
        ({"notice_file": Path("nowhere")}, "--notice-file"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant(tmp_path, given, said):
    refused(tmp_path, UsageError, msgpack_of(SMALL), said, **given)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "momentum_decays = [1, 2]\nrms_decays = [1]\nadafactor_decays = [1, 2, 3]",
        "momentum_decays = [1, 2, nan]\nrms_decays = [1]\nadafactor_decays = [1, 2, 3]",
        "momentum_decays = [1, 2, true]\nrms_decays = [1]\nadafactor_decays = [1, 2, 3]",
        "momentum_decays = [1, 2, 1e39]\nrms_decays = [1]\nadafactor_decays = [1, 2, 3]",
        "more = 1\nmomentum_decays = [1, 2, 3]\nrms_decays = [1]\nadafactor_decays = [1, 2, 3]",
        "momentum",
    ],
    ids=str,
)
def test_decays_that_are_none(tmp_path, text):
    path = tmp_path / "decays.toml"
    if text is not None:
        path.write_text(text)
    refused(tmp_path, UsageError, pylo_file(SMALL), "decays", decays=str(path))


def shrunk(theta):
    return {**theta, "nn": {**theta["nn"], "w1": theta["nn"]["w1"][:-1]}}


BAD = {
    "wrong shapes": (msgpack_of(shrunk(SMALL)), "'nn/w1' has shape (4, 5)"),
    "wrong shapes in a pickle": (mulo_pickle(shrunk(SMALL)), "'nn/w1' has shape (4, 5)"),
    "not finite": (msgpack_of(jax.tree.map(lambda x: x * np.inf, SMALL)), "not finite"),
    "not finite in PyLO's": (pylo_file(jax.tree.map(lambda x: x * np.nan, SMALL)), "not finite"),
    "integers": (msgpack_of(jax.tree.map(lambda x: x.astype(int), SMALL)), "int64"),
    "another network": (msgpack_of({"nn": {"w": np.zeros(3, np.float32)}}), "no architecture"),
    "nothing": (msgpack_of({"nn": {}}), "no architecture"),
    "cut off": (msgpack_of(SMALL)[:-20], "cut off"),
    "an archive": (b"PK\x03\x04" + bytes(99), "zip archive"),
    "malice": (b"cposix\nsystem\n(S'touch executed'\ntR.", "posix.system"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_and_nothing_is_written(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, ArtefactError, *BAD[name])
    assert [path.name for path in tmp_path.iterdir()] == ["theta.state"]


def test_a_hostile_note_of_ours_is_refused(tmp_path):
    note = {
        "decays": RELEASED,
        "name": "n",
        "parametrization": "mup",
        "settings": {},
        "licence": "MIT",
        "notice": "",
    }
    bring_in(tmp_path, pylo_file(SMALL, mulo=json.dumps(note)))
    assert load_card(tmp_path / "artefact").licence == "MIT"
    for key, value in {
        "decays": {"momentum_decays": [1, 2, 3]},
        "parametrization": "ntk",
        "settings": {"step_size": "x"},
    }.items():
        hostile = json.dumps({**note, key: value})
        with pytest.raises(MuloError) as caught:
            bring_in(tmp_path, pylo_file(SMALL, mulo=hostile), overwrite=True)
        assert "\n" not in caught.value.message
    sizes = json.dumps({**note, "settings": {"hidden_size": 10**9}})
    bring_in(tmp_path, pylo_file(SMALL, mulo=sizes), overwrite=True)
    assert load_card(tmp_path / "artefact").settings["hidden_size"] == 5, "shapes tell it"


@pytest.mark.skipif(not CELO.exists(), reason="needs ../shared/data, which is no part of this")
def test_celo_is_described_and_not_imported(tmp_path):
    report = inspect_weights(CELO)
    assert (report.numbers, len(report.tensors), report.licence) == (37_089, 33, "unknown")
    assert not report.importable
    with pytest.raises(ArtefactError, match=r"relative of VeLO.* 18 .* 30 "):
        import_weights(CELO, tmp_path / "artefact", Given(), overwrite=False)
    assert not list(tmp_path.iterdir())


# --- Where it goes --------------------------------------------------------------------------------


def test_an_artefact_is_replaced_only_if_asked(tmp_path):
    bring_in(tmp_path, msgpack_of(SMALL))
    before = contents(tmp_path / "artefact")
    with pytest.raises(OutputError, match="already"):
        bring_in(tmp_path, mulo_pickle(VELO))
    assert contents(tmp_path / "artefact") == before
    bring_in(tmp_path, mulo_pickle(VELO), overwrite=True)
    assert tree_checksum(theta_in(tmp_path / "artefact")) == tree_checksum(VELO)


def test_an_artefact_with_something_beside_it_is_never_replaced(tmp_path):
    bring_in(tmp_path, msgpack_of(SMALL))
    (tmp_path / "artefact" / "notes.txt").write_text("do not lose me")
    with pytest.raises(OutputError, match="not an artefact alone"):
        bring_in(tmp_path, mulo_pickle(VELO), overwrite=True)
    assert (tmp_path / "artefact" / "notes.txt").exists()


def test_the_folder_one_is_in_can_take_an_artefact(tmp_path, monkeypatch):
    (tmp_path / "theta.state").write_bytes(msgpack_of(SMALL))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    import_weights(tmp_path / "theta.state", Path("."), Given(), overwrite=False)
    assert load_card(tmp_path / "here").architecture == "small_fc_lopt"


def test_another_folder_or_file_is_never_replaced(tmp_path):
    (tmp_path / "theta.state").write_bytes(msgpack_of(SMALL))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("do not lose me")
    for place in ("thesis", "theta.state"):
        with pytest.raises(OutputError, match="is not an artefact"):
            import_weights(tmp_path / "theta.state", tmp_path / place, Given(), overwrite=True)
    assert (tmp_path / "thesis" / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    import_weights(tmp_path / "theta.state", tmp_path / "empty", Given(), overwrite=False)
    assert load_card(tmp_path / "empty").architecture == "small_fc_lopt"


def test_an_export_replaces_nothing_unasked_and_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    bring_in(tmp_path, msgpack_of(SMALL))
    out = tmp_path / "out.safetensors"
    out.write_text("mine")
    for place in (out, tmp_path):
        with pytest.raises(OutputError):
            export_weights(tmp_path / "artefact", place, overwrite=False)
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(OutputError, match="cannot write"):
            export_weights(tmp_path / "artefact", out, overwrite=True)
    assert out.read_text() == "mine"
    assert not list(tmp_path.glob(".*"))
    export_weights(tmp_path / "artefact", out, overwrite=True)
    assert out.read_text("latin-1") != "mine"


def test_velo_is_not_exported(tmp_path):
    bring_in(tmp_path, mulo_pickle(VELO))
    with pytest.raises(ArtefactError, match="small_fc_lopt only"):
        export_weights(tmp_path / "artefact", tmp_path / "out.safetensors", overwrite=False)
    assert not (tmp_path / "out.safetensors").exists()
