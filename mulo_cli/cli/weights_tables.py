"""What `mulo weights` tells people: facts to the left, tensors below them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mulo_cli.cli.facts import fact_columns

if TYPE_CHECKING:
    from mulo_cli.assembly.weight_reports import ExportReport, ImportReport, Tensor, WeightsReport

SHOWN_NOTE = 120
"""Characters of a note that are shown; a pipe gets all."""


def weights_table(report: "WeightsReport") -> RenderableType:
    """Return what a file holds, and every tensor."""
    artefact = report.container == "artefact"
    importable = "is an artefact" if artefact else "yes" if report.importable else "no"
    facts = {
        "name": report.name,
        "container": report.container,
        "bytes": "" if report.bytes is None else f"{report.bytes}",
        "sha256": report.sha256 or "",
        "resembles" if report.complaints else "architecture": report.architecture or "none",
        **{key: f"{value}" for key, value in report.sizes.items()},
        "leaves": f"{len(report.tensors)}",
        "numbers": f"{report.numbers}",
        "finite": "yes" if all(tensor.finite for tensor in report.tensors) else "no",
        "licence": report.licence,
        **{key: _plain(value) for key, value in report.notes.items()},
        "importable": importable,
    }
    why = [("because", text) for text in report.complaints]
    return Group(fact_columns([*facts.items(), *why]), Text(), _tensors(report.tensors))


def import_table(report: "ImportReport") -> RenderableType:
    """Return what was made, and where each setting comes from."""
    settings = {"parametrization": report.parametrization, **report.settings}
    origins = {
        **dict.fromkeys(report.assumed, "assumed"),
        **dict.fromkeys(report.given, "given"),
        **dict.fromkeys(report.read, "in the file"),
    }
    facts = [
        ("name", report.name),
        ("saved in", report.saved),
        ("read from", report.container),
        ("architecture", f"{report.architecture}, {report.meta_parameters} meta-parameters"),
        *((key, f"{_plain(value)} ({origins[key]})") for key, value in settings.items()),
        ("fan_in", report.fan_in),
        ("decays", report.decays),
        ("licence", report.licence),
        ("checksum", report.checksum),
        ("next", f"mulo evaluate --optimizer {report.saved}"),
    ]
    if report.architecture == "velo":
        facts = [fact for fact in facts if fact[0] != "decays"]
    return fact_columns(facts)


def export_table(report: "ExportReport") -> RenderableType:
    """Return what was written, and what PyLO will not see."""
    return fact_columns(
        [
            ("name", report.name),
            ("saved in", report.saved),
            ("bytes", f"{report.bytes}"),
            *(("only in the metadata, PyLO does not read it", text) for text in report.left_behind),
        ]
    )


def _tensors(tensors: "tuple[Tensor, ...]") -> Table:
    table = Table()
    table.add_column("leaf", overflow="fold")
    for heading in ("shape", "type", "least", "largest"):
        table.add_column(heading, justify="right")
    for tensor in tensors:
        shape = " x ".join(map(str, tensor.shape)) or "scalar"
        sign = "" if tensor.finite else " (not finite)"
        ends = (_number(tensor.least), _number(tensor.largest) + sign)
        table.add_row(Text(tensor.name), shape, tensor.dtype, *ends)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _plain(value: object) -> str:
    """Return a note on one line."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN_NOTE else text[:SHOWN_NOTE] + "..."
