"""Records of coordinate checks whose powers are known, for tests: small networks that never ran."""

import dataclasses
from collections.abc import Mapping, Sequence

from mulo_cli.results.coordinate_records import CoordinateRecord, LayerTrace, TensorTrace

WIDTHS = (64, 128, 256, 512, 1024)
STEPS = 4

MLP = ("input", "hidden_0", "hidden_1")
"""Layers with a kernel and a bias each; the readout's follow."""

LM = ("embed", *(
    f"blocks_{b}{part}"
    for b in (0, 1)
    for part in ("", "/norm", "/attention", "/attention/query", "/attention/scores",
                 "/attention/out", "/up", "/down")
), "norm")  # fmt: skip


def layer(
    size: int,
    powers: Mapping[str, float],
    *,
    sown: bool = False,
    steps: int = STEPS,
    wobble: float = 1.0,
) -> LayerTrace:
    """Return a layer: powers of the size of `reads`, `size`, `change_std`."""

    def grown(measure: str) -> float:
        return float(size) ** powers.get(measure, 0.0) * wobble

    return LayerTrace(
        sown=sown,
        reads=None if sown else grown("reads"),
        mean=(0.1,) * (steps + 1),
        size=(grown("size"),) * (steps + 1),
        change_std=tuple((t + 1) * grown("change_std") for t in range(steps)),
        change_l1=tuple((t + 1) * grown("change_std") for t in range(steps)),
    )


def tensor(
    of: str,
    size: int,
    powers: Mapping[str, float],
    *,
    kind: str = "hidden",
    vector: bool = False,
    starts: bool = True,
    steps: int = STEPS,
    wobble: float = 1.0,
) -> TensorTrace:
    """Return a tensor: powers of the size of `start`, `change`, `shrinkage`, `gradient`."""

    def grown(measure: str) -> float:
        return float(size) ** powers.get(measure, 0.0) * wobble

    changes = tuple((t + 1) * grown("change") for t in range(steps))
    decays = "shrinkage" in powers
    return TensorTrace(
        layer=of,
        kind=kind,  # pyright: ignore[reportArgumentType]
        vector=vector,
        fan_in=1 if vector else size,
        fan_out=size,
        start=grown("start") if starts else 0.0,
        change=changes,
        spectral_start=None if vector else grown("start"),
        spectral_change=() if vector else changes,
        shrinkage=tuple((t + 1) * grown("shrinkage") if decays else -0.01 for t in range(steps)),
        gradient=grown("gradient"),
        effect=powers.get("effect", 0.1),
    )


def mlp(
    width: int,
    seed: int = 0,
    powers: Mapping[str, Mapping[str, float]] | None = None,
    steps: int = STEPS,
    noise: float = 0.001,
) -> CoordinateRecord:
    """Return an MLP's record; nothing depends on the width but what `powers` tells.

    Args:
        width: of the network.
        seed: it wobbles by a factor width^(+-noise).
        powers: layer or tensor -> measure -> power of the width.
        steps: length of the training.
        noise: standard deviation of slopes, roughly.
    """
    powers = powers or {}
    wobble = float(width) ** (noise * (seed % 3 - 1))
    layers = {
        name: layer(width, powers.get(name, {}), steps=steps, wobble=wobble)
        for name in (*MLP, "logits")
    }
    tensors = {}
    for of in (*MLP, "readout"):
        kind = {"input": "input", "readout": "output"}.get(of, "hidden")
        for part in ("bias", "kernel"):
            name, vector = f"{of}/{part}", part == "bias"
            tensors[name] = tensor(
                of,
                width,
                powers.get(name, {}),
                kind="input" if vector else kind,
                vector=vector,
                starts=of != "readout" or "start" in powers.get(name, {}),
                steps=steps,
                wobble=wobble,
            )
    return record(width, seed, layers, tensors, steps=steps)


