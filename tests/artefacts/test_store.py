"""An artefact is there whole or not at all, and is read back as it was written, to the bit."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mulo_cli.artefacts import store
from mulo_cli.artefacts.card import FORMAT, Card, read_card, to_json
from mulo_cli.artefacts.parity import TOLERANCE, compute_parity
from mulo_cli.artefacts.store import find_artefact, load_card, load_theta, save_artefact
from mulo_cli.artefacts.trees import tree_checksum
from mulo_cli.assembly.learned import load_and_measure, load_learned_optimizer
from mulo_cli.errors import ArtefactError, OutputError
from tests.worlds import small_optimizer

# Orbax drops its own half-awaited reads when a file turns out to be damaged
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def birth(seed: int):
    return small_optimizer().init(jax.random.key(seed))


THETA, LAST = birth(1), birth(2)
SHAPES = jax.eval_shape(small_optimizer().init, jax.random.key(0))


def card_of(theta, last) -> Card:
    return Card(
        name="tiny-mup",
        architecture="small_fc_lopt",
        settings={
            "hidden_size": 4,
            "step_size": 0.03,
            "magnitude_scale": 0.001,
            "time_feature": "offset",
            "clip_gradients": False,
        },
        parametrization="mup",
        fan_in="absolute",
        meta_parameters=197,
        checksum=tree_checksum(theta),
        last_checksum=tree_checksum(last),
        recipe={"name": "tiny"},
        recipe_digest="0" * 64,
        training={"meta_steps": 3},
        licence="unknown",
        code_version="0.1.0",
        parity=None,
        notice="",
        source={"container": "meta-training"},
    )


CARD = card_of(THETA, LAST)


def same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def contents(root: Path) -> dict[str, bytes]:
    """Return every file under a folder."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Return an artefact that nobody changes."""
    path = tmp_path_factory.mktemp("artefacts") / "artefact"
    save_artefact(path, CARD, THETA, LAST)
    return path


