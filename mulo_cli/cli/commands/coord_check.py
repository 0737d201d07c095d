"""`mulo coord-check`: whether a parametrization is right, decided by measurement."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mulo_cli.cli.coordinate_options import BUILT_IN, BUILT_IN_DATASET, NETWORK, CheckOptions
from mulo_cli.cli.outcome import Outcome
from mulo_cli.cli.shard_option import Shard

EXAMPLES = """
[bold]Examples[/bold]

mulo coord-check --widths 128..8192 --seeds 3

mulo coord-check --optimizer muadam:learning_rate=0.1 --both --plot coordinates.png

mulo coord-check --optimizer runs/multi-width-mup-desk-seed0 --optimizee gpt --widths 64..512

mulo coord-check --optimizer adamw:learning_rate=0.01 --optimizee models:network --dataset cifar10

mulo coord-check --optimizee gpt:depth_power=0.5 --depths 2..64 --width 128

mulo coord-check --optimizer adamw:learning_rate=0.01 --parametrization sp --expect fail
"""


def coord_check(
    widths: Annotated[
        str | None,
        typer.Option(
            help="128,512,2048 or 128..8192 (doubling) or 64..1024:x4.", show_default="64..1024"
        ),
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="Compare depths instead, at one --width: 2..64.")
    ] = None,
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]|PATH|MODULE:FUNCTION",
            help="A hand-designed optimizer with its settings, a finished run, an artefact, or a "
            "function width -> optax transformation. Repeatable.",
            show_default=f"{BUILT_IN} and the newest run",
        ),
    ] = None,
    optimizee: Annotated[
        str,
        typer.Option(
            "--optimizee",
            "--task",
            metavar="NAME[:KEY=VALUE,...]|MODULE:FUNCTION",
            help="Network: mlp, vit, lm, gpt, or a function width -> your own.",
        ),
    ] = NETWORK,
    parametrization: Annotated[
        Literal["mup", "sp", "spectral"] | None,
        typer.Option(help="Of the networks.", show_default="each optimizer's own"),
    ] = None,
    both: Annotated[
        bool, typer.Option("--both", help="Check each optimizer under muP, and SP beside it.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set: a name, or a file or folder.",
            show_default=f"digits, pydoc for text; without --optimizer and --optimizee "
            f"{BUILT_IN_DATASET}",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="With --depths.", show_default="256")
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="With --widths: hidden layers or blocks.", show_default="3"),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Examples per step, and of the probe batch.")
    ] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training, all measured.")] = 10,
    seeds: Annotated[int, typer.Option(help="Networks per optimizer and size, at least 3.")] = 3,
    readout: Annotated[
        Literal["auto", "forward", "update"],
        typer.Option(help="Of your own network: what divides its output by its fan-in."),
    ] = "auto",
    expect: Annotated[
        Literal["pass", "fail"] | None,
        typer.Option(help="Exit with 0 if every check ends like this.", show_default="pass"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of rows.jsonl; the same command continues there.",
            show_default="runs/coord-check-HASH",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what is in the folder already.")
    ] = False,
    skip_large: Annotated[
        bool, typer.Option("--skip-large", help="Leave out sizes that do not fit into memory.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to draw: FILE.png or FILE.svg.")
    ] = None,
    plot_measure: Annotated[
        Literal["change_std", "change_l1", "size", "mean"],
        typer.Option(help="What the picture shows of each layer."),
    ] = "change_std",
    everything: Annotated[
        bool, typer.Option("--all", help="Show every layer, tensor and measure in the table.")
    ] = False,
    format_: Annotated[
        Literal["table", "jsonl"] | None,
        typer.Option("--format", show_default="table on a terminal, jsonl in a pipe"),
    ] = None,
    shard: Shard = False,
) -> Outcome:
    """Decide whether training moves every layer equally far at every width (or depth).

    Trains networks of several sizes for a few steps, measures layers and tensors, fits powers of
    the size, and names the first layer at fault. Exit code 0 if every check passes, else 1.
    """
    from mulo_cli.cli.coordinate_checks import check

    return check(
        CheckOptions(
            widths=widths, depths=depths, optimizers=tuple(optimizer or ()), optimizee=optimizee,
            parametrization=parametrization, both=both, dataset=dataset, width=width, depth=depth,
            batch_size=batch_size, steps=steps, seeds=seeds, readout=readout, expect=expect,
            out=out, fresh=fresh, skip_large=skip_large, plot=plot, plot_measure=plot_measure,
            everything=everything, format=format_, shard=shard,
        )
    )  # fmt: skip
