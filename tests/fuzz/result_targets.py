"""Targets that are results of former commands: rows, records, best values, metrics, searches."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mulo_cli.cli.rank_tables import rank_csv, rank_markdown, rank_table, standings
from mulo_cli.results.coordinate_records import COORDINATE_RECORDS, coordinate_hash
from mulo_cli.results.coordinates import check_coordinates
from mulo_cli.results.ranking import rank_optimizers
from mulo_cli.results.record_file import RecordFile
from mulo_cli.results.records import to_plain
from mulo_cli.results.row_file import RowFile
from mulo_cli.results.run_directory import RunDirectory
from mulo_cli.results.search_file import SearchFile
from mulo_cli.results.store import EVALUATION_ROWS, read_records
from mulo_cli.results.transfer import judge_transfer, sweeps
from mulo_cli.results.transfer_records import TRANSFER_ROWS, TransferRow, transfer_hash
from mulo_cli.results.tuned import rank_configurations, read_tuned
from tests.fuzz.harness import Target
from tests.fuzz.mutations import mutated_json, mutated_tree
from tests.results.coordinate_worlds import mlp
from tests.results.evaluation_rows import evaluation_row, rows_of

ROW = to_plain(evaluation_row("adamw", {100: 2.0, 500: 1.0}))
ROWS = [to_plain(row) for row in rows_of({"adamw": (1.0, 2.0), "muadam": (1.5, None)})]

TRAINED = TransferRow(
    optimizer="adamw", learning_rate=0.01, settings={"learning_rate": 0.01}, parametrization="mup",
    task="gpt", dataset="pydoc", real=True, width=16, depth=2, batch_size=8, seed=0, steps=100,
    validate_every=25, validation_batches=2, patience=50, window=10, code_version="0.1.0",
    validation_loss=1.5, training_loss=1.4, best_step=75, stopped_at=100, status="all steps",
    validation=(2.0, 1.8, 1.5, 1.6), parameters=1000, seconds_per_step=1e-3,
)  # fmt: skip
RATES = [
    dataclasses.replace(
        TRAINED, learning_rate=rate, width=width, seed=seed, validation_loss=loss + seed / 10
    )
    for width in (16, 32)
    for seed in (0, 1)
    for rate, loss in ((0.01, 2.0), (0.02, 1.5), (0.04, 1.9))
]
MEASURED = [mlp(width, seed) for width in (64, 128, 256) for seed in range(3)]

BEST = {
    "optimizer": "adamw",
    "settings": {"learning_rate": 0.01},
    "schedule": "constant",
    "parametrization": "sp",
    "smoothed_loss": 1.0,
    "configurations": 4,
    "on_border": ["learning_rate"],
    "task": "mlp",
    "dataset": "digits",
    "width": 32,
    "depth": 3,
    "batch_size": 64,
    "steps": 500,
    "window": 50,
    "seeds": 1,
    "code_version": "0.1.0",
    "kind": "tuned",
}

SEARCH = {"programs": [{"of": {"task": "mlp", "width": 32}, "lanes": 8}], "kind": "search"}

METRICS = [{"kind": "meta-step", "step": step, "loss": 1.0} for step in range(4)]

ENVIRONMENT = {
    "mulo": "0.1.0",
    "jax": "0.10.2",
    "devices": ["cpu"],
    "resumed_under": [{"jax": "1"}],
}


def _lines(seeds: list[Any]) -> st.SearchStrategy[bytes]:
    """Draw a file of records: sound ones, of which some lines are not."""

    def joined(mutated: list[Any]) -> bytes:
        return "".join(json.dumps(one) + "\n" for one in mutated).encode()

    whole = mutated_tree([seeds]).filter(lambda tree: isinstance(tree, list)).map(joined)
    return st.one_of(
        whole, whole, mutated_json(seeds[:1]), st.tuples(whole, st.binary()).map(b"".join)
    )


def _rank(content: bytes, folder: Path) -> None:
    """What `mulo rank` does with a file of rows."""
    del folder
    lines = content.decode("utf-8", "replace").split("\n")
    rows = list(read_records(lines, "rows", EVALUATION_ROWS))
    rank_configurations(rows)
    if len(rows) < 1:
        return
    for by in ("size", "width", "horizon"):
        ranking = rank_optimizers(rows, by, 20, {})
        list(standings(ranking))
        list(rank_csv(ranking))
        list(rank_markdown(ranking))
        rank_table(ranking, 100)


def _row_file(content: bytes, folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    RowFile(path).append(evaluation_row("adamw"))


def _coordinates(content: bytes, folder: Path) -> None:
    """What `mulo coord-check` does with the records of its folder: those it asks for are judged."""
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    file = RecordFile(path, COORDINATE_RECORDS, coordinate_hash)
    found = [file.find(measured) for measured in MEASURED]
    if all(found):
        check_coordinates([record for record in found if record])


def _transfer(content: bytes, folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    file = RecordFile(path, TRANSFER_ROWS, transfer_hash)
    found = [file.find(trained) for trained in RATES]
    if all(found):
        for sweep in sweeps([row for row in found if row], "width", "validation"):
            judge_transfer(sweep)


def _best(content: bytes, folder: Path) -> None:
    path = folder / "best.json"
    path.write_bytes(content)
    read_tuned(path)


def _search(content: bytes, folder: Path) -> None:
    path = folder / "search.json"
    path.write_bytes(content)
    kept = SearchFile(path)
    kept.find({"task": "mlp"})
    kept.keep({"task": "mlp"}, 4)


def _metrics(content: bytes, folder: Path) -> None:
    (folder / "metrics.jsonl").write_bytes(content)
    RunDirectory(folder).rewind_metrics(2)


def _environment(content: bytes, folder: Path) -> None:
    (folder / "recipe.toml").write_text("")
    (folder / "environment.json").write_bytes(content)
    RunDirectory(folder).note_environment({"mulo": "0.2.0", "jax": "1.0", "devices": ["gpu"]})


TARGETS = (
    Target("evaluation rows", _lines(ROWS), _rank, 0.02),
    Target("rows to append to", _lines([ROW, ROW]), _row_file),
    Target("coordinate records", _lines([to_plain(one) for one in MEASURED]), _coordinates, 0.05),
    Target("transfer rows", _lines([to_plain(one) for one in RATES]), _transfer, 0.03),
    Target("best.json", mutated_json([BEST]), _best),
    Target("search.json", mutated_json([SEARCH]), _search),
    Target("metrics", _lines(METRICS), _metrics),
    Target("environment.json", mutated_json([ENVIRONMENT]), _environment),
)