@pytest.fixture
def artefact(saved, tmp_path) -> Path:
    """Return a copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "run" / "artefact"))


def refused(path: Path) -> ArtefactError:
    """Assert that a folder is refused with advice, and left as it was; return the error."""
    before = contents(path) if path.exists() else {}
    with pytest.raises(ArtefactError) as caught:
        load_learned_optimizer(path)
    assert caught.value.hint
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert (contents(path) if path.exists() else {}) == before
    return caught.value


def test_theta_comes_back_to_the_bit(saved):
    card = load_card(saved)
    assert card == CARD
    same_bits(load_theta(saved, card, SHAPES), THETA)


def test_the_last_theta_lies_beside_the_kept_one(saved):
    with ocp.StandardCheckpointer() as checkpointer:
        last = checkpointer.restore((saved / "theta_last").absolute(), SHAPES)
    same_bits(last, LAST)
    assert tree_checksum(last) == CARD.last_checksum != CARD.checksum


def test_it_does_not_tell_where_it_was_written(saved):
    for file in saved.rglob("*"):
        assert file.is_dir() or str(saved.parent).encode() not in file.read_bytes(), file


@pytest.mark.parametrize("inside", ["", "artefact"], ids=["the run", "the artefact itself"])
def test_it_is_found_from_the_run_or_from_itself(artefact, inside):
    path = artefact.parent / inside
    assert find_artefact(path) == artefact
    card, optimizer, theta = load_learned_optimizer(path)
    assert card.name == "tiny-mup"
    same_bits(theta, THETA)
    same_bits(optimizer.init(jax.random.key(1)), THETA)


def test_a_relative_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_artefact(Path("here"), CARD, THETA, LAST)
    same_bits(load_learned_optimizer(Path("here"))[2], THETA)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_numbers_that_are_not_finite_and_both_zeros_survive(tmp_path):
    odd = jax.tree.map(lambda x: x.at[..., 0].set(np.float32("nan")), THETA)
    odd["nn"]["b0"] = odd["nn"]["b0"].at[1].set(-0.0).at[2].set(np.float32("inf"))
    save_artefact(tmp_path / "odd", card_of(odd, LAST), odd, LAST)
    same_bits(load_learned_optimizer(tmp_path / "odd")[2], odd)


def test_saving_again_replaces_the_former_one(artefact):
    save_artefact(artefact, card_of(LAST, LAST), LAST, LAST)
    same_bits(load_learned_optimizer(artefact)[2], LAST)
    assert [path.name for path in artefact.parent.iterdir()] == ["artefact"]


# --- What is not there ----------------------------------------------------------------------------


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "nowhere").message
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds no artefact" in refused(tmp_path).message


def test_a_run_that_has_not_finished_says_how_to_go_on(tmp_path):
    (tmp_path / "recipe.toml").write_text("")
    error = refused(tmp_path)
    assert "has not finished" in error.message
    assert "resume" in error.hint


# --- Damage ---------------------------------------------------------------------------------------


def cut(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn_a_bit(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {"deleted": Path.unlink, "cut": cut, "emptied": lambda path: path.write_bytes(b"")}


@pytest.mark.parametrize("damage", [*DAMAGES.values(), turn_a_bit], ids=[*DAMAGES, "turned"])
def test_whatever_happens_to_a_file_theta_is_right_or_refused(saved, tmp_path, damage):
    """Some files of a checkpoint are not needed to read it; a wrong number never comes through."""
    refusals = []
    for i, name in enumerate(sorted(contents(saved / "theta"))):
        copy = Path(shutil.copytree(saved, tmp_path / str(i)))
        damage(copy / "theta" / name)
        before = contents(copy)
        try:
            same_bits(load_learned_optimizer(copy)[2], THETA)
        except ArtefactError:
            refusals.append(name)
        assert contents(copy) == before, f"reading changed something after {name}"
    assert refusals, "the test must be able to fail"


def test_a_theta_that_is_gone_is_refused(artefact):
    shutil.rmtree(artefact / "theta")
    assert "cannot be read" in refused(artefact).message


def test_another_theta_than_the_cards_is_refused(artefact):
    shutil.rmtree(artefact / "theta")
    (artefact / "theta_last").rename(artefact / "theta")
    assert "checksum" in refused(artefact).message


BAD_CARDS = ["", "{", "[]", "null", "7", '"card"', "{}", "\x00", "[" * 100_000, "9" * 5_000]


@pytest.mark.parametrize("text", BAD_CARDS, ids=lambda text: text[:6])
def test_a_card_that_is_no_card_is_refused(artefact, text):
    (artefact / "card.json").write_text(text)
    refused(artefact)


def test_a_card_that_is_no_text_is_refused(artefact):
    (artefact / "card.json").write_bytes(b"\xff\xfe{")
    refused(artefact)


def tampered(artefact: Path, **changes) -> Path:
    values = {**json.loads(to_json(CARD)), **changes}
    text = json.dumps({k: v for k, v in values.items() if v is not ...})
    (artefact / "card.json").write_text(text)
    return artefact


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"checksum": "0" * 64}, "checksum"),
        ({"format": 3}, "format 3"),
        ({"format": 0}, "format 0"),
        ({"format": True}, "format True"),
        ({"format": "2"}, "format '2'"),
        ({"format": None}, "format None"),
        ({"format": [1]}, "format [1]"),
        ({"mood": "good"}, "mood"),
        ({"parametrization": "ntk"}, "parametrization"),
        ({"fan_in": "relative"}, "fan_in"),
        ({"settings": ...}, "settings"),
        ({"parity": ...}, "parity"),
        ({"parity": {"input": "waves-1"}}, "parity.updates"),
        ({"source": "a friend"}, "source"),
        ({"meta_parameters": 198}, "197 numbers"),
        ({"meta_parameters": "many"}, "meta_parameters"),
        ({"architecture": "large_fc_lopt"}, "large_fc_lopt"),
    ],
)
def test_a_card_that_was_changed_is_refused(artefact, changes, said):
    assert said in refused(tampered(artefact, **changes)).message


@pytest.mark.parametrize(
    "setting",
    [{"hidden_size": 8}, {"layers": 3}, {"hidden_size": "four"}, {"time_feature": "none"}],
    ids=lambda setting: str(setting),
)
def test_settings_that_this_theta_was_not_made_with_are_refused(artefact, setting):
    refused(tampered(artefact, settings={**CARD.settings, **setting}))


def test_reading_a_card_gives_what_was_written(tmp_path):
    name = 'a "name"\nof µ [\n 1,\n 2\n] [ 1,  2 ]'
    odd = dataclasses.replace(CARD, name=name, training={"loss": 0.1, "widths": [1, 2e-8, -3]})
    (tmp_path / "card.json").write_text(to_json(odd), "utf-8")
    assert read_card(tmp_path / "card.json") == odd


def test_a_card_of_format_1_is_read_and_its_parity_is_not_asked_for(artefact):
    missing = dict.fromkeys(("parity", "notice", "source"), ...)
    card = load_card(tampered(artefact, format=1, **missing))
    assert (card.format, card.parity, card.notice) == (1, None, "")
    assert card.source == {"container": "meta-training"}
    same_bits(load_learned_optimizer(artefact)[2], THETA)


def test_an_imported_artefact_has_no_last_theta_and_no_recipe(tmp_path):
    card = dataclasses.replace(CARD, last_checksum=None, recipe=None, recipe_digest=None)
    save_artefact(tmp_path / "imported", card, THETA, None)
    assert sorted(p.name for p in (tmp_path / "imported").iterdir()) == ["card.json", "theta"]
    same_bits(load_learned_optimizer(tmp_path / "imported")[2], THETA)
    assert load_card(tmp_path / "imported") == card


def test_multipliers_relative_to_a_width_are_said_to_be_relative(artefact, vouched):
    relative = {**CARD.settings, "base_fan_in": 4}
    assert "fan_in" in refused(tampered(artefact, settings=relative)).message
    disagreeing = tampered(artefact, parity=vouched, settings=relative, fan_in="relative")
    assert "disagree" in refused(disagreeing).message, "hidden updates are four times as large"


def test_a_card_beyond_all_bounds_is_refused(artefact):
    (artefact / "card.json").write_bytes(b" " * (16 * 2**20 + 1))
    assert "more than 16 MiB" in refused(artefact).message


# --- The parity vector ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vouched() -> dict:
    """Return the parity vector of the small world."""
    return dataclasses.asdict(compute_parity(small_optimizer(), THETA))


def with_updates(vouched: dict, change) -> dict:
    updates = {name: list(numbers) for name, numbers in vouched["updates"].items()}
    change(updates)
    return {"input": "waves-1", "updates": updates}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda u: u["hidden"].__setitem__(5, 3.0), "'hidden'"),
        (lambda u: u["scale"].__setitem__(0, None), "'scale'"),
        (lambda u: u["bias"].pop(), "'bias'"),
        (lambda u: u.pop("kernel"), "'kernel'"),
    ],
)
def test_weights_and_code_that_disagree_are_refused(artefact, vouched, change, said):
    message = refused(tampered(artefact, parity=with_updates(vouched, change))).message
    assert "weights and code disagree" in message
    assert said in message


def test_a_parity_vector_for_another_input_is_refused(artefact, vouched):
    changed = {**vouched, "input": "waves-2"}
    assert "another input" in refused(tampered(artefact, parity=changed)).message


@pytest.mark.parametrize(
    "setting",
    [{"step_size": 0.031}, {"magnitude_scale": 0.02}, {"time_feature": "plain"}],
    ids=lambda setting: next(iter(setting)),
)
def test_parity_notices_a_constant_that_has_changed(artefact, vouched, setting):
    changed = tampered(artefact, parity=vouched, settings={**CARD.settings, **setting})
    assert "disagree" in refused(changed).message


def test_parity_notices_another_parametrization(artefact, vouched):
    changed = tampered(artefact, parity=vouched, parametrization="sp")
    assert "disagree" in refused(changed).message


def test_differences_of_rounding_are_forgiven(artefact, vouched):
    def shake(updates):
        for name, numbers in updates.items():
            largest = max(map(abs, numbers))
            updates[name] = [x + 0.9 * TOLERANCE * largest for x in numbers]

    same_bits(
        load_learned_optimizer(tampered(artefact, parity=with_updates(vouched, shake)))[2], THETA
    )


def test_the_artefact_that_ships_is_of_the_newest_format_and_agrees():
    loaded, distance = load_and_measure(Path("mulo-m-desk"))
    assert loaded.card.format == FORMAT
    assert distance is not None
    assert distance < TOLERANCE


def test_the_other_parametrization_can_be_asked_for(saved):
    """The card's own is what parity is checked under."""
    one, other = load_learned_optimizer(saved), load_learned_optimizer(saved, "sp")
    assert one.card == other.card
    hidden = [np.array(compute_parity(x.optimizer, THETA).updates["hidden"]) for x in (one, other)]
    np.testing.assert_allclose(4 * hidden[0][:12], hidden[1][:12], rtol=1e-4)  # fan-in 4, 1st step


