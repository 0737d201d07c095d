"""The folder of one meta-training run: what lies where, and whether it may be used.

recipe.toml        the resolved recipe
environment.json   under what it began (versions, machine, settings), and what has changed since
metrics.jsonl      one line per meta-step and per meta-validation
checkpoints/       everything needed to resume
artefact/          the result: theta and its card; there only when the run is finished
.mulo-lock         who is at work on it; there only meanwhile, and after a kill
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mulo_cli.errors import OutputError
from mulo_cli.results.environment import environment_changes
from mulo_cli.results.lock_file import LOCK
from mulo_cli.results.store import (
    append_record,
    is_draft,
    keep_only,
    not_writable,
    read_lines,
    replace_text,
)

RECIPE, ENVIRONMENT = "recipe.toml", "environment.json"

BEGINNINGS = (ENVIRONMENT, LOCK)
"""What a run that was cut off while it began may have left, besides drafts."""


RESUMED_UNDER = "resumed_under"
"""Key of the environment: what was another whenever the run was resumed elsewhere."""


RUNS = Path("runs")
"""Where runs go that were not told where to go."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run, and the small files in it."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe, TOML."""
        return self.root / RECIPE

    @property
    def environment(self) -> Path:
        """Versions and machine, JSON."""
        return self.root / ENVIRONMENT

    @property
    def metrics(self) -> Path:
        """Records of meta-steps and meta-validations, JSON lines."""
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Orbax checkpoints of the whole meta-training state."""
        return self.root / "checkpoints"

    @property
    def artefact(self) -> Path:
        """The meta-learned optimizer."""
        return self.root / "artefact"

    def exists(self) -> bool:
        """Whether a run was begun here: a lone recipe may be the user's own."""
        return self.recipe.exists() and self.environment.exists()

    def finished(self) -> bool:
        """Whether the run here has its artefact."""
        return (self.artefact / "card.json").exists()

    def refuse_foreign(self) -> None:
        """Stop if the folder holds something that is not a run.

        Raises:
            OutputError: it does; nothing in it was touched.
        """
        if self.root.exists() and not self.exists() and _has_content(self.root):
            raise OutputError(
                f"{str(self.root)!r} exists and is not a run directory",
                "choose another --out; nothing in it was touched",
            )

    def create(self) -> None:
        """Make the folder.

        Raises:
            OutputError: it cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(self.root, error) from error

    def clear(self) -> None:
        """Delete the run that is here (and nothing else); killed meanwhile, it is no obstacle."""
        if not self.exists():
            return
        try:
            for path in (self.artefact, self.checkpoints):  # a part of a run is not finished
                if path.exists():
                    shutil.rmtree(path)
            # the recipe before the environment: a lone environment is a beginning, a lone recipe
            # may be the user's own
            for path in (self.metrics, self.recipe, self.environment):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise not_writable(self.root, error) from error

    def write_recipe(self, toml: str) -> None:
        """Write the recipe; with the environment there, the folder is a run directory now."""
        replace_text(self.recipe, toml)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Write versions and machine."""
        replace_text(self.environment, json.dumps(environment, indent=2) + "\n")

    def note_environment(self, now: dict[str, Any]) -> list[str]:
        """Write under what a run begins; of one that is resumed, add and name what has changed.

        Returns:
            What bits may depend on and is not as it was when the run began, as `key: then -> now`.
        """
        begun = self._environment_at_the_beginning()
        if begun is None:
            self.write_environment(now)
            return []
        changes = environment_changes(begun, now)
        noted = begun.get(RESUMED_UNDER)
        noted = noted if isinstance(noted, list) else []
        if changes and changes not in noted:
            self.write_environment({**begun, RESUMED_UNDER: [*noted, changes]})
        return [f"{key}: {begun[key]} -> {value}" for key, value in changes.items()]

    def _environment_at_the_beginning(self) -> dict[str, Any] | None:
        """Return what was written when the run began; None if there is no run, or if it is lost."""
        try:
            begun = json.loads(self.environment.read_text("utf-8")) if self.exists() else None
        except (OSError, ValueError, RecursionError):
            return None
        return begun if isinstance(begun, dict) else None

    def append(self, record: Any) -> None:
        """Append one record to the metrics."""
        append_record(self.metrics, record)

    def rewind_metrics(self, step: int) -> None:
        """Drop the records of meta-steps that will be done again when resuming at `step`."""
        if self.metrics.exists():
            keep_only(self.metrics, [r for r in read_lines(self.metrics) if _is_before(r, step)])


def newest_finished_run(runs: Path = RUNS) -> Path | None:
    """Return the run in a folder that was finished last, None if there is none."""
    folders = [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
    finished = [run for run in map(RunDirectory, folders) if run.finished()]
    newest = max(finished, key=lambda run: (run.artefact.stat().st_mtime, run.root), default=None)
    return newest.root if newest else None


def _is_before(record: Any, step: int) -> bool:
    """Whether a line of the metrics tells of a meta-step before another; strange lines do not."""
    told = record.get("step") if isinstance(record, dict) else None
    return isinstance(told, int) and told < step


def _has_content(folder: Path) -> bool:
    if not folder.is_dir():
        return True
    names = {entry.name for entry in folder.iterdir()} - set(BEGINNINGS)
    return any(not (is_draft(name, RECIPE) or is_draft(name, ENVIRONMENT)) for name in names)
