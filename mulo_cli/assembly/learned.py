"""From sections and artefacts to learned optimizers; also the front door for anybody's loop."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from mulo_cli.artefacts.card import Card
from mulo_cli.artefacts.store import find_artefact, load_card, load_theta
from mulo_cli.assembly.shelves import look_up
from mulo_cli.errors import ArtefactError, UsageError
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS
from mulo_cli.mup.roles import Roles
from mulo_cli.mup.rules import LEARNED_OPTIMIZER_RULES
from mulo_cli.recipes.schema import OptimizerSection
from mulo_cli.types import Theta


def build_learned_optimizer(section: OptimizerSection, parametrization: str) -> LearnedOptimizer:
    """Build a learned optimizer from a recipe's section."""
    settings = dataclasses.asdict(section)
    architecture = settings.pop("architecture")
    return make_learned_optimizer(architecture, settings, parametrization)


def load_learned_optimizer(
    path: Path, parametrization: str | None = None
) -> tuple[Card, LearnedOptimizer, Theta]:
    """Read an artefact, or the artefact of a finished run, and rebuild what it describes.

    Args:
        path: of either.
        parametrization: of the networks it is to train, where it is not the card's.

    Raises:
        ArtefactError: missing, damaged, or of an architecture this version does not have.
    """
    path = find_artefact(path)
    card = load_card(path)
    try:
        optimizer = make_learned_optimizer(
            card.architecture, card.settings, parametrization or card.parametrization
        )
    except (UsageError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{str(path)!r} holds a {card.architecture!r} that this version cannot build: "
            f"{' '.join(str(error).split())}",
            f"use mulo {card.code_version}, which wrote it",
        ) from error
    key = jax.eval_shape(lambda: jax.random.key(0))
    theta = load_theta(path, card, jax.eval_shape(optimizer.init, key))
    return card, optimizer, theta


def learned_optimizer(
    path: str | Path, *, roles: Roles, num_steps: int | Int[Array, ""]
) -> optax.GradientTransformationExtraArgs:
    """Return a meta-learned optimizer as an optax transformation.

    Args:
        path: a finished run directory or an artefact directory.
        roles: muP roles of the params, from `mulo_cli.infer_roles`.
        num_steps: length `T` of the training to come.

    Raises:
        ArtefactError: there is no usable artefact.
    """
    _, optimizer, theta = load_learned_optimizer(Path(path))
    return optimizer.build(theta, roles, jnp.asarray(num_steps, jnp.int32))


def make_learned_optimizer(
    architecture: str, settings: Mapping[str, Any], parametrization: str
) -> LearnedOptimizer:
    """Build a learned optimizer of any architecture from its plain settings."""
    entry = look_up("architecture", architecture, LEARNED_OPTIMIZERS)
    return entry.make(entry.config(**settings), LEARNED_OPTIMIZER_RULES[parametrization])
