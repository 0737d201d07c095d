"""A checkpoint is whole or passed over, and the last whole one is never given away."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.artefacts.trees import tree_checksum
from mulo_cli.errors import CheckpointError
from mulo_cli.meta_training.checkpoints import INTEGRITY, BestTheta, Checkpoints, RunState
from tests.faults.disks import room_for


class Meta(NamedTuple):
    """What stands for the state of a meta-training."""

    theta: Any
    step: Any
    nothing: tuple = ()


def state(step: int, size: int = 50) -> RunState:
    """Return a state of several types and ranks whose bits depend on the step."""
    draw = np.random.default_rng(step)
    theta = {
        "a": jnp.asarray(draw.normal(size=(size, 40)), jnp.float32),
        "b": jnp.asarray(draw.normal(size=3), jnp.bfloat16),
        "c": jnp.asarray(draw.integers(2**32, size=(2, 2)), jnp.uint32),
    }
    return RunState(Meta(theta, jnp.int32(step)), BestTheta(theta, jnp.float32(0.5), jnp.int32(2)))


LIKE = jax.eval_shape(lambda: state(0))


@pytest.fixture
def open_at(tmp_path):
    """Return a function that opens the checkpoints of the test's folder as a new process would."""

    def open_them(keep: int = 2, folder: Path = tmp_path / "checkpoints") -> Checkpoints:
        return Checkpoints(folder, keep)

    return open_them


def same_bits(restored: RunState, saved: RunState) -> bool:
    return tree_checksum(restored) == tree_checksum(saved)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(entry.name for entry in checkpoints.directory.iterdir())


def test_what_was_saved_is_restored_to_the_bit_on_the_first_device(open_at):
    open_at().save(state(4))
    restored = open_at().restore_latest(LIKE)
    assert restored is not None
    assert restored.damaged == ()
    assert same_bits(restored.state, state(4))
    for leaf in jax.tree.leaves(restored.state):
        assert leaf.devices() == {jax.local_devices()[0]}


def test_states_on_the_host_are_saved_like_those_on_devices(open_at):
    open_at().save(jax.device_get(state(4)))
    restored = open_at().restore_latest(LIKE)
    assert restored is not None
    assert same_bits(restored.state, state(4))


def test_whether_there_is_one_is_known_without_reading_it(open_at):
    checkpoints = open_at()
    assert not checkpoints.has_any()
    assert checkpoints.restore_latest(LIKE) is None
    checkpoints.save(state(4))
    assert checkpoints.has_any()
    assert open_at().has_any()


@pytest.mark.parametrize(("keep", "left"), [(1, ["12"]), (2, ["12", "8"]), (5, ["12", "4", "8"])])
def test_the_newest_ones_stay(open_at, keep, left):
    checkpoints = open_at(keep)
    for step in (4, 8, 12, 12):
        checkpoints.save(state(step))
    assert names(checkpoints) == left


def test_a_saved_folder_may_be_moved(open_at, tmp_path):
    open_at().save(state(4))
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    restored = open_at(2, tmp_path / "elsewhere").restore_latest(LIKE)
    assert restored is not None
    assert same_bits(restored.state, state(4))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink], ids=lambda how: how.__name__)
def test_whichever_file_of_the_newest_one_is_damaged_the_one_before_is_used(
    open_at, tmp_path, damage: Callable[[Path], None]
):
    first = open_at()
    first.save(state(4))
    first.save(state(8))
    newest = tmp_path / "checkpoints" / "8"
    files = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 8
    shutil.copytree(newest, tmp_path / "whole")
    for file in files:
        if not (newest / file).stat().st_size:
            continue  # nothing can be cut off it
        damage(newest / file)
        restored = open_at().restore_latest(LIKE)
        assert restored is not None, file
        assert restored.damaged == (8,), file
        assert same_bits(restored.state, state(4)), file
        assert (tmp_path / "checkpoints" / "damaged-8").is_dir()
        shutil.copytree(tmp_path / "whole", newest)


def test_a_missing_folder_or_a_file_in_its_place_is_damage_too(open_at, tmp_path):
    first = open_at(keep=4)
    for step in (4, 8, 12):
        first.save(state(step))
    shutil.rmtree(tmp_path / "checkpoints" / "12" / "state")
    shutil.rmtree(tmp_path / "checkpoints" / "8" / INTEGRITY.parent)
    (tmp_path / "checkpoints" / "16").touch()  # not a folder: not a checkpoint
    (tmp_path / "checkpoints" / "20").mkdir()
    restored = open_at().restore_latest(LIKE)
    assert restored is not None
    assert restored.damaged == (20, 12, 8)
    assert same_bits(restored.state, state(4))


