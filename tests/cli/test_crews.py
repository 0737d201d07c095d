"""Processes that work together: whatever becomes of one, the others end soon and say why."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.programs import environment, free_port

ROOT = Path(__file__).parents[2]

SOON = 60.0
"""Seconds in which a process must have ended."""

LOST = "another process of this run has ended, or cannot be reached any more"


@dataclass(frozen=True)
class Member:
    """A process of a crew, and the file in which it says what it says."""

    process: subprocess.Popen[bytes]
    said: Path

    def has_said(self, what: str) -> None:
        """Wait until it has."""
        end = time.monotonic() + SOON
        while what not in self.said.read_text(errors="replace"):
            assert time.monotonic() < end, self.said.read_text(errors="replace")
            assert self.process.poll() is None, self.said.read_text(errors="replace")
            time.sleep(0.02)

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return exit code and words."""
        code = self.process.wait(timeout=SOON)
        return code, self.said.read_text(errors="replace")


@pytest.fixture
def crew(tmp_path):
    members: list[Member] = []

    def start(*acts: str, count: int = 0, meeting: str = "300") -> list[Member]:
        address = f"localhost:{free_port()}"
        for index, act in enumerate(acts):
            said = tmp_path / f"{index}.txt"
            command = ("-m", "tests.cli.crew_member", address, str(count or len(acts)), str(index))
            with said.open("wb") as file:
                process = subprocess.Popen(
                    [sys.executable, *command, act, meeting],
                    cwd=ROOT, env=environment(JAX_PLATFORMS="cpu"), stdout=file, stderr=file,
                )  # fmt: skip
            members.append(Member(process, said))
        return members

    yield start
    for member in members:
        member.process.kill()
        member.process.wait()


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("act", ["work", "gather"])
def test_when_one_is_killed_the_other_ends_and_says_so(crew, victim, act):
    members = crew(act, act)
    for member in members:
        member.has_said("joined")
    members[victim].process.kill()
    code, said = members[1 - victim].ended()
    assert code == 1
    assert LOST in said
    assert "Traceback" not in said


def test_what_one_complains_of_ends_the_others_too(crew):
    first, second = crew("fail", "work")
    code, said = first.ended()
    assert (code, LOST in said, "theta is not finite" in said) == (1, False, True)
    code, said = second.ended()
    assert (code, LOST in said, "Traceback" in said) == (1, True, False)


def test_processes_with_different_recipes_all_say_so(crew):
    for member in crew("recipe-00aa", "recipe-00ab", "recipe-00aa"):
        code, said = member.ended()
        assert code == 2
        assert "the processes of this run have different recipes" in said
        assert "joined" not in said


def test_those_who_do_not_find_each_other_say_so(crew):
    (only,) = crew("end", count=2, meeting="3")
    code, said = only.ended()
    assert code == 1
    assert "process 0 of 2 cannot join the others: they were not found within 3 s" in said


def test_those_who_have_done_everything_part_in_peace(crew):
    assert [(m.ended()[0], m.ended()[1].strip()) for m in crew("end", "end", "end")] == [
        (0, "joined")
    ] * 3
