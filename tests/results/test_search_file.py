"""A search remembers how many networks it trains side by side, because bits depend on it."""

import json

import pytest

from mulo_cli.errors import DataError, OutputError
from mulo_cli.results.search_file import SearchFile

FACTS = {"optimizer": "adamw", "width": 32}


def test_what_is_kept_is_found_by_the_same_facts_only(tmp_path):
    path = tmp_path / "new" / "search.json"
    SearchFile(path).keep(FACTS, 63)
    SearchFile(path).keep({**FACTS, "width": 64}, 16)
    kept = SearchFile(path)
    assert kept.find(FACTS) == 63
    assert kept.find({**FACTS, "width": 64}) == 16
    assert kept.find({**FACTS, "steps": 5}) is None


def test_another_number_takes_the_place_of_the_first(tmp_path):
    path = tmp_path / "search.json"
    for lanes in (63, 8):
        SearchFile(path).keep(FACTS, lanes)
    assert SearchFile(path).find(FACTS) == 8
    assert len(json.loads(path.read_text())["programs"]) == 1


def test_who_does_not_insist_takes_the_number_that_is_there(tmp_path):
    path = tmp_path / "search.json"
    late = SearchFile(path)  # of a process that looked before another one wrote
    assert SearchFile(path).keep(FACTS, 63) == 63
    assert late.keep(FACTS, 8, insisted=False) == 63
    assert late.find(FACTS) == 63
    assert late.keep(FACTS, 8) == 8
    assert SearchFile(path).find(FACTS) == 8


def test_processes_that_share_a_search_forget_nothing_of_each_others(tmp_path):
    path = tmp_path / "search.json"
    files = [SearchFile(path) for _ in range(3)]
    for lanes, file in enumerate(files, start=1):
        file.keep({**FACTS, "width": lanes}, lanes)
    kept = SearchFile(path)
    assert [kept.find({**FACTS, "width": lanes}) for lanes in (1, 2, 3)] == [1, 2, 3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["search.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"programs": [{"lanes": 3}]}'])
def test_something_else_is_refused(tmp_path, content):
    path = tmp_path / "search.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"search\.json"):
        SearchFile(path)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((OutputError, DataError), match="file"):
        SearchFile(tmp_path / "file" / "search.json").keep(FACTS, 1)
