"""The file of tuned values is read back as it was written, or refused by its name."""

import json
import re

import pytest

from mulo_cli.errors import DataError
from mulo_cli.results.records import to_plain
from mulo_cli.results.tuned import Tuned, read_tuned

TUNED = Tuned(
    optimizer="muadam", settings={"learning_rate": 0.1, "b1": 0.9}, schedule="constant",
    parametrization="mup", smoothed_loss=0.5, configurations=8, on_border=("b1",), task="mlp",
    dataset="digits", width=64, depth=3, batch_size=64, steps=500, window=50, seeds=2,
    code_version="0.1.0",
)  # fmt: skip


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "best.json"
    path.write_text(json.dumps(to_plain(TUNED)))
    assert read_tuned(path) == TUNED


def without(name: str) -> str:
    return json.dumps({k: v for k, v in to_plain(TUNED).items() if k != name})


def changed(**values) -> str:
    return json.dumps(to_plain(TUNED) | values)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it"),
        (b"\x00\xff\xfe", "it"),
        (b"[1, 2]", "it"),
        (b"seed = 0\n", "it"),
        (without("settings"), "settings"),
        (changed(settings=[1]), "settings"),
        (changed(settings={"b1": "high"}), "settings.b1"),
        (changed(settings={"b1": None}), "settings.b1"),
        (changed(optimizer=3), "optimizer"),
        (changed(kind="evaluation"), "kind"),
        (changed(width="wide"), "width"),
    ],
)
def test_something_else_is_refused_by_its_name_and_the_place(tmp_path, content, said):
    path = tmp_path / "best.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"has no tuned values: {re.escape(said)}: ") as caught:
        read_tuned(path)
    assert repr(str(path)) in caught.value.message
    assert "mulo tune-adam" in caught.value.hint


@pytest.mark.parametrize("name", ["nowhere.json", "folder", "file/inside"])
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot read") as caught:
        read_tuned(tmp_path / name)
    assert name in caught.value.message
