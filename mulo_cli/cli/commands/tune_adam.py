"""`mulo tune-adam`: baselines tuned over a grid, and whether their learning rate carries over."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.place_options import Alone, NumProcesses, ProcessId
from mulo_cli.cli.terminal import Terminal
from mulo_cli.cli.tuning_options import TuningOptions
from mulo_cli.processes import place_of

EXAMPLES = """
[bold]Examples[/bold]

mulo tune-adam --optimizer muadam --width 32

mulo tune-adam --optimizer adamw --width 32 --grid paper --out runs/adamw-paper

mulo evaluate --optimizer adamw:tuned=runs/adamw-paper/best.json

mulo tune-adam --transfer --optimizer adamw --parametrization mup,sp --widths 32..256 --plot lr.png

srun -n 8 mulo tune-adam --optimizer adamw --grid paper --out runs/adamw-paper
"""


def tune_adam(
    optimizer: Annotated[
        str,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]",
            help="What is tuned: adamw, muadam, adam, adopt, lamb, sophia, sgd, muon; with values "
            "that the grid does not vary.",
        ),
    ] = "adamw",
    width: Annotated[
        int | None,
        typer.Option(min=1, help="Of the network it is tuned on.", show_default="32"),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help="small (32 configurations), paper (AdamW 504, muAdam 512), paper-v2 (muAdam 500), "
            "rates (15 learning rates), paper-widths, paper-depths, or a TOML file of lists: "
            "learning_rate = \\[1e-3, 1e-2].",
            show_default="small; rates with --transfer",
        ),
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="Of the learning rate: none (or constant), warmup-cosine.")
    ] = "none",
    parametrization: Annotated[
        str | None,
        typer.Option(
            metavar="mup|sp|spectral",
            help="Of the networks; with --transfer several: mup,sp.",
            show_default="the optimizer's own",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set: a name, or a file or folder.", show_default="digits, pydoc for text"
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Network.", show_default="mlp; gpt:length=32 with --transfer"),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Hidden layers.", show_default="3; 2 with --transfer"),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Examples per step.", show_default="64; 16 with --transfer"),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of each training; with --transfer at most.")
    ] = 500,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Networks per configuration.", show_default="1; 3 with --transfer"
        ),
    ] = None,
    window: Annotated[
        int, typer.Option(min=1, help="Last steps whose mean is the smoothed loss.")
    ] = 50,
    lanes: Annotated[
        int | None,
        typer.Option(min=1, help="Networks in one program.", show_default="by memory"),
    ] = None,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer", help="Find the best learning rate of every size, and how it drifts."
        ),
    ] = False,
    widths: Annotated[
        str | None,
        typer.Option(help="With --transfer: 32,64 or 32..256 or 128..2048:x4."),
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="With --transfer, at one --width: 2..64.")
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between two validations.", show_default="25"),
    ] = None,
    validation_batches: Annotated[
        int | None,
        typer.Option(min=1, help="Of the test split; always the same.", show_default="8"),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps without a lower validation loss; then stop.", show_default="150"
        ),
    ] = None,
    expect: Annotated[
        Literal["transfers", "drifts"] | None,
        typer.Option(help="End with exit code 1 if the verdict is another one."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Picture of loss against learning rate: FILE.png or .svg."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of rows.jsonl and best.json.",
            show_default="runs/tune-OPTIMIZER-TASK-DATASET-wWIDTH; a --parametrization that is "
            "not the optimizer's own after OPTIMIZER",
        ),
    ] = None,
    format_: Annotated[
        Literal["table", "jsonl"] | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
    process_id: ProcessId = None,
    num_processes: NumProcesses = None,
    alone: Alone = False,
) -> Outcome:
    """Train a network with every configuration of a grid; keep the best.

    The best has the lowest smoothed final training loss. The same command again continues after an
    interruption. On a terminal a table of the best ten; in a pipe one JSON line per training. With
    --transfer: the best learning rate at every width or depth, and whether it stays the same.
    Several processes share the trainings and do not talk; the last one to end tells the best.
    """
    options = TuningOptions(
        optimizer=optimizer, width=width, grid=grid, schedule=schedule,
        parametrization=parametrization, dataset=dataset, task=task, depth=depth,
        batch_size=batch_size, steps=steps, seeds=seeds, window=window, lanes=lanes, widths=widths,
        depths=depths, validate_every=validate_every, validation_batches=validation_batches,
        patience=patience, expect=expect, plot=plot, out=out, format=format_,
        place=place_of(process_id, num_processes, os.environ, alone=alone),
    )  # fmt: skip
    if transfer:
        from mulo_cli.cli.transfer import run_transfer

        return run_transfer(Terminal(), options.of_transfer())
    from mulo_cli.cli.grid_search import run_grid_search

    return run_grid_search(Terminal(), options.of_search())
