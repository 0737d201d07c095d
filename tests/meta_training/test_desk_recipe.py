"""The study behind the desk recipe: slow, run by `pytest -m slow`."""

import json

import pytest

from tests.cli.programs import mulo

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("parametrization", ["mup", "sp"])
def test_the_desk_recipe_learns_to_train_networks(tmp_path, parametrization):
    """Guessing has a loss of log 10 = 2.3; a useful optimizer is far below it at every width."""
    done = mulo(
        "meta-train",
        "--parametrization",
        parametrization,
        "--out",
        "run",
        cwd=tmp_path,
        timeout=1_200,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    best = min(
        (r for r in lines if r["kind"] == "validation"), key=lambda r: sum(r["mean_loss"].values())
    )
    assert all(loss < 1.0 for loss in best["mean_loss"].values())
    assert all(loss < 0.7 for loss in best["final_loss"].values())
