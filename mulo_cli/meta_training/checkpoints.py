"""Saving a meta-training so that it resumes to the same bits; Orbax does the writing.

A checkpoint holds the whole state and a checksum over its bits. A directory that cannot be read
back, or not to the same bits, is passed over for the one before it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orbax.checkpoint as ocp
from jaxtyping import Array, Float, Int

from mulo_cli.artefacts.trees import on_first_device, reason, tree_checksum
from mulo_cli.errors import CheckpointError
from mulo_cli.meta_training.meta_step import MetaState
from mulo_cli.types import Theta

STATE = "state"
INTEGRITY = "integrity"


class BestTheta(NamedTuple):
    """The theta with the lowest meta-validation loss so far."""

    theta: Theta
    loss: Float[Array, ""]
    step: Int[Array, ""]
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
    """The checkpoints of one run, newest last."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Open (and make) the directory.

        Args:
            directory: where they lie.
            keep: how many of the newest stay.
        """
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, create=True
        )
        self.directory = directory
        self._newest_whole: int | None = None
        try:
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        except OSError as error:
            raise _not_saved(directory, error) from error

    def save(self, state: RunState) -> None:
        """Write a checkpoint named after the state's meta-step.

        Raises:
            CheckpointError: it could not be written; older ones are still there.
        """
        step = int(state.meta.step)
        if step == self._newest_whole:
            return  # it is there, and equal bits would be written
        items = {
            STATE: ocp.args.StandardSave(state),
            INTEGRITY: ocp.args.JsonSave({"checksum": tree_checksum(state)}),
        }
        try:
            self._manager.save(step, args=ocp.args.Composite(**items))
            self._manager.wait_until_finished()
        except Exception as error:  # Orbax raises many kinds, from several threads
            raise _not_saved(self.directory, error) from error
        self._newest_whole = step

    def restore_latest(self, abstract: RunState) -> Restored | None:
        """Read the newest checkpoint that is whole, or None if there is no checkpoint at all.

        Args:
            abstract: shapes and types of the state.

        Raises:
            CheckpointError: there are checkpoints, and none of them can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged = []
        for step in steps:
            state = self._read(step, abstract)
            if state is not None:
                self._put_aside(damaged)
                self._newest_whole = step
                return Restored(state, tuple(damaged))
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
        self._manager.close()

    def _read(self, step: int, abstract: RunState) -> RunState | None:
        items = {
            STATE: ocp.args.StandardRestore(on_first_device(abstract)),
            INTEGRITY: ocp.args.JsonRestore(),
        }
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
            whole = restored[INTEGRITY]["checksum"] == tree_checksum(restored[STATE])
        except Exception:  # whatever is wrong with it, an older one may do
            return None
        return restored[STATE] if whole else None

    def _put_aside(self, steps: list[int]) -> None:
        """Rename damaged checkpoints: their steps will be saved again, and nothing is deleted."""
        for step in steps:
            aside = self.directory / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)  # an older wreck of the same step
            (self.directory / str(step)).rename(aside)
        if steps:
            self._manager.reload()


def _not_saved(directory: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot write a checkpoint in {str(directory)!r}: {reason(error)}",
        "free some space or mend the folder's permissions, then run the same command again: "
        "it resumes from the last checkpoint that was written",
    )