# --- A save that fails ----------------------------------------------------------------------------


def break_checkpoints(monkeypatch):
    def save(self, *arguments, **options):
        raise ValueError("no space left\nand a long story")

    monkeypatch.setattr(store.ocp.Checkpointer, "save", save)


def break_card(monkeypatch):
    def write_text(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.Path, "write_text", write_text)


def break_the_move(monkeypatch):
    def rename(self, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store.Path, "rename", rename)


def break_the_last_move(monkeypatch):
    rename = Path.rename

    def only_others(self, target):
        if "draft" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(store.Path, "rename", only_others)


@pytest.mark.parametrize(
    "broken", [break_checkpoints, break_card, break_the_move, break_the_last_move]
)
def test_a_save_that_fails_leaves_the_former_artefact_and_nothing_else(
    artefact, monkeypatch, broken
):
    before = contents(artefact.parent)
    with monkeypatch.context() as patched:
        broken(patched)
        with pytest.raises(OutputError) as caught:
            save_artefact(artefact, card_of(LAST, LAST), LAST, LAST)
    assert str(artefact) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert contents(artefact.parent) == before
    same_bits(load_learned_optimizer(artefact)[2], THETA)


def test_a_place_that_cannot_be_written_is_an_error_with_advice(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as caught:
        save_artefact(tmp_path / "file" / "artefact", CARD, THETA, LAST)
    assert caught.value.hint
    assert (tmp_path / "file").read_text() == "in the way"


# --- The checksum ---------------------------------------------------------------------------------


def test_the_checksum_knows_names_types_shapes_and_every_bit():
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].astype(np.int32), "b": base["b"]},
        {"a": base["a"].reshape(3, 2), "b": base["b"]},
        {"a": -base["a"], "b": base["b"]},
        {"a": base["a"], "b": np.nextafter(base["b"], np.float32(2))},
    ]
    sums = [tree_checksum(tree) for tree in (base, *others)]
    assert len(set(sums)) == len(sums)
    assert tree_checksum(jax.tree.map(jax.numpy.asarray, base)) == sums[0]
    assert tree_checksum({"b": base["b"], "a": np.asfortranarray(base["a"])}) == sums[0]
