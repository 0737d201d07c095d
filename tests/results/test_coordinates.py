"""Verdicts: what passes, what fails, which layer is named, and what is said about it."""

import dataclasses
import json
import math
import random

import pytest

from mulo_cli.results.coordinate_fits import CoordinateFit
from mulo_cli.results.coordinate_records import COORDINATE_RECORDS, CoordinateRecord
from mulo_cli.results.coordinates import CoordinateCheck, check_coordinates
from mulo_cli.results.store import read_records, to_line
from tests.results.coordinate_worlds import (
    STEPS,
    WIDTHS,
    deep,
    layer,
    lm,
    mlp,
    record,
    records_of,
    tensor,
)

DEPTHS = (2, 4, 8, 16)


def checked(make=mlp, sizes=WIDTHS, **powers) -> CoordinateCheck:
    """Check networks in which some places have powers: place with `__` for `/` -> measure."""
    told = {name.replace("__", "/"): of for name, of in powers.items()}
    return check_coordinates(records_of(make, sizes, powers=told))


def fit_of(check: CoordinateCheck, place: str, measure: str) -> CoordinateFit:
    (found,) = [f for f in check.fits if (f.place, f.measure) == (place, measure)]
    return found


def changed(records, which, name, **fields) -> list[CoordinateRecord]:
    """Return records of which one layer or tensor is another in some networks."""

    def change(one: CoordinateRecord) -> CoordinateRecord:
        if not which(one):
            return one
        kind = "tensors" if name in one.tensors else "layers"
        traces = dict(getattr(one, kind))
        traces[name] = dataclasses.replace(traces[name], **fields)
        return dataclasses.replace(one, **{kind: traces})

    return [change(one) for one in records]


def everywhere(one: CoordinateRecord) -> bool:
    return True


# --- Passing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "sizes"), [(mlp, WIDTHS), (lm, WIDTHS), (deep, DEPTHS)])
def test_a_check_passes_if_all_that_is_judged_is_stable(make, sizes):
    check = checked(make, sizes)
    assert check.passed
    assert (check.verdict.culprit, check.verdict.diagnosis) == (None, "")
    assert set(check.verdict.layers.values()) == {"stable"}
    assert any("constant factor" in note for note in check.verdict.notes)


def test_layers_come_in_forward_order_the_readout_before_the_logits():
    assert list(checked().verdict.layers) == ["input", "hidden_0", "hidden_1", "readout", "logits"]


@pytest.mark.parametrize("place", ["hidden_0__kernel", "input__bias", "readout__kernel", "logits"])
def test_one_slope_beyond_the_border_fails_the_check(place):
    measure = "change_std" if place == "logits" else "change"
    assert checked(**{place: {measure: 0.3}}).verdict.verdict == "fail"
    assert checked(**{place: {measure: 0.05}}).verdict.verdict == "pass"


def test_the_order_of_records_is_irrelevant():
    records = records_of(powers={"hidden_0/kernel": {"change": 0.5}})
    shuffled = records[:]
    random.Random(0).shuffle(shuffled)
    assert check_coordinates(shuffled).fits == check_coordinates(records).fits


def test_what_is_not_told_by_every_network_is_left_out_and_named():
    records = records_of()
    extra = dataclasses.replace(records[0], layers={**records[0].layers, "dropout": layer(64, {})})
    check = check_coordinates([extra, *records[1:]])
    assert check.passed
    assert any("left out: dropout" in note for note in check.verdict.notes)


def test_seeds_that_some_size_lacks_do_not_count():
    records = [*records_of(), mlp(64, 3, {"logits": {"change_std": 9.0}})]
    assert check_coordinates(records).passed


# --- Not enough data ------------------------------------------------------------------------------


def test_noise_is_not_enough_data_and_no_pass():
    noisy = [mlp(width, seed, noise=0.2) for width in WIDTHS for seed in range(3)]
    assert check_coordinates(noisy).verdict.verdict == "not enough data"


def test_a_failure_counts_more_than_what_is_unclear():
    noisy = [
        mlp(width, seed, {"hidden_0/kernel": {"change": 3.0}}, noise=0.2)
        for width in WIDTHS
        for seed in range(3)
    ]
    assert check_coordinates(noisy).verdict.verdict == "fail"


