"""`mulo meta-train`: meta-train a learned optimizer, watch it, stop it, resume it."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mulo_cli.cli.meta_outcomes import already_finished, finished, interrupted
from mulo_cli.cli.outcome import ExitCode, Outcome
from mulo_cli.cli.place_options import Alone, NumProcesses, ProcessId
from mulo_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from mulo_cli.cli.distributed import Crew
    from mulo_cli.meta_training.checkpoints import Checkpoints
    from mulo_cli.meta_training.layout import Layout
    from mulo_cli.meta_training.meta_loop import Ended, MetaRecord
    from mulo_cli.meta_training.training import MetaTraining
    from mulo_cli.recipes.schema import Recipe
    from mulo_cli.results.run_directory import RunDirectory

EXAMPLES = """
[bold]Examples[/bold]

mulo meta-train --recipe multi-width

mulo meta-train --recipe multi-width --parametrization sp --out runs/lo-m

mulo meta-train --recipe multi-width --scale paper --dry-run

mulo meta-train --set meta_optimizer.steps=100 --set task.widths=\\[16,64]
"""


def meta_train(
    recipe: Annotated[
        str, typer.Option(help="multi-width, single-width, or the path of a TOML file.")
    ] = "multi-width",
    parametrization: Annotated[
        Literal["mup", "sp"] | None,
        typer.Option(help="Parametrization of the networks; the recipe's own by default (mup)."),
    ] = None,
    scale: Annotated[
        Literal["desk", "paper"] | None,
        typer.Option(
            help="desk: minutes on a laptop, on data that is always there. paper: the papers' "
            "setting to the letter. The recipe's own by default (desk)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run directory.", show_default="runs/RECIPE-PARAMETRIZATION-SCALE-seedSEED"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting (repeatable)."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the resolved recipe and what it costs; run nothing."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run in --out and start anew.")
    ] = False,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="Be one of several processes that work together; an error if nobody tells which.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where processes meet: an address of process 0.",
            show_default="as Slurm, Open MPI, a TPU pod or Kubernetes says",
        ),
    ] = None,
    process_id: ProcessId = None,
    num_processes: NumProcesses = None,
    alone: Alone = False,
) -> Outcome:
    """Meta-train a learned optimizer by persistent evolution strategies.

    The same command again resumes a run that was interrupted, to the same bits. Ctrl-C saves first.
    Pairs of all widths are shared out over all devices, of all processes; that changes no bit.
    """
    from mulo_cli.cli.distributed import crew_of, together
    from mulo_cli.recipes.loading import load_recipe
    from mulo_cli.results.run_directory import RunDirectory

    resolved = load_recipe(recipe, scale, parametrization, set_ or ())
    terminal = Terminal()
    if dry_run:
        return _dry_run(terminal, resolved)
    crew = crew_of(
        process_id, num_processes, coordinator, os.environ, distributed=distributed, alone=alone
    )
    directory = RunDirectory(out or default_out(resolved))
    with together(terminal, crew):
        return _do(terminal, crew, resolved, directory, overwrite=overwrite)


def default_out(recipe: "Recipe") -> Path:
    """Return where a run goes that was given no --out."""
    from mulo_cli.results.run_directory import RUNS

    return RUNS / f"{recipe.name}-{recipe.parametrization}-{recipe.scale}-seed{recipe.seed}"


def refuse_other_recipe(directory: "RunDirectory", recipe: "Recipe") -> None:
    """Stop before a run is continued with settings that would give another result.

    Raises:
        UsageError: the recipes differ; the message shows in what.
    """
    from mulo_cli.errors import UsageError
    from mulo_cli.recipes.loading import load_recipe
    from mulo_cli.recipes.schema import as_dict, differences

    former = load_recipe(str(directory.recipe))
    changes = differences(as_dict(former), as_dict(recipe))
    if changes:
        raise UsageError(
            f"the run in {str(directory.root)!r} has another recipe: {'; '.join(changes)}",
            "give the settings it was started with, another --out, or --overwrite to start anew",
        )


def _do(
    terminal: Terminal,
    crew: "Crew",
    recipe: "Recipe",
    directory: "RunDirectory",
    *,
    overwrite: bool,
) -> Outcome:
    """Begin or resume a run that nobody else works on; one that is finished is left as it is."""
    from mulo_cli.cli.distributed import refuse_unlike
    from mulo_cli.recipes.schema import digest
    from mulo_cli.results.run_lock import locked

    if crew.leads:
        directory.refuse_foreign()
    refuse_unlike(crew, digest(recipe), "recipes")
    with locked(directory.root, terminal.warning) if crew.leads else nullcontext():
        done = False
        if crew.leads and directory.exists() and not overwrite:
            refuse_other_recipe(directory, recipe)
            done = directory.finished()
        if _anybody(crew, done):
            return already_finished(directory) if crew.leads else Outcome()
        return _run(terminal, crew, recipe, directory, overwrite=overwrite)


def _anybody(crew: "Crew", said: bool) -> bool:
    """Whether any process says yes; of one that is alone nobody need be asked."""
    if crew.alone:
        return said
    from mulo_cli.meta_training.crossing import anybody

    return anybody(said)


def _run(
    terminal: Terminal,
    crew: "Crew",
    recipe: "Recipe",
    directory: "RunDirectory",
    *,
    overwrite: bool,
) -> Outcome:
    """Run the engine, and write the artefact if it finished.

    The directory is touched only when everything the recipe names has been found.
    """
    from mulo_cli.cli.interrupts import stop_request

    started = time.monotonic()
    with stop_request() as request:
        if crew.leads:
            terminal.info(
                f"meta-training {recipe.name} ({recipe.parametrization}) in {directory.root}"
            )
        from mulo_cli.assembly.kept_programs import kept_programs
        from mulo_cli.assembly.meta_training import build_meta_training
        from mulo_cli.assembly.threefry import fuse_threefry
        from mulo_cli.meta_training.crossing import most
        from mulo_cli.meta_training.meta_loop import meta_train

        fuse_threefry()
        training = build_meta_training(recipe)
        checkpoints = (
            _open(terminal, directory, recipe, overwrite=overwrite) if crew.leads else None
        )
        try:
            layout = _laid_out(terminal, crew, training)
            kept = kept_programs(recipe, training)
            records = meta_train(training, checkpoints, request, kept, layout)
            ended = _watch(terminal, directory if crew.leads else None, records, training.steps)
        finally:
            if checkpoints is not None:
                checkpoints.close()
        code = ExitCode(most(request.exit_code))
        if not crew.leads:
            return Outcome(exit_code=code)
        if not ended.finished:
            return interrupted(directory, ended, training.steps, code)
        write_artefact(directory, recipe, ended)
    return finished(directory, recipe, ended, time.monotonic() - started)


def _open(
    terminal: Terminal, directory: "RunDirectory", recipe: "Recipe", *, overwrite: bool
) -> "Checkpoints":
    """Write what the run is, and return where it is saved."""
    from mulo_cli.meta_training.checkpoints import Checkpoints

    if overwrite:
        directory.clear()
    _prepare(terminal, directory, recipe)
    return Checkpoints(directory.checkpoints, recipe.checkpoint.keep)


def _laid_out(terminal: Terminal, crew: "Crew", training: "MetaTraining") -> "Layout":
    """Share the work out over all devices, and say how that turned out, if there are several."""
    import jax

    from mulo_cli.meta_training.training import lay_out

    devices = jax.devices()
    layout = lay_out(training, devices)
    if crew.leads and len(devices) > 1:
        of = "" if crew.alone else f" of {crew.place.count} processes"
        pieces, idle = len(layout.owners), layout.idle(devices)
        terminal.info(f"{pieces} blocks of pairs on {len(devices)} devices{of}")
        if idle:
            terminal.warning(
                f"{idle} of {len(devices)} devices have nothing to do: there are only {pieces} "
                "blocks of pairs; a smaller estimator.pairs_per_block makes more (and other bits)"
            )
    return layout


def _prepare(terminal: Terminal, directory: "RunDirectory", recipe: "Recipe") -> None:
    """Write what the run is and where it runs; warn of what may change its bits."""
    from mulo_cli.assembly.environment import current_environment, missing_determinism
    from mulo_cli.recipes.loading import to_toml

    directory.create()
    changes = directory.note_environment(current_environment())
    if changes:
        terminal.warning(f"this run was begun elsewhere, bits may differ: {'; '.join(changes)}")
    flag = missing_determinism()
    if flag:
        terminal.warning(f"on this device a run may not repeat itself to the bit without {flag}")
    directory.write_recipe(to_toml(recipe))


def _watch(
    terminal: Terminal,
    directory: "RunDirectory | None",
    records: "Iterator[MetaRecord]",
    steps: int,
) -> "Ended":
    """Drive the meta-loop: store each record, show how far it is of `steps`, return its end.

    Without a directory nothing is stored or shown: another process does that.
    """
    from mulo_cli.cli.meta_progress import Seen
    from mulo_cli.cli.progress import display
    from mulo_cli.meta_training.meta_loop import Begun, Ended

    if directory is None:
        return [record for record in records if isinstance(record, Ended)][-1]
    seen, progress = Seen(), display(terminal, "meta-step")
    try:
        for record in records:
            if isinstance(record, Begun):
                _greet(terminal, directory, record)
                seen.resume(record.step, record.best)
                progress.start(record.step, steps)
            elif isinstance(record, Ended):
                return record
            else:
                directory.append(record)
                seen.add(record)
                progress.show(seen.step, seen.describe(), important=seen.fresh_validation)
    finally:
        progress.stop()
    raise AssertionError("the meta-loop ends with an Ended record")


def _greet(terminal: Terminal, directory: "RunDirectory", begun: Any) -> None:
    """Say from where a run goes on, and forget the records of steps that will be done again."""
    for step in begun.damaged_checkpoints:
        terminal.warning(f"checkpoint {step} is damaged; it was put aside as damaged-{step}")
    if begun.step:
        terminal.info(f"resuming after meta-step {begun.step}")
    directory.rewind_metrics(begun.step)


def write_artefact(directory: "RunDirectory", recipe: "Recipe", ended: "Ended") -> None:
    """Write the best theta, the last one, and the card."""
    from mulo_cli.artefacts.store import save_artefact
    from mulo_cli.artefacts.trees import tree_checksum
    from mulo_cli.assembly.meta_training import build_card

    checksums = {"best": tree_checksum(ended.best.theta), "last": ended.checksum}
    card = build_card(recipe, ended.best, checksums)
    save_artefact(directory.artefact, card, ended.best.theta, ended.theta)


def _dry_run(terminal: Terminal, recipe: "Recipe") -> Outcome:
    """Print the recipe and its budget: for people, or as one JSON object in a pipe."""
    from mulo_cli.assembly.meta_training import build_meta_training
    from mulo_cli.cli.tables import budget_facts, facts_table
    from mulo_cli.meta_training.budget import estimate_budget, estimate_seconds
    from mulo_cli.recipes.loading import to_toml
    from mulo_cli.recipes.schema import as_dict, digest
    from mulo_cli.results.records import to_plain

    budget = estimate_budget(build_meta_training(recipe, with_data=False))
    seconds = estimate_seconds(budget)
    if terminal.piped:
        plain = {"recipe": as_dict(recipe), "digest": digest(recipe), "budget": to_plain(budget)}
        terminal.line(json.dumps({**plain, "estimated_seconds": seconds}))
    else:
        terminal.result(to_toml(recipe))
        terminal.result(facts_table(budget_facts(budget, seconds)))
    return Outcome()
