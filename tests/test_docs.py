"""The documents cannot lie: what they name is there, and what is there they name."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mulo_cli.recipes.loading import library_names
from mulo_cli.recipes.schema import known_keys
from tests.cli.programs import mulo

ROOT = Path(__file__).parent.parent
COMMANDS = ("meta-train", "evaluate", "coord-check", "tune-adam", "rank", "roles", "doctor")
WEIGHTS = ("weights inspect", "weights import", "weights export")
DATA = ("data list", "data prepare", "data show")
TASKS = ("tasks list",)


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def shell_blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", text("README.md"), re.MULTILINE | re.DOTALL)


def test_readme_begins_with_the_two_commands():
    run, test = shell_blocks()[:2]
    assert "mulo meta-train --recipe multi-width" in run
    assert "pytest" in test
    for block in (run, test):
        assert "-m venv" in block
        assert "pip install" in block
        assert ".." not in block, "the commands need nothing outside the clone"


@pytest.mark.parametrize("command", [*COMMANDS, *WEIGHTS, *DATA, *TASKS])
def test_every_option_is_in_the_manual(tmp_path, command):
    manual = text("docs/reference/commands.md")
    assert f"`mulo {command}`" in manual
    shown = mulo(*command.split(), "--help", cwd=tmp_path, COLUMNS="200").stdout
    for option in set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}:
        assert f"`{option}`" in manual, f"{command} {option} is not in the manual"


def test_every_recipe_and_every_key_is_in_the_manual():
    manual = text("docs/reference/recipes.md")
    for name in (*library_names(), *known_keys()):
        assert f"`{name}`" in manual


def test_every_link_between_documents_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_leads_to_every_document():
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT).as_posix() in text("README.md")


def test_no_document_has_a_gap():
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        assert not re.findall(r"@[A-Z]+@|TODO|FIXME", page.read_text("utf-8")), page.name


def test_the_changelog_has_a_place_for_the_next_change():
    assert "## [Unreleased]" in text("CHANGELOG.md")
    assert tomllib.loads(text("pyproject.toml"))["project"]["version"]


def test_the_example_for_ones_own_loop_runs(tmp_path):
    """README's Python block, as it stands, in a process of its own."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", text("README.md"), re.MULTILINE | re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    losses = [float(word) for word in re.findall(r"loss (\d+\.\d+)", done.stdout)]
    assert len(losses) >= 2
    assert losses[-1] < 0.7 * losses[0]