@pytest.mark.parametrize("steps", [1, STEPS])
def test_logits_that_never_move_have_shown_nothing(steps):
    records = records_of(steps=steps)
    still = changed(records, everywhere, "logits", change_std=(0.0,) * steps)
    assert check_coordinates(still).verdict.verdict == "not enough data"


def test_after_one_step_a_layer_that_has_not_moved_is_unclear():
    records = changed(records_of(steps=1), everywhere, "hidden_0", change_std=(0.0,))
    assert check_coordinates(records).verdict.layers["hidden_0"] == "not enough data"


# --- What does not count --------------------------------------------------------------------------


def test_a_tensor_that_has_not_moved_yet_is_no_rounding():
    """Under muP hidden layers stand still at the first step: the readout starts at zero."""
    records = changed(records_of(steps=1), everywhere, "hidden_0/kernel", change=(0.0,), effect=0.0)
    verdict = check_coordinates(records).verdict
    assert (verdict.verdict, verdict.layers["hidden_0"]) == ("not enough data",) * 2
    assert any("has not moved yet, more --steps" in n and "hidden_0" in n for n in verdict.notes)
    assert not any("rounding" in note for note in verdict.notes)


def test_what_never_moves_is_a_constant_and_noted():
    still = (0.0,) * STEPS
    records = changed(records_of(), everywhere, "hidden_0", change_std=still)
    records = changed(records, everywhere, "input/bias", change=still)
    check = check_coordinates(records)
    assert check.passed
    (note,) = [note for note in check.verdict.notes if "never moves" in note]
    assert "hidden_0" in note
    assert "input/bias" in note


@pytest.mark.parametrize("told", [{"gradient": 1e-9}, {"effect": 1e-12, "gradient": 1.0}])
def test_what_moves_by_rounding_alone_is_noted_and_not_judged(told):
    """A key's bias under softmax; its gradient is a millionth of its kernel's."""
    records = records_of(powers={"hidden_0/bias": {"change": -0.5}})
    check = check_coordinates(changed(records, everywhere, "hidden_0/bias", **told))
    assert check.passed
    assert any("rounding alone" in n and "hidden_0/bias" in n for n in check.verdict.notes)


def test_a_small_gradient_that_all_tensors_of_a_layer_share_is_no_rounding():
    records = records_of(powers={"hidden_0/bias": {"change": -0.5}})
    for name in ("hidden_0/bias", "hidden_0/kernel"):
        records = changed(records, everywhere, name, gradient=1e-9)
    assert not check_coordinates(records).passed


@pytest.mark.parametrize(("power", "passed"), [(-0.5, True), (0.5, False)])
@pytest.mark.parametrize("place", ["logits", "blocks_0__attention__scores"])
def test_logits_and_scores_may_start_small_but_not_large(place, power, passed):
    assert checked(lm, **{place: {"size": power}}).passed is passed


def test_scores_may_vanish_in_training_as_products_of_vectors_that_are_not_aligned_do():
    assert checked(lm, blocks_0__attention__scores={"change_std": -0.5}).passed


def test_tensors_are_judged_by_their_first_steps():
    """Later ones feed back."""
    records = records_of(steps=6)
    for width in WIDTHS:
        late = (1.0, 2.0, 3.0, *(float(width),) * 3)
        records = changed(records, lambda r, w=width: r.width == w, "hidden_0/kernel", change=late)
    check = check_coordinates(records)
    assert check.passed
    assert fit_of(check, "hidden_0/kernel", "change").steps == (1, 2, 3)
    assert fit_of(check, "hidden_0", "change_std").steps == (1, 2, 3, 4, 5, 6)


def test_spectral_norms_are_shown_and_not_judged():
    records = records_of()
    for width in WIDTHS:
        grown = (float(width),) * STEPS
        records = changed(
            records, lambda r, w=width: r.width == w, "hidden_0/kernel", spectral_change=grown
        )
    check = check_coordinates(records)
    assert check.passed
    assert fit_of(check, "hidden_0/kernel", "spectral_change").verdict == "grows"


