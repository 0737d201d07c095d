"""Artefacts of ours written for PyLO."""

import dataclasses
import json
import os
from pathlib import Path

from mulo_cli.artefacts.foreign.pylo import (
    DECAYS,
    to_pylo,
    write_note,
)
from mulo_cli.artefacts.foreign.safetensors_file import to_safetensors
from mulo_cli.artefacts.trees import reason
from mulo_cli.assembly.learned import load_learned_optimizer
from mulo_cli.assembly.weight_reports import ExportReport
from mulo_cli.errors import ArtefactError, OutputError
from mulo_cli.learned_optimizers.catalogue import LEARNED_OPTIMIZERS


def export_weights(path: Path, out: Path, *, overwrite: bool) -> ExportReport:
    """Write the small_fc_lopt of an artefact as safetensors that PyLO reads.

    Raises:
        ArtefactError: there is no usable artefact, or PyLO has no such optimizer.
        OutputError: the place is taken, or cannot be written.
    """
    if out.is_dir() or (out.exists() and not overwrite):
        raise OutputError(
            f"{str(out)!r} {'is a folder' if out.is_dir() else 'exists already'}",
            "give the name of a new file, or --overwrite to replace a file",
        )
    card, _, theta = load_learned_optimizer(path)
    if card.architecture != "small_fc_lopt":
        raise ArtefactError(
            f"{str(path)!r} is a {card.architecture}; PyLO's safetensors are read for "
            "small_fc_lopt only",
            "the artefact directory itself can be copied and shared",
        )
    config = LEARNED_OPTIMIZERS[card.architecture].config
    settings = dataclasses.asdict(config(**card.settings))
    note = write_note(
        theta,
        name=card.name,
        parametrization=card.parametrization,
        settings=settings,
        licence=card.licence,
        notice=card.notice,
    )
    content = to_safetensors(to_pylo(theta), note)
    _write(out, content)
    left = (
        f"decays ({', '.join(DECAYS)})",
        *(f"{key} = {json.dumps(value)}" for key, value in settings.items()),
    )
    return ExportReport(card.name, str(out), len(content), left)


def _write(out: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    draft = out.with_name(f".{out.name}.draft")
    try:
        draft.write_bytes(content)
        os.replace(draft, out)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {str(out)!r}: {reason(error)}", "free some space or choose another place"
        ) from error