def lm(
    width: int, seed: int = 0, powers: Mapping[str, Mapping[str, float]] | None = None
) -> CoordinateRecord:
    """Return a transformer's record of two blocks; scores are sown."""
    powers = powers or {}
    wobble = float(width) ** (0.001 * (seed % 3 - 1))
    layers = {
        name: layer(width, powers.get(name, {}), sown=name.endswith("scores"), wobble=wobble)
        for name in (*LM, "logits")
    }
    tensors = {}
    for of in LM:
        last = of.rpartition("/")[2]
        if last in ("query", "out", "up", "down"):
            name = f"{of}/kernel"
            tensors[name] = tensor(of, width, powers.get(name, {}), wobble=wobble)
        elif last == "norm":
            name = f"{of}/scale"
            tensors[name] = tensor(
                of, width, powers.get(name, {}), kind="input", vector=True, wobble=wobble
            )
        elif last == "embed":
            name = f"{of}/embedding"
            tensors[name] = tensor(of, width, powers.get(name, {}), kind="input", wobble=wobble)
    tensors["readout/kernel"] = tensor(
        "readout", width, powers.get("readout/kernel", {}), kind="output", starts=False,
        wobble=wobble,
    )  # fmt: skip
    return record(width, seed, layers, tensors, task="lm", depth=2)


def deep(
    depth: int, seed: int = 0, powers: Mapping[str, Mapping[str, float]] | None = None
) -> CoordinateRecord:
    """Return the record of a residual network of some depth: `embed`, blocks, `norm`, readout.

    Args:
        depth: number of blocks.
        seed: of the network.
        powers: layer or tensor, `blocks` for all of them -> measure -> power of the depth.
    """
    powers = powers or {}
    wobble = float(depth) ** (0.001 * (seed % 3 - 1))
    blocks = [f"blocks_{number}" for number in range(depth)]
    layers, tensors = {}, {}
    for of in ("embed", *blocks, "norm", "logits"):
        stack = of.partition("_")[0]
        layers[of] = layer(depth, powers.get(stack, {}), wobble=wobble)
        if of in blocks:
            layers[f"{of}/up"] = layer(depth, {"change_std": -0.5}, wobble=wobble)
    for of in ("embed", *blocks, "readout"):
        name = f"{of}/up/kernel" if of in blocks else f"{of}/kernel"
        told = powers.get(of.partition("_")[0], {}) if of in blocks else powers.get(name, {})
        kind = {"embed": "input", "readout": "output"}.get(of, "hidden")
        made = tensor(name.rpartition("/")[0], 64, {}, kind=kind, starts=of != "readout")
        grown = float(depth) ** told.get("change", 0.0) * wobble
        share = float(depth) ** (told.get("effect", 0.0) - 1.0) if of in blocks else 1.0
        tensors[name] = dataclasses.replace(
            made, change=tuple((t + 1) * grown for t in range(STEPS)), effect=0.1 * share * wobble
        )
    return record(64, seed, layers, tensors, task="lm", depth=depth)


def record(
    width: int,
    seed: int,
    layers: Mapping[str, LayerTrace],
    tensors: Mapping[str, TensorTrace] | None = None,
    task: str = "mlp",
    depth: int = 3,
    steps: int = STEPS,
) -> CoordinateRecord:
    """Return the record of a network with these layers and tensors."""
    return CoordinateRecord(
        optimizer="muadam",
        settings={"learning_rate": 0.1, "weight_decay": 0.1},
        parametrization="mup",
        recipe_digest=None,
        task=task,
        dataset="digits",
        real=True,
        width=width,
        depth=depth,
        batch_size=64,
        seed=seed,
        steps=steps,
        code_version="0",
        losses=(2.3,) * steps,
        layers=layers,
        tensors=tensors or {},
    )


def with_one(measure: str, name: str, power: float) -> dict[str, dict[str, float]]:
    """Return powers of which one is not zero."""
    return {name: {measure: power}}


def records_of(
    make=mlp, sizes: Sequence[int] = WIDTHS, seeds: int = 3, **told
) -> list[CoordinateRecord]:
    """Return a record for each size and seed."""
    return [make(size, seed, **told) for size in sizes for seed in range(seeds)]