def test_networks_that_are_too_small_are_left_out_with_a_note():
    records = changed(records_of(), lambda r: r.width == 64, "hidden_0", change_std=(9.0,) * STEPS)
    check = check_coordinates(records)
    assert check.passed
    assert "stable only without width 64: change_std of hidden_0" in check.verdict.notes


# --- The culprit ----------------------------------------------------------------------------------

EVERYTHING_AFTER = {"hidden_1": {"change_std": 1.0}, "logits": {"change_std": 1.0}}


@pytest.mark.parametrize("power", [1.0, -0.5])
@pytest.mark.parametrize("measure", ["start", "change"])
@pytest.mark.parametrize(
    "tensor", ["input/kernel", "input/bias", "hidden_0/kernel", "hidden_1/bias", "readout/kernel"]
)
def test_a_tensor_at_fault_is_named_with_its_layer_and_the_measured_power(tensor, measure, power):
    powers = {tensor: {measure: power}, "hidden_1": {"reads": 0.0}, "logits": {"change_std": power}}
    check = check_coordinates(records_of(powers=powers))
    culprit = check.verdict.culprit
    assert culprit is not None
    assert (culprit.layer, culprit.tensor) == (tensor.rpartition("/")[0], tensor)
    assert culprit.measure == measure
    assert culprit.slope == pytest.approx(power, abs=0.01)
    assert f"n^{power:.1f}" in check.verdict.diagnosis


def test_the_first_in_forward_order_is_named():
    check = checked(hidden_1__kernel={"change": 1.0}, hidden_0__kernel={"change": 1.0})
    assert check.verdict.culprit.tensor == "hidden_0/kernel"


def test_what_is_less_than_half_as_steep_as_the_steepest_is_an_echo():
    check = checked(input__kernel={"change": 0.2}, hidden_0__kernel={"change": 1.0})
    assert check.verdict.culprit.tensor == "hidden_0/kernel"
    alone = checked(input__kernel={"change": 0.2})
    assert alone.verdict.culprit.tensor == "input/kernel"


def test_consequences_name_no_layer_while_something_of_its_own_fails():
    check = checked(
        input={"change_std": 1.0}, hidden_0={"size": 1.0}, hidden_1__kernel={"change": 0.5}
    )
    assert check.verdict.culprit.layer == "hidden_1"


def test_without_anything_else_the_first_output_is_named():
    check = checked(hidden_0={"size": 0.5}, **EVERYTHING_AFTER)
    assert (check.verdict.culprit.layer, check.verdict.culprit.tensor) == ("hidden_0", None)
    assert "a factor in its forward pass" in check.verdict.diagnosis


def test_a_module_puts_out_after_those_it_has_called():
    check = checked(lm, blocks_0={"size": 0.5}, blocks_0__down={"size": 0.5})
    assert check.verdict.culprit.layer == "blocks_0/down"


@pytest.mark.parametrize(
    ("reader", "named"),
    [("blocks_0", "embed"), ("blocks_0__up", "blocks_0/attention"), ("blocks_1", "blocks_0"),
     ("blocks_1__norm", "blocks_0"), ("norm", "blocks_1"), ("logits", "norm"),
     ("blocks_0__attention__out", "blocks_0/attention"), ("embed", "embed")],
)  # fmt: skip
def test_what_is_read_at_a_wrong_scale_names_the_layer_before(reader, named):
    check = checked(lm, **{reader: {"reads": 0.5}})
    assert check.verdict.culprit.layer == named
    assert check.verdict.culprit.seen_at == reader.replace("__", "/")
    assert "reads grows like n^0.5" in check.verdict.diagnosis


@pytest.mark.parametrize(
    ("power", "words"),
    [(0.5, "divided by the root of the head size"), (1.0, "not divided by the head size")],
)
@pytest.mark.parametrize("measure", ["change_std", "size"])
def test_scores_that_grow_name_their_attention(measure, power, words):
    check = checked(lm, blocks_0__attention__scores={measure: power})
    assert check.verdict.culprit.layer == "blocks_0/attention"
    assert words in check.verdict.diagnosis


