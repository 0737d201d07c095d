"""The verdict of a coordinate check: does it pass, and if not, what comes first and why.

G. Yang et al., "Tensor Programs V" (2022), on verifying muP by coordinate checks; muLO (B. Therien
et al., 2025), section 5.2.2, Figures 2 and 10 to 12; on tensors, G. Yang, J. Simon and
J. Bernstein, "A spectral condition for feature learning" (2023). Naming a culprit is ours.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mulo_cli.results.coordinate_culprits import Culprit, culprit_of, first_fault
from mulo_cli.results.coordinate_diagnosis import CONSTANT_FACTORS, diagnosis
from mulo_cli.results.coordinate_evidence import Evidence, Judged, collected
from mulo_cli.results.coordinate_fits import Axis, CoordinateFit, Verdict, fit_power
from mulo_cli.results.coordinate_networks import LOGITS, Table, tabulated
from mulo_cli.results.coordinate_records import CoordinateRecord
from mulo_cli.results.coordinate_stacks import stack_of

Judgement: TypeAlias = Literal["pass", "fail", "not enough data"]

SEVERITY: tuple[Verdict, ...] = ("diverged", "grows", "vanishes", "not enough data", "stable")
"""The worst verdict first."""

MOST_NAMED = 4
"""Names in a note."""

ALL_IN_STACKS = (
    "all layers are numbered as blocks of a stack, inside of which nothing is judged: give the "
    "first and the last layer names of their own"
)
"""Said of depths where nothing but what the network puts out could be judged."""


@dataclass(frozen=True)
class CoordinateVerdict:
    """What is said of one optimizer: it passes if all that is judged is stable.

    Attributes:
        optimizer: as the user named it.
        parametrization: of the networks.
        axis: what the sizes are.
        sizes: that were compared.
        verdict: "fail" if anything grows, vanishes or diverges.
        layers: name -> the worst verdict of what belongs to it.
        culprit: what comes first among what fails; null if nothing does.
        diagnosis: a sentence about it; empty if nothing fails.
        notes: what else should be known.
    """

    optimizer: str
    parametrization: str
    axis: Axis
    sizes: tuple[int, ...]
    verdict: Judgement
    layers: Mapping[str, Verdict]
    culprit: Culprit | None
    diagnosis: str
    notes: tuple[str, ...]
    kind: Literal["coordinate-verdict"] = "coordinate-verdict"


@dataclass(frozen=True)
class CoordinateCheck:
    """The whole check of one optimizer.

    Attributes:
        records: one per size and seed.
        fits: of every measure, in forward order.
        verdict: of all that is judged.
    """

    records: tuple[CoordinateRecord, ...]
    fits: tuple[CoordinateFit, ...]
    verdict: CoordinateVerdict

    @property
    def passed(self) -> bool:
        """Whether all that is judged is stable."""
        return self.verdict.verdict == "pass"


def check_coordinates(
    records: Sequence[CoordinateRecord], notes: Sequence[str] = ()
) -> CoordinateCheck:
    """Fit everything and judge.

    Args:
        records: of one optimizer, in any order; the sizes are depths if these differ, else widths.
            Seeds that not every size has do not count; one at least every size has.
        notes: that the verdict is to bear.
    """
    table = tabulated(records)
    fits = tuple(_fitted(table, evidence) for evidence in collected(table))
    fault = first_fault(fits)
    culprit = fault and culprit_of(fault, fits)
    layers: dict[str, Verdict] = {
        layer: worst_of(judged)
        for layer in dict.fromkeys(fit.layer for fit in fits)
        if (judged := [fit for fit in fits if fit.judged and fit.layer == layer])
    }
    verdict = CoordinateVerdict(
        optimizer=table.first.optimizer,
        parametrization=table.first.parametrization,
        axis=table.axis,
        sizes=table.sizes,
        verdict=_judgement(table, [fit for fit in fits if fit.judged]),
        layers=layers,
        culprit=culprit,
        diagnosis=diagnosis(culprit, fits, table) if culprit else "",
        notes=(*notes, *_notes(table, fits)),
    )
    return CoordinateCheck(tuple(records), fits, verdict)


def worst_of(fits: Iterable[CoordinateFit]) -> Verdict:
    """Return the worst verdict among fits; there is at least one."""
    found = {fit.verdict for fit in fits}
    return next(verdict for verdict in SEVERITY if verdict in found)


def _fitted(table: Table, evidence: Evidence) -> CoordinateFit:
    power = fit_power(table.sizes, evidence.values, evidence.steps, evidence.most_steps)
    counts: dict[Judged, bool] = {
        "always": True,
        "failing": power.verdict in ("grows", "vanishes", "diverged"),
        "growing": power.verdict in ("grows", "diverged"),
        "never": False,
    }
    return CoordinateFit(
        **vars(power),
        optimizer=table.first.optimizer,
        parametrization=table.first.parametrization,
        axis=table.axis,
        layer=evidence.layer,
        tensor=evidence.tensor,
        measure=evidence.measure,
        judged=counts[evidence.judged],
        own=evidence.own,
        note=evidence.note,
    )


def _judgement(table: Table, judged: Sequence[CoordinateFit]) -> Judgement:
    """Judge all that counts: a network whose logits never move has shown nothing."""
    if any(fit.failed for fit in judged):
        return "fail"
    of_logits = any(fit.layer == LOGITS for fit in judged)
    shown = of_logits and not _all_in_stacks(table, judged)
    if shown and all(fit.verdict == "stable" for fit in judged):
        return "pass"
    return "not enough data"


def _all_in_stacks(table: Table, judged: Sequence[CoordinateFit]) -> bool:
    """Say whether nothing is judged but the logits and what is read, because of names."""
    inside = any(stack_of(layer) for layer in table.order)
    return inside and all(fit.layer == LOGITS or fit.measure == "reads" for fit in judged)


def _notes(table: Table, fits: Sequence[CoordinateFit]) -> list[str]:
    """Say what was dropped, what does not count, and what no check can see."""
    notes = []
    dropped: dict[tuple[int, ...], list[str]] = {}
    for fit in fits:
        if fit.judged and fit.dropped:
            dropped.setdefault(fit.dropped, []).append(f"{fit.measure} of {fit.place}")
    for sizes, places in dropped.items():
        told = f"{table.axis} {' and '.join(map(str, sizes))}"
        notes.append(f"stable only without {told}: {_few(places)}")
    aside: dict[str, list[str]] = {}
    for fit in fits:
        if fit.note:
            aside.setdefault(fit.note, []).append(fit.place)
    notes += [f"{note}: {_few(list(dict.fromkeys(places)))}" for note, places in aside.items()]
    if _all_in_stacks(table, [fit for fit in fits if fit.judged]):
        notes.append(ALL_IN_STACKS)
    if table.left_out:
        notes.append(f"not in every network, left out: {_few(table.left_out)}")
    return [*notes, CONSTANT_FACTORS.format(axis=table.axis)]


def _few(names: Sequence[str]) -> str:
    """Return some names, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
