"""Writing and reading an artefact: one directory of `card.json`, `theta/` and `theta_last/`.

Both thetas are Orbax checkpoints; an imported artefact has no `theta_last/`. A directory is written
beside its place and moved there when it is complete: an artefact is there whole or not at all.
"""

import math
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from mulo_cli.artefacts.card import Card, read_card, to_json
from mulo_cli.artefacts.orbax import checkpointer, reading
from mulo_cli.artefacts.trees import on_first_device, reason, tree_checksum
from mulo_cli.errors import ArtefactError, OutputError
from mulo_cli.types import Theta

CARD = "card.json"
THETA = "theta"
THETA_LAST = "theta_last"
ORBAX_NOTE = "commit_success.txt"

LARGEST = 2**27
"""Numbers of a theta that are read; Google's VeLO has about two million."""


def save_artefact(path: Path, card: Card, theta: Theta, theta_last: Theta | None) -> None:
    """Write an artefact, replacing one that is there.

    Args:
        path: of the directory.
        card: describes theta.
        theta: the meta-parameters.
        theta_last: those after the last meta-step; None where nothing is known of them.

    Raises:
        OutputError: it could not be written; a former artefact is still there.
    """
    place = path.resolve()
    draft = place.with_name(f".{place.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        with checkpointer() as orbax:
            orbax.save(draft / THETA, args=ocp.args.StandardSave(theta))
            if theta_last is not None:
                orbax.save(draft / THETA_LAST, args=ocp.args.StandardSave(theta_last))
        _forget_where_written(draft)
        (draft / CARD).write_text(to_json(card), "utf-8")
        _put_in_place(draft, place)
    except Exception as error:  # Orbax raises many kinds
        shutil.rmtree(draft, ignore_errors=True)
        raise OutputError(
            f"cannot write the artefact {str(path)!r}: {reason(error)}",
            "free some space or choose another place; the run's checkpoints are untouched",
        ) from error


def _forget_where_written(draft: Path) -> None:
    """Delete Orbax's note of success, which holds the path of this machine and nothing else."""
    for note in draft.rglob(ORBAX_NOTE):
        note.unlink()


def _put_in_place(draft: Path, path: Path) -> None:
    """Move a complete directory to its place; a former one goes only when that has worked."""
    former = path.with_name(f".{path.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if path.exists():
        path.rename(former)
    try:
        draft.rename(path)
    except OSError:
        if former.exists():
            former.rename(path)
        raise
    shutil.rmtree(former, ignore_errors=True)


def find_artefact(path: Path) -> Path:
    """Return the artefact directory that a path means: itself, or that of a finished run.

    Raises:
        ArtefactError: there is none.
    """
    for candidate in (path, path / "artefact"):
        if (candidate / CARD).exists():
            return candidate
    if (path / "recipe.toml").exists():
        raise ArtefactError(
            f"the run in {str(path)!r} has not finished: it has no artefact yet",
            "resume it with the command that started it",
        )
    what = "holds no artefact" if path.exists() else "does not exist"
    raise ArtefactError(
        f"{str(path)!r} {what}",
        "give the --out directory of a finished `mulo meta-train`, or an artefact directory",
    )


def load_theta(path: Path, card: Card, shapes: PyTree) -> Theta:
    """Read the theta that a card describes.

    Args:
        path: the artefact directory.
        card: read from it.
        shapes: shapes and types that theta must have.

    Raises:
        ArtefactError: half-written, of other shapes, or not the numbers of the card's checksum.
    """
    numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    if numbers != card.meta_parameters or numbers > LARGEST:
        raise ArtefactError(
            f"theta of {str(path)!r} cannot be read: its card's settings make {numbers} numbers, "
            f"its card says {card.meta_parameters}",
            "the artefact is damaged or of another architecture; write it again",
        )
    try:
        with reading(), checkpointer() as orbax:
            target = ocp.args.StandardRestore(on_first_device(shapes))
            theta = orbax.restore((path / THETA).absolute(), args=target)
    except Exception as error:  # Orbax raises many kinds for missing, torn and misshapen files
        raise ArtefactError(
            f"theta of {str(path)!r} cannot be read: {reason(error)}",
            "the artefact is incomplete or of another architecture; write it again",
        ) from error
    if tree_checksum(theta) != card.checksum:
        raise ArtefactError(
            f"theta of {str(path)!r} is not what its card says (checksum differs)",
            "the artefact is damaged; write it again",
        )
    return theta


def load_card(path: Path) -> Card:
    """Read the card of an artefact directory."""
    return read_card(path / CARD)