def test_a_divergence_is_a_failure_that_says_so():
    records = changed(records_of(), lambda r: r.width == 1024, "logits", change_std=(math.nan,) * 4)
    check = check_coordinates(records)
    assert check.verdict.verdict == "fail"
    assert check.verdict.layers["logits"] == "diverged"
    assert "logits diverges" in check.verdict.diagnosis
    assert "lower learning rate" in check.verdict.diagnosis


def test_before_it_diverges_a_power_can_be_told():
    records = records_of(powers={"hidden_0/kernel": {"change": 1.0}})
    records = changed(records, lambda r: r.width == 1024, "logits", change_std=(math.inf,) * 4)
    assert check_coordinates(records).verdict.culprit.tensor == "hidden_0/kernel"


# --- What is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "measure", "power", "words"),
    [
        ("hidden_0/kernel", "change", 1.0, "its update lacks the factor 1/fan_in"),
        ("hidden_0/kernel", "change", -1.0, "the factor 1/fan_in acts twice"),
        ("hidden_0/kernel", "start", 0.5, "its initial variance is not 1/fan_in"),
        ("hidden_0/bias", "change", -1.0, "a vector treated as hidden"),
        ("input/kernel", "change", -1.0, "an input matrix treated as hidden"),
        ("input/kernel", "start", -0.5, "its initial variance must not depend on the width"),
        ("readout/kernel", "change", 1.0, "logits grow like n^1.0 through readout/kernel: the "
         "readout is not multiplied by 1/fan_in, nor its learning rate"),
        ("readout/kernel", "change", -1.0, "1/fan_in acts twice"),
        ("readout/kernel", "start", 0.5, "too large by fan_in^1/2"),
        ("hidden_0/kernel", "change", 0.3, "moves like n^0.3"),
    ],
)  # fmt: skip
def test_a_power_and_the_kind_of_a_tensor_tell_a_likely_cause(tensor, measure, power, words):
    check = check_coordinates(records_of(powers={tensor: {measure: power}}))
    assert words in check.verdict.diagnosis


@pytest.mark.parametrize(("power", "words"), [(1.0, "multiplied by the width"), (-1.0, "1/fan_in")])
def test_decay_that_depends_on_the_width_is_told(power, words):
    visible = {"shrinkage": power, "start": 0.0}
    records = records_of(powers={"hidden_0/kernel": visible}, noise=0.0)
    if power < 0:
        records = [
            changed([r], everywhere, "hidden_0/kernel",
                    shrinkage=tuple(100.0 * (t + 1) / r.width for t in range(STEPS)))[0]
            for r in records
        ]  # fmt: skip
    check = check_coordinates(records)
    assert check.verdict.culprit.measure == "shrinkage"
    assert "decay of hidden_0/kernel" in check.verdict.diagnosis
    assert words in check.verdict.diagnosis


@pytest.mark.parametrize(
    ("settings", "judged"),
    [({"checksum": "ab12"}, False), ({"weight_decay": 0.0}, False), ({}, True)],
)
def test_an_optimizer_without_decay_may_shrink_tensors(settings, judged):
    """Learned ones read parameters; of the user's own nobody knows."""
    records = [
        dataclasses.replace(one, settings=settings)
        for one in records_of(powers={"hidden_0/kernel": {"shrinkage": 0.5}}, noise=0.0)
    ]
    check = check_coordinates(records)
    assert any(fit.measure == "shrinkage" for fit in check.fits) is judged


@pytest.mark.parametrize(("made_by_decay", "named"), [(1.0, True), (0.01, False)])
def test_a_decay_that_makes_most_of_a_change_is_behind_it(made_by_decay, named):
    """Else the whole update is wrong, of which decay is a part."""
    powers = {"hidden_0/kernel": {"change": 1.0, "shrinkage": 1.0}}
    records = records_of(powers=powers, noise=0.0)
    records = changed(records, everywhere, "hidden_0/kernel", spectral_start=made_by_decay)
    check = check_coordinates(records)
    assert check.verdict.culprit.measure == "change"
    assert ("the decay of hidden_0/kernel grows like n^1.0" in check.verdict.diagnosis) is named


