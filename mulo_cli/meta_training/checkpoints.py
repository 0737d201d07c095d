"""Saving a meta-training so that it resumes to the same bits; Orbax does the writing.

A checkpoint is a folder named after its meta-step: `state/`, which Orbax writes, and
`integrity/metadata` with a checksum over the state's bits and one of every file. It is written
beside its place (`STEP.draft`), read back, and only then moved there; only after that older ones
go. What cannot be read back, or not to the same bits, is passed over for the one before it.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Float, Int

from mulo_cli.artefacts.orbax import checkpointer
from mulo_cli.artefacts.trees import reason, tree_checksum
from mulo_cli.errors import CheckpointError
from mulo_cli.meta_training.meta_step import MetaState
from mulo_cli.types import Concrete, Theta

STATE = "state"

INTEGRITY = Path("integrity", "metadata")

DRAFTS = ("*.draft", "*.orbax-checkpoint-tmp*")
"""What a kill may leave; the second ones of versions that let Orbax name them."""

PAUSE_SECONDS, QUIET_PAUSES, MOST_PAUSES = 0.05, 6, 100
"""After a write that failed: nobody writes any more if that many pauses in a row find no draft."""


class BestTheta(NamedTuple):
    """The theta with the lowest meta-validation loss so far."""

    theta: Theta
    loss: Float[Concrete, ""]
    step: Int[Concrete, ""]
    """Meta-steps done when it was validated."""


class RunState(NamedTuple):
    """Everything a run is: keys are derived from the step, data from keys."""

    meta: MetaState
    best: BestTheta


@dataclass(frozen=True)
class Restored:
    """A state read back, and the checkpoints that were passed over to find it."""

    state: RunState
    damaged: tuple[int, ...]


class Checkpoints:
    """The checkpoints of one run; of several processes that train together, the first has them.

    Args:
        directory: where they lie; it is made.
        keep: how many of the newest stay. Those that were found damaged do not count.

    Raises:
        CheckpointError: the directory cannot be written.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self._keep = keep
        self._newest_whole: int | None = None
        self._orbax = checkpointer()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._clear_drafts()
        except OSError as error:
            raise _not_saved(directory, error) from error

    def has_any(self) -> bool:
        """Whether there is a checkpoint, whole or not."""
        return bool(self._steps())

    def save(self, state: RunState) -> None:
        """Write a checkpoint named after the state's meta-step.

        Args:
            state: of arrays on this host or its devices.

        Raises:
            CheckpointError: it could not be written; older ones are still there.
        """
        step = int(state.meta.step)
        if step == self._newest_whole:
            return  # it is there, and equal bits would be written
        draft = self.directory / f"{step}.draft"
        try:
            self._write(draft, jax.tree.map(np.asarray, jax.device_get(state)))
            self._put_aside([step] if step in self._steps() else [])
            draft.rename(self.directory / str(step))
            _to_disk(self.directory)
            self._newest_whole = step
            self._thin_out(step)
        except Exception as error:  # Orbax raises many kinds, from several threads
            self._clear_what_failed()
            raise _not_saved(self.directory, error) from error

    def restore_latest(self, abstract: RunState) -> Restored | None:
        """Read the newest checkpoint that is whole, or None if there is no checkpoint at all.

        Args:
            abstract: shapes and types of the state.

        Returns:
            Its arrays are on the first device of this process.

        Raises:
            CheckpointError: there are checkpoints, and none of them can be read.
        """
        damaged = []
        for step in reversed(self._steps()):
            state = self._read(self.directory / str(step), abstract)
            if state is not None:
                self._put_aside(damaged)
                self._newest_whole = step
                return Restored(jax.device_put(state, jax.local_devices()[0]), tuple(damaged))
            damaged.append(step)
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {str(self.directory)!r} can be read "
                f"(tried meta-steps {', '.join(map(str, damaged))})",
                "restore the folder from a copy, or start anew with --overwrite",
            )
        return None

    def close(self) -> None:
        """Let go of Orbax's threads."""
        self._orbax.close()

    def _steps(self) -> list[int]:
        """Return the meta-steps there are checkpoints of, in order."""
        names = (entry.name for entry in self.directory.iterdir() if entry.is_dir())
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def _write(self, draft: Path, state: RunState) -> None:
        """Write a checkpoint, all of it to the disk, and see that it can be read."""
        shutil.rmtree(draft, ignore_errors=True)
        (draft / INTEGRITY).parent.mkdir(parents=True, exist_ok=True)
        self._orbax.save((draft / STATE).absolute(), args=ocp.args.StandardSave(state))
        note = {"checksum": tree_checksum(state), "files": _file_checksums(draft)}
        (draft / INTEGRITY).write_text(json.dumps(note), "utf-8")
        for path in (draft, *draft.rglob("*")):
            _to_disk(path)
        if self._read(draft, state) is None:
            raise OSError("what was written cannot be read back")

    def _read(self, folder: Path, like: RunState) -> RunState | None:
        """Return a checkpoint's state on the host, None if it is damaged."""
        try:
            note = json.loads((folder / INTEGRITY).read_bytes())
            files = note.get("files")  # older versions did not write them
            if files is not None and files != _file_checksums(folder):
                return None
            target = ocp.args.StandardRestore(jax.tree.map(_on_the_host, like))
            state = self._orbax.restore((folder / STATE).absolute(), args=target)
            whole = note["checksum"] == tree_checksum(state) and _described(state, like)
            return state if whole else None
        except Exception:  # whatever is wrong with it, an older one may do
            return None

    def _put_aside(self, steps: list[int]) -> None:
        """Rename damaged checkpoints: their steps will be saved again, and nothing is deleted."""
        for step in steps:
            aside = self.directory / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)  # an older wreck of the same step
            (self.directory / str(step)).rename(aside)

    def _thin_out(self, newest: int) -> None:
        """Delete checkpoints before the newest one, which is whole, until as many stay as may.

        Those between were saved, or read, by this process or one before it: the oldest go first.
        """
        older = [step for step in self._steps() if step < newest]
        for step in older[: max(0, len(older) - (self._keep - 1))]:
            # moved away first: killed in between, none is left that only looks whole
            draft = self.directory / f"{step}.draft"
            (self.directory / str(step)).rename(draft)
            shutil.rmtree(draft)

    def _clear_drafts(self) -> None:
        for draft in self._drafts():
            shutil.rmtree(draft)

    def _clear_what_failed(self) -> None:
        """Give a full disk its space back; Orbax's threads go on writing after its error."""
        quiet = 0
        for _ in range(MOST_PAUSES):
            drafts = self._drafts()
            for draft in drafts:
                shutil.rmtree(draft, ignore_errors=True)
            quiet = 0 if drafts else quiet + 1
            if quiet == QUIET_PAUSES:
                return
            time.sleep(PAUSE_SECONDS)

    def _drafts(self) -> list[Path]:
        return [draft for pattern in DRAFTS for draft in self.directory.glob(pattern)]


def _on_the_host(leaf: Array | np.ndarray | jax.ShapeDtypeStruct) -> np.ndarray:
    """Return what Orbax reads as an array of NumPy's: of that shape and type, without memory."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _described(state: RunState, like: RunState) -> bool:
    """Whether all arrays have the shapes and types that were asked for."""
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, like)
    return all(jax.tree.leaves(same))


def _file_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file of a checkpoint but its note, by path."""
    return {
        path.relative_to(folder).as_posix(): _checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / INTEGRITY
    }


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until a file, or what a folder lists, will survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_saved(directory: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot write a checkpoint in {str(directory)!r}: {reason(error)}",
        "free some space or mend the folder's permissions, then run the same command again: "
        "it resumes from the last checkpoint that was written",
    )
