"""The sections of a recipe, their types and their bounds.

Names of data sets, networks, architectures and estimators are checked where their catalogues are
known (`mulo_cli.assembly`); numbers are checked here.
"""

import dataclasses
import hashlib
import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Parametrization: TypeAlias = Literal["mup", "sp"]
Scale: TypeAlias = Literal["desk", "paper", "custom"]
MatmulPrecision: TypeAlias = Literal["float32", "bfloat16"]
USUAL_PRECISION: MatmulPrecision = "float32"
PositiveInt: TypeAlias = Annotated[int, Field(gt=0)]
Rate: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=STRICT)
class SmallFcLoptSection:
    """small_fc_lopt: its sizes and the formula variants a card records."""

    architecture: Literal["small_fc_lopt"]
    hidden_size: PositiveInt
    step_size: PositiveFloat
    magnitude_scale: PositiveFloat
    time_feature: Literal["offset", "plain"]
    clip_gradients: bool
    base_fan_in: PositiveInt


@dataclass(frozen=True, config=STRICT)
class VeloSection:
    """VeLO: its sizes and the formula variants a card records."""

    architecture: Literal["velo"]
    hidden_size: PositiveInt
    lstm_size: PositiveInt
    bank_size: PositiveInt
    step_size: PositiveFloat
    magnitude_scale: PositiveFloat
    fraction_left: Literal["offset", "plain"]
    interpolation_scale: PositiveFloat
    parameter_scale: bool
    loss_feature_horizon: Annotated[int, Field(ge=0)]
    base_fan_in: PositiveInt


ARCHITECTURES = {"small_fc_lopt": SmallFcLoptSection, "velo": VeloSection}
OptimizerSection: TypeAlias = Annotated[
    SmallFcLoptSection | VeloSection, Field(discriminator="architecture")
]
"""The learned optimizer; which keys it has depends on its architecture."""


@dataclass(frozen=True, config=STRICT)
class TaskSection:
    """What is trained during meta-training: one network per width."""

    dataset: str
    optimizee: str
    widths: Annotated[list[PositiveInt], Field(min_length=1)]
    depth: PositiveInt
    batch_size: PositiveInt
    matmul_precision: MatmulPrecision = USUAL_PRECISION
    """Of the networks' matrix products. It has a default because older recipes do not tell it."""

    @model_validator(mode="after")
    def _consistent(self) -> "TaskSection":
        if len(set(self.widths)) < len(self.widths):
            raise ValueError(f"widths = {self.widths} names a width twice")
        return self


@dataclass(frozen=True, config=STRICT)
class EstimatorSection:
    """How the meta-gradient is estimated, for each task."""

    name: str
    pairs: PositiveInt
    pairs_per_block: PositiveInt
    sigma: PositiveFloat
    truncation: PositiveInt
    min_horizon: PositiveInt
    max_horizon: PositiveInt

    @model_validator(mode="after")
    def _consistent(self) -> "EstimatorSection":
        if self.pairs % self.pairs_per_block:
            raise ValueError(
                f"pairs_per_block = {self.pairs_per_block} does not divide pairs = {self.pairs}"
            )
        if self.min_horizon > self.max_horizon:
            raise ValueError(
                f"min_horizon = {self.min_horizon} is above max_horizon = {self.max_horizon}"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class MetaOptimizerSection:
    """AdamW on theta: linear warm-up, then cosine."""

    steps: PositiveInt
    warmup_steps: Annotated[int, Field(ge=0)]
    learning_rate: PositiveFloat
    final_learning_rate: Rate
    weight_decay: Rate
    clip_norm: PositiveFloat
    clip: Literal["gradient", "update"]

    @model_validator(mode="after")
    def _consistent(self) -> "MetaOptimizerSection":
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} leaves nothing of steps = {self.steps}"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class ValidationSection:
    """Networks of held-out seeds, trained with the current theta every so often."""

    every: PositiveInt
    seeds: PositiveInt
    steps: PositiveInt
    window: PositiveInt

    @model_validator(mode="after")
    def _consistent(self) -> "ValidationSection":
        if self.window > self.steps:
            raise ValueError(f"window = {self.window} is longer than steps = {self.steps}")
        return self


@dataclass(frozen=True, config=STRICT)
class CheckpointSection:
    """When the run is saved; changes nothing in its result."""

    every: PositiveInt
    keep: PositiveInt


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A resolved recipe: nothing is left to defaults."""

    name: str
    description: str
    scale: Scale
    parametrization: Parametrization
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    optimizer: OptimizerSection
    task: TaskSection
    estimator: EstimatorSection
    meta_optimizer: MetaOptimizerSection
    validation: ValidationSection
    checkpoint: CheckpointSection


WITHOUT_EFFECT = ("description", "checkpoint")
"""Keys that do not change what a recipe computes: not in its digest, free to change at resume."""


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as nested plain values, ready for TOML or JSON."""
    return dataclasses.asdict(recipe)


def digest(recipe: Recipe) -> str:
    """Return the SHA-256 (hex) of everything that the recipe's result depends on.

    The usual precision of products is left out, so that recipes keep the digests they had before
    there was a choice.
    """
    effective = {k: v for k, v in as_dict(recipe).items() if k not in WITHOUT_EFFECT}
    if recipe.task.matmul_precision == USUAL_PRECISION:
        del effective["task"]["matmul_precision"]
    return hashlib.sha256(json.dumps(effective, sort_keys=True).encode()).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Name the settings in which two recipes compute different things: `key: old -> new`."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key.split(".")[0] not in WITHOUT_EFFECT
    ]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def known_keys() -> list[str]:
    """Return every dotted key that some recipe can have."""
    keys: list[str] = []
    for field in dataclasses.fields(Recipe):
        sections = ARCHITECTURES.values() if field.name == "optimizer" else [field.type]
        for section in sections:
            if dataclasses.is_dataclass(section):
                keys += [f"{field.name}.{inner.name}" for inner in dataclasses.fields(section)]
            else:
                keys.append(field.name)
    return list(dict.fromkeys(keys))