def test_decay_is_judged_by_the_first_step_because_a_large_one_swings():
    records = []
    for one in records_of(powers={"hidden_0/kernel": {"shrinkage": 1.0}}, noise=0.0):
        swings = (one.width / 100.0, -(float(one.width) ** 2), 9.0, -9.0)
        records += changed([one], everywhere, "hidden_0/kernel", shrinkage=swings)
    check = check_coordinates(records)
    assert check.verdict.culprit.measure == "shrinkage"
    assert check.verdict.culprit.slope == pytest.approx(1.0)


def test_shrinkage_that_chance_could_make_is_not_judged():
    """A random change of that size would do as much."""
    records = records_of(powers={"hidden_0/kernel": {"change": 0.0}})
    for width in WIDTHS:
        tiny = tuple((t + 1) / width**1.5 for t in range(STEPS))
        records = changed(
            records, lambda r, w=width: r.width == w, "hidden_0/kernel", shrinkage=tiny
        )
    check = check_coordinates(records)
    assert check.passed
    assert not [fit for fit in check.fits if fit.measure == "shrinkage"]


@pytest.mark.parametrize(("gradient", "leaks"), [(-1.0, True), (0.0, False)])
def test_a_bent_fall_with_small_gradients_is_likely_an_epsilon(gradient, leaks):
    powers = {"hidden_0/kernel": {"change": -0.25, "gradient": gradient},
              "hidden_0/bias": {"gradient": gradient}}  # fmt: skip
    check = check_coordinates(records_of(powers=powers))
    assert ("epsilon" in check.verdict.diagnosis) is leaks
    if leaks:
        assert "gradients fall to 1e-03 at width 1024" in check.verdict.diagnosis
        assert "eps_scaling=1" in check.verdict.diagnosis


# --- Depths ---------------------------------------------------------------------------------------


def test_stacks_are_compared_by_position_and_what_lies_between_is_left_out():
    check = checked(deep, DEPTHS)
    assert check.verdict.axis == "depth"
    shown = list(dict.fromkeys(fit.layer for fit in check.fits))
    assert shown == [
        "embed", "blocks", "blocks[first]", "blocks[first]/up", "blocks[last]", "blocks[last]/up",
        "norm", "readout", "logits",
    ]  # fmt: skip
    assert not [f for f in check.fits if f.layer.endswith("]/up") and f.judged]
    assert "depth: no slope" in check.verdict.notes[-1]


@pytest.mark.parametrize(
    "powers",
    [
        {"blocks": {"effect": 0.5}},
        {"blocks": {"size": 0.5}, "norm": {"reads": 0.5}},
        {"blocks": {"change_std": 0.5}, "logits": {"change_std": 0.5}},
        {"blocks": {"effect": 0.5}, "norm": {"change_std": 0.5}},
    ],
)
def test_a_stream_that_grows_with_depth_names_the_stack(powers):
    check = checked(deep, DEPTHS, **powers)
    assert check.verdict.culprit.layer == "blocks"
    assert "L^0.5" in check.verdict.diagnosis
    assert "L^-1/2" in check.verdict.diagnosis


def test_what_the_first_block_puts_out_may_depend_on_the_depth():
    """Where embeddings are small, it is the first branch, which is scaled."""
    records = records_of(deep, DEPTHS)
    small = [
        changed([one], everywhere, "blocks_0", change_std=(one.depth**-0.5,) * STEPS)[0]
        for one in records
    ]
    assert check_coordinates(small).passed


def test_a_tensor_in_no_block_is_named_itself():
    check = checked(deep, DEPTHS, embed__kernel={"change": 1.0})
    assert check.verdict.culprit.tensor == "embed/kernel"
    assert "embed/kernel moves like L^1.0" in check.verdict.diagnosis


def named_by_flax(depth: int, seed: int = 0) -> CoordinateRecord:
    """Return the record of `Dense_0` (input), as many hidden layers as the depth, and a readout."""
    wobble = float(depth) ** (0.001 * (seed % 3 - 1))
    outputs = {f"Dense_{number}": layer(depth, {}, wobble=wobble) for number in range(depth + 1)}
    tensors = {
        f"Dense_{number}/kernel": dataclasses.replace(
            tensor(f"Dense_{number}", 64, {}, kind=kind, starts=kind != "output", wobble=wobble),
            effect=1.0 if kind != "hidden" else 1.0 / depth,
        )
        for number in range(depth + 2)
        for kind in [{0: "input", depth + 1: "output"}.get(number, "hidden")]
    }
    layers = {**outputs, "logits": layer(depth, {}, wobble=wobble)}
    return record(64, seed, layers, tensors, depth=depth)


