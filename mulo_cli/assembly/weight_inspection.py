"""Weights of other projects, and artefacts of ours, described."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mulo_cli.artefacts.card import LICENCE_UNKNOWN
from mulo_cli.artefacts.foreign.architectures import SIZES, Recognition, count, recognise
from mulo_cli.artefacts.foreign.files import ForeignFile, read_foreign
from mulo_cli.artefacts.foreign.pylo import DECAYS
from mulo_cli.artefacts.trees import named_leaves
from mulo_cli.assembly.learned import load_and_measure
from mulo_cli.assembly.weight_reports import Tensor, WeightsReport
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS


def inspect_weights(path: Path) -> WeightsReport:
    """Describe a foreign file, or an artefact whose checksum and parity are checked.

    Raises:
        ArtefactError: it cannot be read, is refused, or is a damaged artefact.
    """
    if path.is_dir() or not path.exists():
        return _describe_artefact(path)
    file = read_foreign(path)
    recognised = recognise_file(file)
    return WeightsReport(
        name=file.name,
        container=file.container,
        bytes=file.size,
        sha256=file.sha256,
        architecture=recognised.architecture,
        importable=not recognised.complaints,
        complaints=recognised.complaints,
        sizes=recognised.sizes,
        numbers=count(file.arrays),
        notes=file.notes,
        licence=file.own["licence"] if file.own else LICENCE_UNKNOWN,
        tensors=_tensors(file.arrays),
    )


def recognise_file(file: ForeignFile) -> Recognition:
    """Tell what a file holds; files of PyLO never have decays."""
    without_decays = file.container == "PyLO safetensors"
    return recognise(file.arrays, forgiven=frozenset(DECAYS) if without_decays else frozenset())


def _describe_artefact(path: Path) -> WeightsReport:
    (card, _, theta), distance = load_and_measure(path)
    arrays = named_leaves(theta)
    config = LEARNED_OPTIMIZERS[card.architecture].config
    settings = dataclasses.asdict(config(**card.settings))
    parity = "not checked (the card has none)"
    if distance is not None:
        parity = f"agrees (largest difference {distance:.1g} of the largest update)"
    return WeightsReport(
        name=card.name,
        container="artefact",
        bytes=None,
        sha256=None,
        architecture=card.architecture,
        importable=False,
        complaints=(),
        sizes={key: settings[key] for key in SIZES.get(card.architecture, {})},
        numbers=card.meta_parameters,
        notes={
            "settings": settings,
            "parametrization": card.parametrization,
            "fan_in": card.fan_in,
            "source": dict(card.source),
            "recipe_digest": card.recipe_digest,
            "training": dict(card.training),
            "checksum": f"{card.checksum} (agrees)",
            "parity": parity,
            "notice": card.notice,
            "code_version": card.code_version,
            "format": card.format,
        },
        licence=card.licence,
        tensors=_tensors(arrays),
    )


def _tensors(arrays: Mapping[str, np.ndarray]) -> tuple[Tensor, ...]:
    return tuple(_tensor(name, np.asarray(array)) for name, array in sorted(arrays.items()))


def _tensor(name: str, array: np.ndarray) -> Tensor:
    finite = array[np.isfinite(array)]
    least, largest = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    whole = finite.size == array.size
    return Tensor(name, array.shape, str(array.dtype), least, largest, whole)
