"""From sections and artefacts to learned optimizers; also the front door for anybody's loop."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

import mulo_cli
from mulo_cli.artefacts.card import Card
from mulo_cli.artefacts.parity import check_parity
from mulo_cli.artefacts.store import CARD, find_artefact, load_card, load_theta
from mulo_cli.assembly.shelves import look_up
from mulo_cli.errors import ArtefactError, UsageError, shortened
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.schema import OptimizerSection
from mulo_cli.types import Theta


def build_learned_optimizer(section: OptimizerSection, parametrization: str) -> LearnedOptimizer:
    """Build a learned optimizer from a recipe's section."""
    settings = dataclasses.asdict(section)
    architecture = settings.pop("architecture")
    return make_learned_optimizer(architecture, settings, parametrization)


class Loaded(NamedTuple):
    """An artefact that has been read and checked.

    Attributes:
        card: what it says about itself.
        optimizer: rebuilt, for networks of the parametrization that was asked for.
        theta: its meta-parameters.
    """

    card: Card
    optimizer: LearnedOptimizer
    theta: Theta


def load_learned_optimizer(path: Path, parametrization: str | None = None) -> Loaded:
    """Read an artefact, or the artefact of a finished run, and rebuild what it describes.

    Args:
        path: of either, or the name of an artefact that ships with mulo.
        parametrization: of the networks it is to train, where it is not the card's.

    Raises:
        ArtefactError: missing, damaged, of an architecture this version does not have, or not what
            this version's code makes of it.
    """
    loaded, _ = load_and_measure(path)
    if parametrization in (None, loaded.card.parametrization):
        return loaded
    card = loaded.card
    other = make_learned_optimizer(card.architecture, card.settings, parametrization)
    return loaded._replace(optimizer=other)


def load_and_measure(path: Path) -> tuple[Loaded, float | None]:
    """Read an artefact as its card has it, and return its distance from the card's parity vector.

    Returns:
        The artefact, and the largest difference of its updates of the fixed input, relative to the
        largest update; None for a card without a parity vector (format 1).

    Raises:
        ArtefactError: as `load_learned_optimizer`.
    """
    path = find_artefact(shipped(path))
    card = load_card(path)
    try:
        optimizer = make_learned_optimizer(card.architecture, card.settings, card.parametrization)
    except (UsageError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{str(path)!r} holds a {shortened(card.architecture)} that this version cannot build: "
            f"{' '.join(str(error).split())}",
            f"use mulo {card.code_version}, which wrote it",
        ) from error
    key = jax.eval_shape(lambda: jax.random.key(0))
    theta = load_theta(path, card, jax.eval_shape(optimizer.init, key))
    loaded = Loaded(card, optimizer, theta)
    if card.parity is None:
        return loaded, None
    return loaded, check_parity(optimizer, theta, card.parity, repr(str(path)))


def learned_optimizer(
    path: str | Path, *, roles: Roles, num_steps: int | Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """Return a meta-learned optimizer as an optax transformation.

    Args:
        path: a finished run directory, an artefact directory, or the name of an artefact that
            ships with mulo ("mulo-m-desk").
        roles: muP roles of the params, from `mulo_cli.infer_roles`.
        num_steps: length `T` of the training to come.

    Raises:
        UsageError: a training of no steps.
        ArtefactError: there is no usable artefact.
    """
    if not isinstance(num_steps, jax.Array) and num_steps < 1:
        raise UsageError(f"num_steps = {num_steps} is no training", "give the steps to come")
    _, optimizer, theta = load_learned_optimizer(Path(path))
    return optimizer.build(theta, roles, jnp.asarray(num_steps, jnp.int32))


def shipped(path: Path) -> Path:
    """Return where an artefact lies: at its path, or among those that ship if it is a bare name.

    Raises:
        ArtefactError: a bare name that is neither; names the nearest.
    """
    if path.exists() or len(path.parts) != 1:
        return path
    known = shipped_artefacts()
    if path.name not in known:
        raise ArtefactError(
            f"{str(path)!r} does not exist, and no artefact that ships with mulo has this name",
            f"{nearest_hint(path.name, known)}, or give the --out directory of a finished "
            "`mulo meta-train`, or an artefact directory",
        )
    return known[path.name]


def shipped_artefacts() -> dict[str, Path]:
    """Return the artefacts that ship, inside the installed package or beside it in a checkout."""
    package = Path(mulo_cli.__file__).parent
    inside, beside = package / "assets", package.parent / "assets"
    folder = inside if inside.is_dir() else beside
    return {card.parent.name: card.parent for card in sorted(folder.glob(f"*/{CARD}"))}


def make_learned_optimizer(
    architecture: str, settings: Mapping[str, Any], parametrization: str
) -> LearnedOptimizer:
    """Build a learned optimizer of any architecture from its plain settings."""
    entry = look_up("architecture", architecture, LEARNED_OPTIMIZERS)
    return entry.make(entry.config(**settings), LEARNED_OPTIMIZER_RULES[parametrization])
