"""Weights of other projects made into artefacts of ours."""

from pathlib import Path

from mulo_cli.artefacts.card import LICENCE_UNKNOWN, Card, fan_in_of
from mulo_cli.artefacts.foreign.architectures import to_theta
from mulo_cli.artefacts.foreign.files import ForeignFile, read_foreign
from mulo_cli.artefacts.parity import compute_parity
from mulo_cli.artefacts.store import CARD, THETA, THETA_LAST, save_artefact
from mulo_cli.artefacts.trees import named_leaves, tree_checksum
from mulo_cli.assembly.learned import make_learned_optimizer
from mulo_cli.assembly.weight_inspection import recognise_file
from mulo_cli.assembly.weight_reports import ImportReport
from mulo_cli.assembly.weight_settings import Choice, Given, settle, small_text, with_decays
from mulo_cli.errors import ArtefactError, OutputError
from mulo_cli.results.environment import code_version
from mulo_cli.types import Theta


def import_weights(path: Path, out: Path, given: Given, *, overwrite: bool) -> ImportReport:
    """Write an artefact of a foreign file.

    Args:
        path: of the file.
        out: the artefact's directory.
        given: what the file cannot tell.
        overwrite: replace an artefact that is there.

    Raises:
        ArtefactError: the file is refused, or is no optimizer that can be run here.
        UsageError: settings that do not exist or contradict the file.
        OutputError: the place is taken, or cannot be written.
    """
    _refuse_taken(out, overwrite=overwrite)
    file = read_foreign(path)
    recognised = recognise_file(file)
    architecture = recognised.architecture
    if architecture is None or recognised.complaints:
        raise ArtefactError(
            f"{file.name!r} cannot be imported, no architecture here runs it: {recognised.summary}",
            "`mulo weights inspect` shows everything that is in it",
        )
    arrays, decays = with_decays(file, given.decays)
    choice = settle(file, recognised, given)
    theta = to_theta(architecture, recognised.sizes, arrays)
    card = _card(file, architecture, choice, theta, given, decays)
    save_artefact(out, card, theta, None)
    return ImportReport(
        name=card.name,
        saved=str(out),
        container=file.container,
        architecture=architecture,
        meta_parameters=card.meta_parameters,
        parametrization=card.parametrization,
        fan_in=card.fan_in,
        settings=card.settings,
        read=choice.read,
        given=choice.given,
        assumed=choice.assumed,
        decays=decays,
        licence=card.licence,
        checksum=card.checksum,
    )


def _card(
    file: ForeignFile,
    architecture: str,
    choice: Choice,
    theta: Theta,
    given: Given,
    decays: str,
) -> Card:
    """Write down what a file was taken for."""
    own = file.own or {}
    optimizer = make_learned_optimizer(architecture, choice.settings, choice.parametrization)
    licence = given.licence
    if licence == LICENCE_UNKNOWN:
        licence = own.get("licence", LICENCE_UNKNOWN)
    notice = own.get("notice", "")
    if given.notice_file is not None:
        notice = small_text(given.notice_file, "--notice-file")
    checksum = tree_checksum(theta)
    return Card(
        name=given.name or own.get("name") or file.name.split(".")[0] or file.name,
        architecture=architecture,
        settings=choice.settings,
        parametrization=choice.parametrization,
        fan_in=fan_in_of(choice.settings),
        meta_parameters=sum(leaf.size for leaf in named_leaves(theta).values()),
        checksum=checksum,
        last_checksum=None,
        recipe=None,
        recipe_digest=None,
        training={},
        licence=licence,
        code_version=code_version(),
        parity=compute_parity(optimizer, theta),
        notice=notice,
        source={
            "container": file.container,
            "file": file.name,
            "sha256": file.sha256,
            "decays": decays,
            "read": list(choice.read),
            "given": list(choice.given),
            "assumed": list(choice.assumed),
            "notes": dict(file.notes) if not file.own else {},
        },
    )


def _refuse_taken(out: Path, *, overwrite: bool) -> None:
    """Never replace anything but an artefact, and that only if asked to."""
    if not out.exists():
        return
    held = {file.name for file in out.iterdir()} if out.is_dir() else None
    if held == set():
        return
    if held is None or CARD not in held or not held <= {CARD, THETA, THETA_LAST}:
        raise OutputError(
            f"{str(out)!r} exists already and is not an artefact alone", "choose another --out"
        )
    if not overwrite:
        raise OutputError(
            f"there is an artefact in {str(out)!r} already",
            "choose another --out, or --overwrite to replace it",
        )
