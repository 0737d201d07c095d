"""`mulo tasks list` as a user meets it."""

import json

import pytest

from mulo_cli.recipes.suites import load_suite
from tests.cli.programs import inside


def test_in_a_pipe_every_task_is_one_line(tmp_path):
    done = inside("tasks", "list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["name"] for one in found] == [task.name for task in load_suite("paper").tasks]
    assert {one["kind"] for one in found} == {"task"}
    assert found[5] == {
        "kind": "task",
        "suite": "paper",
        "name": "mlp-in32-3-4096",
        "identifier": "IN32 T^MLP_(3,4096)",
        "family": "mlp-in32",
        "title": "MLP on ImageNet 32x32",
        "axis": "width",
        "dataset": "imagenet32",
        "network": "mlp",
        "depth": 3,
        "width": 4096,
        "batch_size": 4096,
        "steps": 5000,
        "at": [1000, 3000, 5000],
        "sizes": ["xl"],
        "preset": "imagenet32-mlp",
        "deviations": [],
    }


def test_people_get_a_table_that_says_what_is_not_as_printed(tmp_path):
    done = inside("tasks", "list", "--format", "table", cwd=tmp_path, COLUMNS="140")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("lm-lm1b-16-1024"))
    assert "DT^LM_(16,1024)" in row
    assert "[1] [2]" in row
    assert "[1] Table 10 prints 3 heads" in done.stdout
    assert "5 seeds" in done.stdout


def test_a_file_of_ones_own_is_listed_as_the_others_are(tmp_path):
    (tmp_path / "own.toml").write_text(
        'name = "own"\ndescription = "\\u001b[31mred"\nsource = "a test"\nsteps = 60\nat = [60]\n'
        "seeds = 1\nwindow = 50\n"
        '[families.mlp]\ntitle = "MLP"\ndataset = "digits"\nnetwork = "mlp"\nbatch_size = 8\n'
        '[tasks.small]\nfamily = "mlp"\ndepth = 1\nwidth = 8\n'
    )
    asked = ("tasks", "list", "--suite", "own.toml")
    lines = inside(*asked, cwd=tmp_path).stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["small"]
    shown = inside(*asked, cwd=tmp_path, watched=True).stdout
    assert "small" in shown
    assert "1 seed;" in shown
    assert "\x1b[31m" not in shown, "a terminal obeys no foreign text"


@pytest.mark.parametrize(
    ("arguments", "said", "hinted"),
    [
        (["list", "--suite", "papr"], "there is no suite 'papr'", "did you mean 'paper'"),
        (["list", "--suite", "absent.toml"], "cannot be read", "desk, paper"),
        (["lst"], "lst", "--help"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_a_hint(tmp_path, arguments, said, hinted):
    refused = inside("tasks", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    message, hint = refused.stderr.split("\n\nhint: ")
    assert said in message
    assert hinted in hint