def test_files_that_are_whole_but_hold_other_bits_than_were_noted_are_damaged(open_at, tmp_path):
    first = open_at()
    first.save(state(4))
    first.save(state(8))
    for folder in ("4", "8"):
        note = tmp_path / "checkpoints" / folder / INTEGRITY
        plain = json.loads(note.read_text())
        plain["checksum" if folder == "8" else "remark"] = "0" * 64
        note.write_text(json.dumps(plain))
    restored = open_at().restore_latest(LIKE)
    assert restored is not None
    assert restored.damaged == (8,)


def test_checkpoints_of_older_versions_have_no_checksums_of_files(open_at, tmp_path):
    open_at().save(state(4))
    note = tmp_path / "checkpoints" / "4" / INTEGRITY
    note.write_text(json.dumps({"checksum": json.loads(note.read_text())["checksum"]}))
    restored = open_at().restore_latest(LIKE)
    assert restored is not None
    assert same_bits(restored.state, state(4))


def test_a_state_of_another_shape_is_not_taken(open_at):
    open_at().save(state(4))
    with pytest.raises(CheckpointError, match="can be read"):
        open_at().restore_latest(jax.eval_shape(lambda: state(0, size=60)))


def test_damaged_ones_do_not_count_for_those_that_stay(open_at, tmp_path):
    first = open_at(keep=2)
    first.save(state(4))
    first.save(state(8))
    cut(tmp_path / "checkpoints" / "8" / INTEGRITY)
    second = open_at(keep=2)
    assert second.restore_latest(LIKE) is not None
    second.save(state(8))
    assert names(second) == ["4", "8", "damaged-8"]
    second.save(state(12))
    assert names(second) == ["12", "8", "damaged-8"]


def test_an_older_one_stays_until_the_new_one_has_been_read_back(open_at, monkeypatch):
    checkpoints = open_at(keep=1)
    checkpoints.save(state(4))
    monkeypatch.setattr(Checkpoints, "_read", lambda *_: None)
    with pytest.raises(CheckpointError, match="cannot be read back"):
        checkpoints.save(state(8))
    monkeypatch.undo()
    assert names(checkpoints) == ["4"]
    checkpoints.save(state(8))
    assert names(checkpoints) == ["8"]


@pytest.mark.parametrize("keep", [1, 2])
def test_killed_at_any_moment_of_saving_there_is_a_whole_one(open_at, monkeypatch, tmp_path, keep):
    """Each way to change what is on disk is where the process ends, one after the other."""

    class Killed(BaseException):
        pass

    moments = 0
    for moment in range(100):
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        checkpoints = open_at(keep)
        checkpoints.save(state(4))
        count = iter(range(100))

        def tick(call, count=count, moment=moment):
            def ticking(*arguments, **settings):
                if next(count) == moment:
                    raise Killed
                return call(*arguments, **settings)

            return ticking

        with monkeypatch.context() as patch:
            for what, name in ((Path, "rename"), (shutil, "rmtree"), (Path, "write_text")):
                patch.setattr(what, name, tick(getattr(what, name)))
            try:
                checkpoints.save(state(8))
            except Killed:
                moments += 1
            else:
                break
        again = open_at(keep)
        restored = again.restore_latest(LIKE)
        assert restored is not None, moment
        assert restored.damaged == ()
        assert int(restored.state.meta.step) in (4, 8)
        again.save(state(8))
        again.save(state(12))
        assert len(names(again)) == keep
    assert moments >= 3


@pytest.mark.parametrize("size", [0, 100, 1_000, 5_000])
def test_a_full_disk_is_one_error_and_the_next_attempt_after_it_is_freed_works(open_at, size):
    checkpoints = open_at(keep=1)
    checkpoints.save(state(4))
    with room_for(size), pytest.raises(CheckpointError) as caught:
        checkpoints.save(state(8))
    assert "cannot write a checkpoint" in caught.value.message
    assert "\n" not in caught.value.message
    assert "free some space" in caught.value.hint
    assert names(checkpoints) == ["4"], "what was begun gives its space back"
    restored = open_at().restore_latest(LIKE)
    assert restored is not None
    assert int(restored.state.meta.step) == 4
    checkpoints.save(state(8))
    assert names(checkpoints) == ["8"]


def test_what_a_kill_left_is_cleared_away(open_at, tmp_path):
    for name in ("8.draft", "8.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-1"):
        (tmp_path / "checkpoints" / name / "state").mkdir(parents=True)
    (tmp_path / "checkpoints" / "mine").mkdir()
    assert names(open_at()) == ["mine"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        Checkpoints(tmp_path / "file" / "checkpoints", 2)
