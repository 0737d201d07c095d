"""What a study of learning-rate transfer keeps of each training."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mulo_cli.results.store import RecordKind

Axis: TypeAlias = Literal["width", "depth"]


@dataclass(frozen=True)
class TransferIdentity:
    """Everything that the result of one training depends on; its fields come first in a row.

    Attributes:
        optimizer: as the user named it, without its learning rate.
        settings: every hyper-parameter, the learning rate as well.
        parametrization: of the network.
        task: name of the network.
        real: whether the data set is real data.
        seed: of the initialisation and the order of the data.
        steps: at most so many.
        validate_every: steps between two validations.
        validation_batches: whose mean loss is a validation; the same for all trainings.
        patience: steps without a lower validation loss after which it stops.
        window: steps whose mean is the smoothed training loss.
        data: digest of the data, where its name and this version do not tell it; else empty.
    """

    optimizer: str
    learning_rate: float
    settings: Mapping[str, float | str]
    parametrization: str
    task: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int
    seed: int
    steps: int
    validate_every: int
    validation_batches: int
    patience: int
    window: int
    code_version: str
    data: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class TransferRow(TransferIdentity):
    """One training with early stop.

    Attributes:
        validation_loss: the lowest; null if the training diverged.
        training_loss: smoothed, at the step of the lowest validation loss.
        best_step: that step.
        stopped_at: the last step.
        status: why it stopped: no lower validation loss for `patience` steps, all steps done, or
            a training loss that was not finite.
        validation: every validation loss, one each `validate_every` steps.
        parameters: of the network.
        seconds_per_step: of one network; networks are trained side by side.
    """

    validation_loss: float | None
    training_loss: float | None
    best_step: int | None
    stopped_at: int
    status: Literal["stopped early", "all steps", "diverged"]
    validation: tuple[float | None, ...]
    parameters: int
    seconds_per_step: float
    kind: Literal["transfer"] = "transfer"


def transfer_hash(identity: TransferIdentity) -> str:
    """Return the SHA-256 (hex) of an identity; a row has the hash of its identity."""
    names = [field.name for field in dataclasses.fields(TransferIdentity)]
    values = {name: getattr(identity, name) for name in names}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


TRANSFER_ROWS = RecordKind(
    TransferRow,
    "transfer",
    "a transfer row",
    "`mulo tune-adam --transfer`",
    again="delete it; the same command trains again what is missing",
)
