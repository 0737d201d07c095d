"""Records become plain JSON values: whatever was measured, the line can be read by anybody."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.results.records import (
    EvaluationIdentity,
    EvaluationRow,
    MetaStepRecord,
    SuitePlace,
    ValidationRecord,
    content_hash,
    to_plain,
)
from mulo_cli.results.store import read_rows, to_line
from tests.results.evaluation_rows import evaluation_row

NAN, INF = math.nan, math.inf


def meta_step(**changes) -> MetaStepRecord:
    record = MetaStepRecord(
        step=3,
        meta_loss={"a": 2.25, "b": 1.5},
        gradient_norm=0.5,
        signal_to_noise={"a": 1.25},
        perturbation_norm={"a": 0.125},
        diverged_pairs={"a": 0},
        inner_steps_per_second=1e3,
    )
    return dataclasses.replace(record, **changes)


VALIDATION = ValidationRecord(5, {"a": 1.0}, {"a": INF}, best=True)

ROW = evaluation_row(
    "adamw", {2: 0.5, 3: None}, steps=3, window=2, diverged_at=3, curve=(2.3, NAN, -INF)
)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_number_that_is_not_finite_becomes_null_wherever_it_stands(value):
    plain = to_plain(meta_step(gradient_norm=value, meta_loss={"a": value, "b": 1.5}))
    assert plain["gradient_norm"] is None
    assert plain["meta_loss"] == {"a": None, "b": 1.5}
    assert to_plain(ROW)["curve"] == [2.3, None, None]


@pytest.mark.parametrize("record", [meta_step(), VALIDATION, ROW], ids=lambda r: r.kind)
def test_every_record_says_its_kind_and_every_field_in_one_line(record):
    line = to_line(record)
    assert "\n" not in line
    found = json.loads(line, parse_constant=pytest.fail)
    assert found.keys() == {field.name for field in dataclasses.fields(record)}
    assert found["kind"] == record.kind


def test_kinds_tell_records_apart():
    kinds = {record.kind for record in (meta_step(), VALIDATION, ROW)}
    assert kinds == {"meta-step", "validation", "evaluation"}


def test_finite_numbers_truths_and_words_come_through_as_they_are():
    plain = to_plain(ROW)
    assert plain["real"] is True
    assert plain["status"] == "diverged"
    assert (plain["seconds_per_step"], plain["seed"], plain["recipe_digest"]) == (1e-4, 0, None)
    assert (plain["at"], plain["smoothed_loss"]) == ([2, 3], {"2": 0.5, "3": None})


def test_a_record_is_frozen_and_stays_as_it_was():
    record = meta_step(meta_loss={"a": NAN})
    to_plain(record)
    assert math.isnan(record.meta_loss["a"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.step = 4


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    losses=st.dictionaries(st.text(max_size=8), st.floats(), max_size=3),
    norm=st.floats(),
    step=st.integers(0, 10**12),
)
def test_what_is_read_back_is_what_was_measured(losses, norm, step):
    found = json.loads(to_line(meta_step(meta_loss=losses, gradient_norm=norm, step=step)))
    finite = {key: value if math.isfinite(value) else None for key, value in losses.items()}
    assert found["meta_loss"] == finite
    assert found["gradient_norm"] == (norm if math.isfinite(norm) else None)
    assert found["step"] == step


# --- Rows and their identities --------------------------------------------------------------------

IDENTITY_FIELDS = [field.name for field in dataclasses.fields(EvaluationIdentity)]
PLACE_FIELDS = [field.name for field in dataclasses.fields(SuitePlace)]
TRAINED_FIELDS = [name for name in IDENTITY_FIELDS if name not in PLACE_FIELDS]

OTHER = {
    "optimizer": "adamw:b1=0.5",
    "settings": {"learning_rate": 0.02},
    "parametrization": "mup",
    "recipe_digest": "f00d",
    "task": "vit",
    "dataset": "imagenet32",
    "real": False,
    "width": 17,
    "depth": 4,
    "batch_size": 65,
    "seed": 1,
    "steps": 501,
    "at": (400, 500),
    "window": 49,
    "code_version": "0.2.0",
    "data": "ca5cade",
    "suite": "paper",
    "suite_task": "mlp-c10-3-128",
    "family": "mlp-c10",
    "sizes": ("base",),
}
"""Another value for every field of an identity."""

OTHER_RESULTS = {
    "smoothed_loss": {500: 2.0},
    "status": "diverged",
    "diverged_at": 7,
    "test_accuracy": None,
    "curve_every": 5,
    "curve": (NAN,),
    "parameters": 1,
    "optimizer_state_bytes": 1,
    "seconds_per_step": 9.0,
}


def identity_of(row: EvaluationRow) -> EvaluationIdentity:
    return EvaluationIdentity(**{name: getattr(row, name) for name in IDENTITY_FIELDS})


def test_a_row_has_the_hash_of_its_identity():
    for row in (ROW, evaluation_row("adamw")):
        assert content_hash(row) == content_hash(identity_of(row))
        assert len(content_hash(row)) == 64


def test_every_field_is_part_of_an_identity_or_a_result():
    fields = {field.name for field in dataclasses.fields(EvaluationRow)}
    assert OTHER.keys() == set(IDENTITY_FIELDS)
    assert fields == OTHER.keys() | OTHER_RESULTS.keys() | {"kind"}
    assert [f.name for f in dataclasses.fields(EvaluationRow)][: len(OTHER)] == IDENTITY_FIELDS


@pytest.mark.parametrize("name", TRAINED_FIELDS)
def test_rows_that_differ_in_what_was_trained_have_different_hashes(name):
    identity = identity_of(evaluation_row("adamw"))
    other = dataclasses.replace(identity, **{name: OTHER[name]})
    assert content_hash(other) != content_hash(identity)


@pytest.mark.parametrize("name", PLACE_FIELDS)
def test_where_a_training_counts_does_not_change_its_hash(name):
    row = evaluation_row("adamw")
    other = dataclasses.replace(row, **{name: OTHER[name]})
    assert other.place != row.place
    assert content_hash(other) == content_hash(row)


@pytest.mark.parametrize("name", OTHER_RESULTS)
def test_what_came_out_does_not_change_the_hash(name):
    row = evaluation_row("adamw")
    other = dataclasses.replace(row, **{name: OTHER_RESULTS[name]})
    assert other != row
    assert content_hash(other) == content_hash(row)


def test_the_order_in_which_settings_are_told_does_not_change_the_hash():
    one, other = {"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}
    hashes = {content_hash(evaluation_row("x", settings=settings)) for settings in (one, other)}
    assert len(hashes) == 1


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    optimizer=st.text(),
    given_settings=st.dictionaries(st.text(), FINITE | st.text()),
    losses=st.dictionaries(st.integers(1, 10**9), FINITE | st.none(), min_size=1, max_size=4),
    digest=st.none() | st.text(),
)
def test_a_row_is_read_back_as_it_was_with_the_same_hash(optimizer, given_settings, losses, digest):
    row = evaluation_row(
        optimizer, losses, settings=given_settings, recipe_digest=digest, curve=(1.5, None)
    )
    (found,) = read_rows([to_line(row)], "memory")
    assert found == row
    assert content_hash(found) == content_hash(row)


@pytest.mark.parametrize("at", [(), (499,), (400, 500)])
def test_a_row_tells_losses_at_the_steps_that_were_asked_for_and_no_others(at):
    with pytest.raises(ValueError, match="at = "):
        evaluation_row("adamw", {500: 1.0}, at=at)


def test_the_final_loss_is_that_of_the_last_step_asked_for():
    assert evaluation_row("adamw", {500: 1.0, 100: 2.0}).final_loss == 1.0
    assert evaluation_row("adamw", {100: 2.0, 500: None}).final_loss is None
