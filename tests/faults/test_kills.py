"""Killed at any moment and started again, a command ends as if nobody had touched it.

The slow campaign tries many moments; `pytest -m slow -s tests/faults` shows them.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mulo_cli.results.lock_file import LOCK
from tests.cli.programs import TINY
from tests.faults.killing import Commands, Moment, after, chance, growing, once, saving

STEPS = "40"
"""Meta-steps of a run that is saved after each of them."""

RUN = ("meta-train", *TINY, "--set", f"meta_optimizer.steps={STEPS}")
RUN += ("--set", "checkpoint.every=1", "--set", "checkpoint.keep=1", "--out", "run")

NETWORKS = ("--seeds", "2", "--steps", "40", "--window", "10", "--depth", "1")
EVALUATE = ("evaluate", "--optimizer", "adamw", "--optimizer", "sgd:learning_rate=0.1")
EVALUATE += ("--widths", "8,16", *NETWORKS, "--output", "rows.jsonl", "--append")

GRID = "learning_rate = [1e-4, 1e-3, 1e-2, 1e-1]\nweight_decay = [0.0, 0.1]\n"
TUNE = ("tune-adam", "--grid", "grid.toml", "--width", "8", *NETWORKS, "--lanes", "4")
TUNE += ("--out", "tuned")

KILLS = 20
"""That a slow campaign asks for."""

CLOCK = ("inner_steps_per_second", "seconds_per_step")


@pytest.fixture(scope="module")
def commands():
    with Commands() as commands:
        yield commands


def lines(path: Path) -> list[str]:
    """Return the records of a file without what the clock said; every line must be whole."""
    content = path.read_text()
    assert content.endswith("\n")
    plain = [json.loads(line) for line in content.splitlines()]
    return [json.dumps({k: v for k, v in p.items() if k not in CLOCK}) for p in plain]


def result_of_run(cwd: Path) -> tuple:
    """Return both thetas' checksums and all records; nothing of a kill may be left."""
    run = cwd / "run"
    card = json.loads((run / "artefact" / "card.json").read_text())
    left = {entry.name for entry in run.iterdir()}
    expected = {"artefact", "checkpoints", "environment.json", "metrics.jsonl", "recipe.toml"}
    assert left == expected
    assert [entry.name for entry in (run / "checkpoints").iterdir()] == [STEPS]
    return card["checksum"], card["last_checksum"], lines(run / "metrics.jsonl")


def result_of_rows(cwd: Path) -> list[str]:
    assert not list(cwd.glob(f"**/.*{LOCK}"))
    return sorted(lines(next(cwd.glob("**/rows.jsonl"))))


class Campaign:
    """One command, how it ends when nobody kills it, and what was tried on it."""

    def __init__(self, commands: Commands, arguments: tuple[str, ...], read, folder: Path) -> None:
        self.commands, self.arguments, self.read = commands, arguments, read
        self.folder, self.tried = folder, Counter()
        # the second run is like all that follow: it finds its programs compiled
        for name in ("first", "whole"):
            ended = commands.run(*arguments, cwd=self.place(name))
            assert ended.code == 0, ended.said
        self.seconds, self.whole = ended.seconds, read(folder / "whole")

    def place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        (place / "grid.toml").write_text(GRID)
        return place

    def kill(self, moments: list[tuple[str, Moment]], cwd: Path) -> None:
        """Kill a command at each moment that it lives to see, then let it end, and compare."""
        for what, moment in moments:
            ended = self.commands.run(*self.arguments, cwd=cwd, kill_at=moment)
            assert ended.code in (0, -9), ended.said
            if ended.code == 0:
                break
            if any((cwd / "run" / "checkpoints").glob("*.draft")):
                what = "while a checkpoint was written"
            self.tried[what] += 1
        ended = self.commands.run(*self.arguments, cwd=cwd)
        assert ended.code == 0, ended.said
        assert self.read(cwd) == self.whole

    def killed(self) -> int:
        return self.tried.total()

    def attempts(self, enough: Callable[[], bool]) -> Iterator[int]:
        """Yield numbers of attempts until they are enough; they may not be ten for each kill."""
        number = 0
        while not enough():
            number += 1
            assert number < 10 * KILLS, self.tried
            yield number

    def report(self, what: str) -> None:
        told = ", ".join(f"{count} {when}" for when, count in sorted(self.tried.items()))
        print(f"\n{what}: {self.killed()} kills ({told}), nothing lost")


def moments_of_a_run(campaign: Campaign, number: int, run: Path) -> list[tuple[str, Moment]]:
    draw = chance("meta-train", number)
    return [
        ("at a random time", after(draw.uniform(0.0, campaign.seconds))),
        ("while saving", once(saving(run), draw.randint(1, 8), draw.uniform(0.0, 0.05))),
    ]


def moments_of_rows(campaign: Campaign, number: int, rows: Path) -> list[tuple[str, Moment]]:
    draw = chance(campaign.arguments[0], number)
    return [
        ("at a random time", after(draw.uniform(0.0, campaign.seconds))),
        ("while a row was written", once(growing(rows), draw.randint(2, 4), 0.0)),
        ("soon after a row", once(growing(rows), 2, draw.uniform(0.0, 0.01))),
    ]


def test_a_meta_training_that_is_killed_while_it_saves_ends_in_the_same_bits(commands, tmp_path):
    campaign = Campaign(commands, RUN, result_of_run, tmp_path)
    cwd = campaign.place("killed")
    campaign.kill(moments_of_a_run(campaign, 0, cwd / "run")[::-1], cwd)
    assert campaign.killed() >= 1


@pytest.mark.slow
def test_twenty_kills_of_a_meta_training(commands, tmp_path):
    campaign = Campaign(commands, RUN, result_of_run, tmp_path)

    def enough() -> bool:
        return campaign.killed() >= KILLS and campaign.tried["while a checkpoint was written"] >= 3

    for number in campaign.attempts(enough):
        cwd = campaign.place(str(number))
        campaign.kill(moments_of_a_run(campaign, number, cwd / "run"), cwd)
    campaign.report("meta-train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "rows"), [(EVALUATE, "rows.jsonl"), (TUNE, "tuned/rows.jsonl")]
)
def test_twenty_kills_lose_double_and_tear_no_row(commands, tmp_path, arguments, rows):
    campaign = Campaign(commands, arguments, result_of_rows, tmp_path)
    assert len(campaign.whole) in (8, 16)
    for number in campaign.attempts(lambda: campaign.killed() >= KILLS):
        cwd = campaign.place(str(number))
        campaign.kill(moments_of_rows(campaign, number, cwd / rows), cwd)
    campaign.report(arguments[0])
