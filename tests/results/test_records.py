"""Records become plain JSON values: whatever was measured, the line can be read by anybody."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.results.records import EvaluationRow, MetaStepRecord, ValidationRecord, to_plain
from mulo_cli.results.store import to_line

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

ROW = EvaluationRow(
    optimizer="adamw", parametrization="sp", task="mlp", dataset="digits", real=True, width=8,
    depth=3, batch_size=16, seed=0, steps=3, window=2, smoothed_loss=None, status="diverged",
    diverged_at=2, test_accuracy=0.1, curve_every=1, curve=(2.3, NAN, -INF),
    seconds_per_step=1e-4, code_version="0.1.0",
)  # fmt: skip


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
    assert (plain["seconds_per_step"], plain["seed"], plain["smoothed_loss"]) == (1e-4, 0, None)


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
