"""`mulo weights` as its users see it: tables, lines of JSON, exit codes, what it leaves alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.recipes.references import parse_optimizer
from tests.artefacts.foreign_files import SMALL, VELO, msgpack_of, mulo_pickle, pylo_file
from tests.artefacts.foreign_files import velo_container as container_of
from tests.cli.programs import inside, mulo

ROOT = Path(__file__).parent.parent.parent
CELO = ROOT.parent / "shared/data/learned_optimizer_weights/celo.theta.state"


@pytest.fixture
def place(tmp_path) -> Path:
    """Return a folder with a file of each kind."""
    files = {
        "theta.state": msgpack_of(SMALL),
        "params": container_of(VELO),
        "global_step9.pickle": mulo_pickle(SMALL),
        "model.safetensors": pylo_file(SMALL),
        "evil.pickle": b"cposix\nsystem\n(S'touch executed'\ntR.",
        "bomb.pt": b"PK\x03\x04" + bytes(100),
        "cut.state": msgpack_of(SMALL)[:-1],
        "notes.txt": b"nothing to see",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def lines(done: subprocess.CompletedProcess[str]) -> dict:
    """Return the one line that a pipe gets."""
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.mark.parametrize(
    ("name", "container", "architecture"),
    [
        ("theta.state", "flax msgpack", "small_fc_lopt"),
        ("params", "VeLO container", "velo"),
        ("global_step9.pickle", "pickle", "small_fc_lopt"),
        ("model.safetensors", "PyLO safetensors", "small_fc_lopt"),
    ],
)
def test_every_kind_of_file_is_described(place, name, container, architecture):
    report = lines(inside("weights", "inspect", name, cwd=place))
    assert report["kind"] == "weights"
    assert (report["container"], report["architecture"]) == (container, architecture)
    assert report["importable"] is True
    assert report["licence"] == "unknown"
    shown = inside("weights", "inspect", name, cwd=place, watched=True)
    assert shown.returncode == 0
    for word in (container, architecture, "importable"):
        assert word in shown.stdout


@pytest.mark.parametrize(
    "path", ["mulo-m-desk", str(ROOT / "assets" / "mulo-m-desk")], ids=["name", "path"]
)
def test_the_artefact_that_ships_is_described_by_name_or_path(tmp_path, path):
    report = lines(inside("weights", "inspect", path, cwd=tmp_path))
    assert (report["container"], report["architecture"]) == ("artefact", "small_fc_lopt")
    assert "agrees" in report["notes"]["parity"]
    shown = inside("weights", "inspect", path, "--format", "table", cwd=tmp_path)
    assert "agrees" in shown.stdout


def test_an_import_says_where_every_setting_comes_from(place):
    done = inside(
        "weights", "import", "global_step9.pickle", "--out", "mine", "--set", "step_size=0.02",
        "--licence", "MIT", "--name", "ours", cwd=place, watched=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in (
        "ours",
        "0.02 (given)",
        "mup (assumed)",
        "5 (in the file)",
        "True (assumed)",
        "MIT",
        "mulo evaluate --optimizer mine",
    ):
        assert text in done.stdout, text
    again = inside("weights", "import", "theta.state", "--out", "mine", cwd=place)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    replaced = inside("weights", "import", "theta.state", "--out", "mine", "--overwrite", cwd=place)
    assert lines(replaced)["container"] == "flax msgpack"


def test_an_export_says_what_does_not_travel(place):
    inside(
        "weights", "import", "model.safetensors", "--out", "mine", "--decays", "initial", cwd=place
    )
    done = inside("weights", "export", "mine", "--out", "out.safetensors", cwd=place, watched=True)
    assert done.returncode == 0, done.stderr
    assert "momentum_decays" in done.stdout
    report = lines(inside("weights", "import", "out.safetensors", "--out", "again", cwd=place))
    assert report["decays"] == "in the file's metadata"
    cards = [json.loads((place / name / "card.json").read_text()) for name in ("mine", "again")]
    assert cards[0]["checksum"] == cards[1]["checksum"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["inspect", "evil.pickle"], 1, "posix.system"),
        (["inspect", "bomb.pt"], 1, "zip archive"),
        (["inspect", "cut.state"], 1, "cut off"),
        (["inspect", "notes.txt"], 1, "none of the files"),
        (["inspect", "nowhere"], 1, "does not exist"),
        (["inspect", "mulo-m-dsk"], 1, "did you mean 'mulo-m-desk'?"),
        (["inspect", "."], 1, "holds no artefact"),
        (["import", "evil.pickle", "--out", "x"], 1, "posix.system"),
        (["import", "nowhere", "--out", "x"], 1, "cannot read"),
        (["import", "theta.state"], 2, "--out"),
        (["import", "theta.state", "--out", "x", "--set", "stepsize=1"], 2, "step_size"),
        (["import", "theta.state", "--out", "x", "--parametrization", "ntk"], 2, "ntk"),
        (["import", "theta.state", "--out", "x", "--decays", "initial"], 2, "has its own"),
        (["import", "model.safetensors", "--out", "x", "--decays", "none"], 2, "released-mulo"),
        (["import", "theta.state", "--out", "notes.txt"], 1, "is not an artefact"),
        (["import", "theta.state", "--out", "notes.txt/x"], 1, "cannot"),
        (["export", "nowhere", "--out", "x"], 1, "does not exist"),
        (["export", "theta.state", "--out", "x"], 1, "holds no artefact"),
        (["explain", "theta.state"], 2, "explain"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_goes_wrong_ends_in_a_sentence_and_leaves_nothing(place, arguments, code, said):
    before = sorted(path.name for path in place.iterdir())
    done = inside("weights", *arguments, cwd=place)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in place.iterdir()) == before


def test_an_imported_artefact_is_an_optimizer_of_evaluate(place, monkeypatch):
    monkeypatch.chdir(place)
    lines(inside("weights", "import", "global_step9.pickle", "--out", "mine", cwd=place))
    found = build_named_optimizer(parse_optimizer("mine"))
    assert (found.parametrization, found.recipe_digest) == ("mup", None)
    card = json.loads((place / "mine" / "card.json").read_text())
    assert found.settings == {"checksum": card["checksum"]}


def test_help_does_not_import_the_engine(tmp_path):
    for arguments in (["weights", "--help"], ["weights", "import", "--help"]):
        done = mulo(*arguments, cwd=tmp_path)
        assert done.returncode == 0
        assert "import" in done.stdout
    script = (
        "import sys, mulo_cli.cli.commands.weights, mulo_cli.cli.weights_tables\n"
        "sys.exit(str({'jax', 'numpy', 'msgpack', 'safetensors', 'pickle'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() in ("set()", "{'pickle'}"), done.stderr


@pytest.mark.skipif(not CELO.exists(), reason="needs ../shared/data, which is no part of this")
def test_celo_is_described_and_cannot_be_run(tmp_path):
    shown = inside("weights", "inspect", str(CELO), cwd=tmp_path, watched=True)
    for word in ("flax msgpack", "37089", "33", "relative of VeLO", "unknown"):
        assert word in shown.stdout
    done = inside("weights", "import", str(CELO), "--out", "celo", cwd=tmp_path)
    assert done.returncode == 1
    assert "relative of VeLO" in done.stderr
    assert os.listdir(tmp_path) == []


# --- The front door for anybody's loop ------------------------------------------------------------

USE = """
import sys
import jax
import jax.numpy as jnp
import mulo_cli as mulo
params = {"hidden": jnp.ones((4, 4)), "bias": jnp.zeros(4)}
small = {"hidden": jnp.ones((2, 2)), "bias": jnp.zeros(2)}
roles = mulo.infer_roles(lambda key: small, lambda key: params)
tx = mulo.learned_optimizer("mulo-m-desk", roles=roles, num_steps=10)
state = jax.jit(tx.init)(params)
updates, _ = jax.jit(tx.update)(params, state, params, loss=jnp.float32(1))
assert float(abs(updates["hidden"]).max()) > 0
heavy = {"tensorflow", "tensorflow_datasets", "typer", "sklearn", "matplotlib", "scipy.stats"}
sys.exit(str(sorted(heavy & set(sys.modules))))
"""


def test_an_optimizer_is_used_by_its_name_without_what_it_does_not_need(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_a_name_that_nothing_has_is_told_with_the_nearest(tmp_path, monkeypatch):
    import mulo_cli
    from mulo_cli.errors import ArtefactError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtefactError) as caught:
        mulo_cli.learned_optimizer("mulo-m-desks", roles={}, num_steps=1)
    assert "'mulo-m-desks'" in caught.value.message
    assert "did you mean 'mulo-m-desk'?" in caught.value.hint
    with pytest.raises(ArtefactError, match="does not exist"):
        mulo_cli.learned_optimizer("nowhere/mulo-m-desk", roles={}, num_steps=1)
