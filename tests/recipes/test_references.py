"""Short spellings on the command line: read as meant, or refused with an example."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulo_cli.errors import UsageError
from mulo_cli.recipes.references import (
    MAX_WIDTHS,
    WORDS,
    OptimizerReference,
    parse_optimizer,
    parse_steps,
    parse_widths,
)


@pytest.mark.parametrize(
    ("text", "name", "given_settings"),
    [
        ("adamw", "adamw", {}),
        ("adamw:learning_rate=1e-3", "adamw", {"learning_rate": 1e-3}),
        ("adamw:b1=0.95,weight_decay=0", "adamw", {"b1": 0.95, "weight_decay": 0.0}),
        ("adamw: b1 = .5 , b2 = .9", "adamw", {"b1": 0.5, "b2": 0.9}),
        ("runs/desk", "runs/desk", {}),
        ("runs/at 12:30", "runs/at 12:30", {}),
        ("C:/runs/a:learning_rate=2", "C:/runs/a", {"learning_rate": 2.0}),
        ("runs/a=b", "runs/a=b", {}),
    ],
)
def test_an_optimizer_is_a_name_or_a_path_and_settings(text, name, given_settings):
    assert parse_optimizer(text) == OptimizerReference(text, name, given_settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "adamw:preset=paper/imagenet32-vit:schedule=warmup-cosine",
            {"preset": "paper/imagenet32-vit", "schedule": "warmup-cosine"},
        ),
        (
            "adamw:preset=paper/x,schedule=warmup-cosine,b1=0.5",
            {"preset": "paper/x", "schedule": "warmup-cosine", "settings": {"b1": 0.5}},
        ),
        ("muadam:tuned=runs/best.json", {"tuned": "runs/best.json"}),
        ("muadam:tuned=C:/my runs/a:b,c.json", {"tuned": "C:/my runs/a:b,c.json"}),
        (
            "adamw : b1=.5 : parametrization = mup",
            {"name": "adamw ", "settings": {"b1": 0.5}, "parametrization": "mup"},
        ),
        (
            "runs/at 12:30:parametrization=sp",
            {"name": "runs/at 12:30", "parametrization": "sp"},
        ),
        (
            "C:/runs/a:b1=1:tuned=x:b2=1e-1",
            {"name": "C:/runs/a", "settings": {"b1": 1.0, "b2": 0.1}, "tuned": "x"},
        ),
    ],
)
def test_some_settings_are_words_and_a_further_colon_is_a_comma(text, expected):
    name = text.partition(":")[0]
    assert parse_optimizer(text) == OptimizerReference(text, **{"name": name, **expected})


@pytest.mark.parametrize(
    "text",
    [
        "adamw:learning_rate=",
        "adamw:learning_rate=fast",
        "adamw:learning_rate=nan",
        "adamw:learning_rate=inf",
        "adamw:learning_rate=-1e999",
        "adamw:b1=0.9,",
        "adamw:b1=0.9:",
        "adamw:b1=0.9,b2",
        "adamw:preset=",
        "adamw:tuned= ,b1=0.9",
        "adamw:schedule=:b1=0.9",
        "a:=1",
        "a:b1=1,=2",
    ],
)
def test_a_setting_without_a_finite_number_or_a_word_is_refused_with_an_example(text):
    with pytest.raises(UsageError) as caught:
        parse_optimizer(text)
    assert repr(text) in caught.value.message
    assert "learning_rate=1e-3" in caught.value.hint


@pytest.mark.parametrize("border", [",", ":"])
@pytest.mark.parametrize("key", ["b1", *WORDS])
def test_a_key_that_is_given_twice_is_refused_by_its_name(key, border):
    with pytest.raises(UsageError, match=repr(key)):
        parse_optimizer(f"adamw:{key}=1{border}weight_decay=0{border}{key}=2")


@pytest.mark.parametrize(
    ("text", "widths"),
    [
        ("128", (128,)),
        ("128,512,1024", (128, 512, 1024)),
        ("512, 128", (128, 512)),
        ("128,128", (128,)),
        ("128..1024", (128, 256, 512, 1024)),
        ("128..8192:x4", (128, 512, 2048, 8192)),
        ("128..1000", (128, 256, 512)),
        ("7..7", (7,)),
        ("8,16..64:x2,100", (8, 16, 32, 64, 100)),
    ],
)
def test_widths_are_lists_and_ranges(text, widths):
    assert parse_widths(text) == widths


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "128,", "wide", "0", "-8", "1.5", "1e3", "+8", "²", "128..", "..128", "256..128",
        "8..64:x1", "8..64:x0", "8..64:4", "8..64:", "8..64:x", "8..16..32", "128..256:x2:x2",
    ],
)  # fmt: skip
def test_other_widths_are_refused_with_an_example(text):
    with pytest.raises(UsageError) as caught:
        parse_widths(text)
    assert repr(text) in caught.value.message
    assert "128..8192" in caught.value.hint


def test_there_is_an_end_to_how_many_widths_one_may_ask_for():
    everything = ",".join(str(i + 1) for i in range(MAX_WIDTHS))
    assert len(parse_widths(everything)) == MAX_WIDTHS
    with pytest.raises(UsageError, match=str(MAX_WIDTHS + 1)):
        parse_widths(f"{everything},{MAX_WIDTHS + 1}")


@pytest.mark.parametrize("text", ["9" * 5_000, f"1..{'9' * 5_000}"], ids=["alone", "in a range"])
def test_a_number_of_thousands_of_digits_is_refused_and_not_an_accident(text):
    with pytest.raises(UsageError):
        parse_widths(text)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("100", (100,)),
        ("100,300,1000", (100, 300, 1000)),
        ("1000, 300 ,1000,1", (1, 300, 1000)),
        ("007", (7,)),
    ],
)
def test_steps_are_a_list_in_any_order(text, steps):
    assert parse_steps(text, "--at") == steps


@pytest.mark.parametrize(
    "text", ["", ",", "100,", "last", "0", "-8", "1.5", "1e3", "+8", "²", "1..8", "9" * 5_000]
)
def test_other_steps_are_refused_with_the_option_and_an_example(text):
    with pytest.raises(UsageError) as caught:
        parse_steps(text, "--at")
    assert caught.value.message.startswith("--at '")
    assert len(caught.value.message) < 300
    assert "--at 100,300,1000" in caught.value.hint


def outcome(parse, text: str):
    """Return what a parser makes of a text: its result or its refusal; nothing else may escape."""
    try:
        return parse(text)
    except UsageError as error:
        return error


PIECES = st.lists(
    st.sampled_from(
        ["128", "8192", "..", ":", "x", "4", ",", " ", "=", "adamw", "1e-3", "b1", "-", *WORDS]
    ),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(max_size=20) | PIECES)
def test_any_text_is_an_optimizer_or_a_usage_error(text):
    reference = outcome(parse_optimizer, text)
    if isinstance(reference, UsageError):
        assert reference.hint
        return
    assert reference.text == text
    assert text.startswith(reference.name)
    assert all(math.isfinite(value) for value in reference.settings.values())
    assert all(type(value) is float for value in reference.settings.values())
    assert not reference.settings.keys() & set(WORDS)
    for word in WORDS:
        value = getattr(reference, word)
        assert value is None or value in text.partition(word)[2]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(max_size=20) | PIECES)
def test_any_text_is_widths_or_a_usage_error(text):
    widths = outcome(parse_widths, text)
    if isinstance(widths, UsageError):
        assert widths.hint
        return
    assert list(widths) == sorted(set(widths))
    assert min(widths) > 0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    numbers=st.dictionaries(
        st.sampled_from(["learning_rate", "b1", "b2", "eps"]),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    words=st.dictionaries(
        st.sampled_from(WORDS), st.sampled_from(["mup", "a/b", "C:/x y.json", "warmup-cosine"])
    ),
    data=st.data(),
)
def test_writing_settings_down_in_any_order_and_reading_them_changes_nothing(numbers, words, data):
    items = [f"{key}={value!r}" for key, value in numbers.items()]
    items = data.draw(st.permutations(items + [f"{key}={value}" for key, value in words.items()]))
    text = "adamw" + "".join(
        f"{':' if i == 0 else data.draw(st.sampled_from(',:'))}{item}"
        for i, item in enumerate(items)
    )
    assert parse_optimizer(text) == OptimizerReference(text, "adamw", numbers, **words)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(widths=st.sets(st.integers(1, 10**6), min_size=1, max_size=MAX_WIDTHS))
def test_writing_widths_down_and_reading_them_changes_nothing(widths):
    assert parse_widths(",".join(map(str, widths))) == tuple(sorted(widths))
