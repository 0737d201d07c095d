"""What a coordinate check measured: one record per network, with what its layers and tensors did.

Nothing is judged here; see `coordinate_fits` (powers of the width, or of the depth) and
`coordinates` (verdicts).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mulo_cli.results.records import identity_hash
from mulo_cli.results.store import RecordKind

Numbers: TypeAlias = tuple[float | None, ...]
"""One number per step; null where it is not finite."""


@dataclass(frozen=True)
class LayerTrace:
    """What one layer put out on the probe batch, over a training of `T` steps.

    A layer is a module of flax that was called, a value that a module sowed, or the logits. Means
    are over examples and coordinates. Our attention sows `scores`: not those of this batch, which
    fall with the head size until training has aligned queries and keys, but what these would score
    if they were aligned.

    Attributes:
        sown: whether a module showed this value, which is no module's output.
        reads: root mean square of what the module was called with, before training; null where
            that is not an array of floating-point numbers. Of the logits: of the readout, which is
            not listed beside them.
        mean: mean output, before training and after each step (`T + 1` numbers).
        size: mean absolute output (L1), before training and after each step (`T + 1` numbers).
        change_std: standard deviation of the change of the output since the start (`T` numbers).
        change_l1: mean absolute change of the output since the start (`T` numbers).
    """

    sown: bool
    reads: float | None
    mean: Numbers
    size: Numbers
    change_std: Numbers
    change_l1: Numbers


@dataclass(frozen=True)
class TensorTrace:
    """What training did to one tensor of parameters: powers of the width that muP makes 0.

    `start` and `change` are measured by what the tensor can do to a layer of its kind:

    - input (fan-in does not grow; vectors, too): root mean square of the elements.
    - hidden: spectral norm, by power iteration. `change` over (fan_out/fan_in)^1/2, the condition
      on updates in G. Yang, J. Simon and J. Bernstein, "A spectral condition for feature learning"
      (2023); `start` over fan_in^-1/2 (fan_in^1/2 + fan_out^1/2), which a random matrix of
      variance 1/fan_in has.
    - output: root mean square of what the tensor (its change) adds to the logits, whatever factors
      the network has, over that of what its layer reads, where that is known; `start` times
      fan_in^1/2, because a random matrix adds that much less than an aligned one.

    Attributes:
        layer: name of the layer it belongs to: its path without its own name; a tensor that
            stands alone is a layer of its name. The readout's is not among the layers that are
            listed: its output is the logits.
        kind: what it is to muP.
        vector: whether it has no input axes (bias, gain, shift).
        fan_in, fan_out: as in its role.
        start: size before training; 0 where it starts at zero.
        change: size of the change since the start (`T` numbers).
        spectral_start: spectral norm before training over (fan_out/fan_in)^1/2; null for a vector.
        spectral_change: spectral norm of the change over (fan_out/fan_in)^1/2 (`T` numbers); empty
            for a vector.
        shrinkage: -<change, start>/<start, start> (`T` numbers): what decay does; null where it
            starts at zero.
        gradient: root mean square of the gradient on the probe batch after the first step.
        effect: norm of the gradient times norm of the change after the last step, as a share of the
            sum over all tensors: to first order it bounds what the change did to the loss.
    """

    layer: str
    kind: Literal["input", "hidden", "output"]
    vector: bool
    fan_in: int
    fan_out: int
    start: float | None
    change: Numbers
    spectral_start: float | None
    spectral_change: Numbers
    shrinkage: Numbers
    gradient: float | None
    effect: float | None


@dataclass(frozen=True)
class CoordinateIdentity:
    """What was trained and how: equal identities are the same measurement.

    Attributes:
        optimizer: as the user named it.
        settings: what that stood for.
        parametrization: of the network.
        recipe_digest: of the recipe that a learned optimizer was meta-trained with, else null.
        task: name of the network.
        dataset: name of the data set.
        real: whether the data set is real data.
        depth: of the network; 0 where the user's function was not told any.
        seed: of the initialisation, the order of the data and the probe batch.
        steps: length `T` of the training.
        data: digest of the data, where its name does not tell it.
        code: digest of the user's own code that made network or optimizer; empty without.
        readout: where the factor 1/fan_in of the user's own outputs was said to act; empty for
            networks of ours, which know.
    """

    optimizer: str
    settings: Mapping[str, float | str]
    parametrization: str
    recipe_digest: str | None
    task: str
    dataset: str
    real: bool
    width: int
    depth: int
    batch_size: int
    seed: int
    steps: int
    code_version: str
    data: str = ""
    code: str = ""
    readout: str = ""


@dataclass(frozen=True)
class CoordinateRecord(CoordinateIdentity):
    """One network in training, measured.

    Attributes:
        losses: of each step's batch, before that step's update (`T` numbers).
        layers: name -> what it did, in forward order (that in which modules are entered; what a
            module sows comes after the modules it has called by then); the logits last.
        tensors: name of the leaf (layers of a stack apart: `blocks_0/up/kernel`) -> what became of
            it, in the order of `layers`.
    """

    losses: Numbers = ()
    layers: Mapping[str, LayerTrace] = field(default_factory=dict)
    tensors: Mapping[str, TensorTrace] = field(default_factory=dict)
    kind: Literal["coordinate"] = "coordinate"


COORDINATE_RECORDS = RecordKind(
    record=CoordinateRecord,
    kind="coordinate",
    noun="a record of a coordinate check",
    written_by="`mulo coord-check` into its folder",
    again="--fresh measures again",
)


def coordinate_hash(identity: CoordinateIdentity) -> str:
    """Return the SHA-256 (hex) of an identity; a record has the hash of its identity."""
    return identity_hash(identity, CoordinateIdentity)