def test_layers_that_flax_has_numbered_are_no_blocks_if_their_weights_are_others():
    """The first and the last of `Dense_0` ... `Dense_5`, from a depth of one on."""
    check = check_coordinates(records_of(named_by_flax, (1, *DEPTHS)))
    assert check.passed
    assert not [note for note in check.verdict.notes if "left out" in note]
    assert fit_of(check, "Dense_0/kernel", "change").judged
    assert fit_of(check, "Dense[last+1]/kernel", "change").judged
    assert fit_of(check, "Dense[last]", "change_std").judged
    assert not fit_of(check, "Dense[first]/kernel", "change").judged


def test_what_is_wrong_with_a_first_layer_that_flax_has_numbered_is_found():
    wrong = [
        changed([one], everywhere, "Dense_0/kernel", change=(float(one.depth),) * STEPS)[0]
        for one in records_of(named_by_flax, DEPTHS)
    ]
    assert check_coordinates(wrong).verdict.culprit.tensor == "Dense_0/kernel"


def test_a_network_of_nothing_but_blocks_shows_nothing_and_a_note_says_what_to_do():
    """Its last block, whose output is the logits, has no line of its own."""
    records = []
    for one in records_of(deep, DEPTHS):
        tensors = {n: t for n, t in one.tensors.items() if n.startswith("blocks")}
        layers = {n: t for n, t in one.layers.items() if n.startswith("blocks") or n == "logits"}
        layers.pop(f"blocks_{one.depth - 1}")
        records.append(dataclasses.replace(one, layers=layers, tensors=tensors))
    verdict = check_coordinates(records).verdict
    assert verdict.verdict == "not enough data"
    assert any("names of their own" in note for note in verdict.notes)


# --- On disk --------------------------------------------------------------------------------------


def test_records_come_back_from_json_as_they_went():
    records = [*records_of(mlp, WIDTHS[:1]), deep(3)]
    assert [*read_records(map(to_line, records), "memory", COORDINATE_RECORDS)] == records


def test_fits_and_verdicts_are_json_without_numbers_that_are_none():
    records = changed(records_of(), lambda r: r.width == 128, "logits", change_std=(math.inf,) * 4)
    check = check_coordinates(records)
    lines = [to_line(one) for one in (*check.fits, check.verdict, *records)]
    plain = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    (of_logits,) = [p for p in plain if p.get("layer") == "logits" and p["measure"] == "change_std"]
    assert of_logits["values"]["128"] is None
    assert of_logits["values"]["64"] > 0
    (verdict,) = [p for p in plain if p["kind"] == "coordinate-verdict"]
    assert verdict["verdict"] == "fail"
    assert verdict["culprit"]["layer"] == "logits"


def test_weights_and_logits_alone_are_enough():
    """A network without flax shows no layers."""
    records = [
        record(w, s, {"logits": one.layers["logits"]}, one.tensors)
        for w in WIDTHS
        for s in range(3)
        for one in [mlp(w, s, {"hidden_0/kernel": {"change": 1.0}})]
    ]
    check = check_coordinates(records)
    assert check.verdict.culprit.tensor == "hidden_0/kernel"
    assert list(check.verdict.layers) == ["input", "hidden_0", "hidden_1", "readout", "logits"]


def test_a_tensor_whose_layer_is_not_shown_comes_before_the_module_that_is_called_next():
    """Positions that a network itself adds."""
    records = []
    for one in records_of(lm):
        names = list(one.tensors)
        positions = dataclasses.replace(one.tensors["embed/embedding"], layer="positions")
        told = {names[0]: one.tensors[names[0]], "positions": positions}
        records.append(dataclasses.replace(one, tensors={**told, **one.tensors}))
    layers = list(check_coordinates(records).verdict.layers)
    assert layers[:3] == ["embed", "positions", "blocks_0"]
