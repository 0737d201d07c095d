"""Recipes: what ships is the papers' setting, and anything else is resolved or refused in words."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulo_cli.errors import RecipeError
from mulo_cli.recipes.loading import library_names, load_recipe, parse_recipe, to_toml
from mulo_cli.recipes.schema import (
    ARCHITECTURES,
    WITHOUT_EFFECT,
    Recipe,
    as_dict,
    differences,
    digest,
    flatten,
    known_keys,
)

SCALES, PARAMETRIZATIONS = ("desk", "paper"), ("mup", "sp")
ASSETS = Path(__file__).parent.parent.parent / "assets"


def refused(*arguments, **options) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe(*arguments, **options)
    assert caught.value.hint
    return caught.value


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a recipe file and returns its path as users give it."""

    def write(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text, "utf-8")
        return str(tmp_path / name)

    return write


# --- The library ----------------------------------------------------------------------------------


def test_the_library_has_the_recipes_of_the_paper():
    assert library_names() == ["multi-width", "single-width", "velo-multi-width"]


def keys_of(architecture: str) -> list[str]:
    """Return the keys of a complete recipe for one architecture."""
    own = {f"optimizer.{field.name}" for field in dataclasses.fields(ARCHITECTURES[architecture])}
    return [key for key in known_keys() if not key.startswith("optimizer.") or key in own]


@pytest.mark.parametrize("name", library_names())
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_every_library_recipe_resolves_at_both_scales_and_parametrizations(
    name, scale, parametrization
):
    recipe = load_recipe(name, scale, parametrization)
    assert (recipe.name, recipe.scale, recipe.parametrization) == (name, scale, parametrization)
    assert flatten(as_dict(recipe)).keys() == set(keys_of(recipe.optimizer.architecture))


@pytest.mark.parametrize("name", library_names())
def test_without_a_word_it_is_the_desk_recipe_under_mup(name):
    assert load_recipe(name) == load_recipe(name, "desk", "mup")


PAPER = {
    # appendix C: small_fc_lopt of 32 units, lambda_1 = 0.01, lambda_2 = 0.001
    "optimizer.architecture": "small_fc_lopt",
    "optimizer.hidden_size": 32,
    "optimizer.step_size": 0.01,
    "optimizer.magnitude_scale": 0.001,
    "optimizer.time_feature": "offset",
    "optimizer.base_fan_in": 1,
    # three hidden layers on ImageNet 32x32x3, batch 4096
    "task.dataset": "imagenet32",
    "task.optimizee": "mlp",
    "task.depth": 3,
    "task.batch_size": 4096,
    # PES: K = 50, N = 8, sigma = 0.01, horizons in [100, 1000]
    "estimator.name": "pes",
    "estimator.truncation": 50,
    "estimator.pairs": 8,
    "estimator.sigma": 0.01,
    "estimator.min_horizon": 100,
    "estimator.max_horizon": 1000,
    # AdamW: warm-up of 100 steps to 3e-3, cosine to 1e-3, 5 000 steps, decay 1e-4, clipped at 1
    "meta_optimizer.steps": 5_000,
    "meta_optimizer.warmup_steps": 100,
    "meta_optimizer.learning_rate": 3e-3,
    "meta_optimizer.final_learning_rate": 1e-3,
    "meta_optimizer.weight_decay": 1e-4,
    "meta_optimizer.clip_norm": 1.0,
    "meta_optimizer.clip": "gradient",
}

VELO_PAPER = {key: value for key, value in PAPER.items() if not key.startswith("optimizer.")} | {
    # the released configuration of muVeLO
    "optimizer.architecture": "velo",
    "optimizer.hidden_size": 4,
    "optimizer.lstm_size": 16,
    "optimizer.bank_size": 8,
    "optimizer.step_size": 0.001,
    "optimizer.magnitude_scale": 0.001,
    "optimizer.fraction_left": "offset",
    "optimizer.interpolation_scale": 1.0,
    "optimizer.parameter_scale": False,
    "optimizer.loss_feature_horizon": 0,
    "optimizer.base_fan_in": 1,
    "task.widths": [128, 512, 1024],
    # K = 20 and nine times as many meta-steps
    "estimator.truncation": 20,
    "meta_optimizer.steps": 45_000,
}


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_paper_scale_of_velo_is_what_the_paper_says_under_both_parametrizations(parametrization):
    recipe = flatten(as_dict(load_recipe("velo-multi-width", "paper", parametrization)))
    assert {key: recipe[key] for key in VELO_PAPER} == VELO_PAPER


@pytest.mark.parametrize(
    ("name", "widths"), [("multi-width", [128, 512, 1024]), ("single-width", [128])]
)
@pytest.mark.parametrize(("parametrization", "step_size"), [("mup", 0.01), ("sp", 0.001)])
def test_the_paper_scale_is_the_papers_setting_to_the_letter(
    name, widths, parametrization, step_size
):
    found = flatten(as_dict(load_recipe(name, "paper", parametrization)))
    expected = {**PAPER, "task.widths": widths, "optimizer.step_size": step_size}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", library_names())
def test_the_desk_scale_runs_on_data_that_is_always_there(name):
    assert load_recipe(name, "desk").task.dataset == "digits"


# --- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", library_names())
@pytest.mark.parametrize("scale", SCALES)
def test_a_recipe_written_as_toml_is_read_back_as_the_same_recipe(name, scale, write):
    recipe = load_recipe(name, scale, "sp")
    again = load_recipe(write(to_toml(recipe)))
    assert again == recipe
    assert digest(again) == digest(recipe)


def test_names_with_quotes_and_letters_of_the_field_survive_the_round_trip(write):
    recipe = dataclasses.replace(load_recipe("multi-width"), name='µ "n"\\', description="é\n\t''")
    assert load_recipe(write(to_toml(recipe))) == recipe


def test_a_file_may_extend_a_recipe_and_change_a_few_settings(write):
    path = write('extends = "multi-width"\nname = "mine"\n[task]\nwidths = [8]\n')
    mine, base = load_recipe(path, "paper"), load_recipe("multi-width", "paper")
    changed = {line.split(":")[0] for line in differences(as_dict(base), as_dict(mine))}
    assert changed == {"name", "task.widths"}


def test_files_extend_files_and_the_last_word_wins(write):
    first = write('extends = "multi-width"\nseed = 1\n[optimizer]\nstep_size = 0.5\n', "a.toml")
    second = write(f'extends = "{first}"\nseed = 2\n', "b.toml")
    recipe = load_recipe(second, "paper")
    assert (recipe.seed, recipe.optimizer.step_size, recipe.optimizer.hidden_size) == (2, 0.5, 32)


def test_variants_are_laid_over_in_order_scale_parametrization_both(write):
    path = write(
        'extends = "multi-width"\n[variants.desk]\nseed = 1\n[variants.sp]\nseed = 2\n'
        "[variants.desk-sp]\nseed = 3\n"
    )
    assert load_recipe(path, "desk", "mup").seed == 1
    assert load_recipe(path, "paper", "sp").seed == 2
    assert load_recipe(path, "desk", "sp").seed == 3
    assert load_recipe(path, "desk", "sp", ["seed=4"]).seed == 4


def test_a_recipe_that_extends_itself_is_refused_with_the_way_round(write, tmp_path):
    paths = [str(tmp_path / f"{name}.toml") for name in "abc"]
    for path, parent in zip(paths, [*paths[1:], paths[0]], strict=True):
        Path(path).write_text(f'extends = "{parent}"\n')
    message = refused(paths[0]).message
    assert "extends itself" in message
    assert " -> ".join(paths) in message
    itself = write(f'extends = "{tmp_path / "d.toml"}"\n', "d.toml")
    assert "extends itself" in refused(itself).message


@pytest.mark.parametrize(
    ("reference", "said", "hinted"),
    [
        ("multi-with", "no recipe 'multi-with'", "'multi-width'"),
        ("", "no recipe ''", "path of a TOML file"),
        ("nowhere/mine.toml", "cannot be read", "multi-width"),
        ("/", "cannot be read", "readable TOML file"),
        ("a\0b.toml", "a\\x00b.toml", ""),
        ("a" * 5_000, "aaa", ""),
    ],
)
def test_a_recipe_that_is_not_there_is_refused(reference, said, hinted):
    error = refused(reference)
    assert said in error.message
    assert hinted in error.hint


def test_a_scale_that_a_recipe_does_not_have_is_refused_with_those_it_has(write):
    error = refused(write('extends = "multi-width"\n'), "huge")
    assert "'huge'" in error.message
    assert "desk" in error.hint
    assert "paper" in error.hint


def test_an_incomplete_recipe_says_what_is_missing_and_where_to_start():
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"name": "mine"}, "mine.toml")
    assert "lacks" in caught.value.message
    assert "extends" in caught.value.hint


EXTENDS = 'extends = "multi-width"\n'
BAD_FILES = {
    "not TOML": "name = ",
    "a key twice": "seed = 1\nseed = 2\n",
    "extends a number": "extends = 3\n",
    "extends a null byte": 'extends = "\\u0000"\n',
    "variants a number": EXTENDS + "variants = 3\n",
    "variants a list of tables": EXTENDS + "[[variants]]\nseed = 1\n",
    "a variant a number": 'extends = "single-width"\n[variants]\nmup = 3\n',
    "scale a list": EXTENDS + "scale = [1]\n",
    "scale a table": EXTENDS + "[scale]\na = 1\n",
    "scale unknown": EXTENDS + 'scale = "vast"\n',
    "parametrization a list": EXTENDS + 'parametrization = ["mup"]\n',
    "a section a number": EXTENDS + "estimator = 3\n",
    "a section a list of tables": EXTENDS + "[[estimator]]\nsigma = 3\n",
    "a setting a table": EXTENDS + "[seed]\na = 1\n",
    "a setting an empty table": EXTENDS + "[seed]\n",
    "a date": EXTENDS + "seed = 2020-01-01\n",
    "a number of thousands of digits": EXTENDS + f"seed = {'9' * 5_000}\n",
    "a deep list": EXTENDS + f"seed = {'[' * 5_000}\n",
}


@pytest.mark.parametrize("text", BAD_FILES.values(), ids=BAD_FILES)
@pytest.mark.parametrize("overrides", [(), ("estimator.sigma=0.1",)], ids=["plain", "--set"])
def test_a_malformed_file_is_refused_and_never_an_accident(text, overrides, write):
    refused(write(text), overrides=overrides)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in refused(str(tmp_path / "mine.toml")).message


# --- Overrides ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("meta_optimizer.steps=50", 50),
        (" seed = 7 ", 7),
        ("optimizer.step_size=1", 1.0),
        ("optimizer.step_size=1e-3", 1e-3),
        ("optimizer.clip_gradients=true", True),
        ("task.widths=[8, 16]", [8, 16]),
        ("task.dataset=synthetic/imagenet32", "synthetic/imagenet32"),
        ('task.dataset="digits"', "digits"),
        ("description=two words = fine", "two words = fine"),
        ("meta_optimizer.warmup_steps=0", 0),
    ],
)
def test_an_override_sets_one_value_of_the_right_type(override, value):
    recipe = load_recipe("multi-width", "desk", overrides=[override])
    found = flatten(as_dict(recipe))[override.split("=")[0].strip()]
    assert found == value
    assert type(found) is type(value)


def test_of_two_overrides_the_last_wins_and_the_library_stays_as_it_is():
    before = load_recipe("multi-width")
    assert load_recipe("multi-width", overrides=["seed=1", "seed=2"]).seed == 2
    assert load_recipe("multi-width") == before


@pytest.mark.parametrize("override", ["", "seed", "=3", " = 3", "seed 3"])
def test_an_override_of_another_form_is_refused_with_an_example(override):
    error = refused("multi-width", overrides=[override])
    assert repr(override) in error.message
    assert "meta_optimizer.steps=50" in error.hint


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("meta_optimizer.step", "'meta_optimizer.steps'"),
        ("hidden_size", "'optimizer.hidden_size'"),
        ("task.width", "'task.widths'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(key, nearest):
    error = refused("multi-width", overrides=[f"{key}=1"])
    assert repr(key) in error.message
    assert nearest in error.hint


def test_an_unknown_key_in_a_file_is_refused_with_the_nearest_known_one(write):
    error = refused(write('extends = "multi-width"\n[estimator]\nsigmas = 0.1\n'))
    assert "'estimator.sigmas'" in error.message
    assert "'estimator.sigma'" in error.hint


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "seed=4294967296",
        "seed=true",
        "seed=1.0",
        "meta_optimizer.steps=0",
        "meta_optimizer.steps=5.5",
        "meta_optimizer.steps=many",
        "meta_optimizer.learning_rate=0",
        "meta_optimizer.learning_rate=nan",
        "meta_optimizer.learning_rate=inf",
        "meta_optimizer.weight_decay=-1e-4",
        "estimator.sigma=-0.1",
        "estimator.sigma='0.1'",
        "task.widths=[]",
        "task.widths=[8, 0]",
        "task.widths=8",
        "task.widths=[8.5]",
        "optimizer.clip_gradients=1",
        "optimizer.time_feature=paper",
        "parametrization=ntk",
        "checkpoint.every=0",
    ],
)
def test_a_value_out_of_bounds_or_of_another_type_is_refused_by_its_key(override):
    error = refused("multi-width", "desk", overrides=[override])
    key = override.split("=")[0]
    assert key in error.message
    assert key in error.hint
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("estimator.pairs_per_block=3", "pairs_per_block = 3 does not divide pairs = 8"),
        ("estimator.min_horizon=2000", "min_horizon = 2000 is above max_horizon = 1000"),
        ("meta_optimizer.warmup_steps=5000", "leaves nothing of steps = 5000"),
        ("validation.window=1001", "window = 1001 is longer than steps = 1000"),
    ],
)
def test_values_that_contradict_each_other_are_refused(override, said):
    assert said in refused("multi-width", "paper", overrides=[override]).message


# --- What counts as the same ----------------------------------------------------------------------


def changed(recipe: Recipe, key: str) -> Recipe:
    """Return a recipe that differs in one setting, whatever it is."""
    values = copy.deepcopy(as_dict(recipe))
    *sections, last = key.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    old = inner[last]
    other = {
        "scale": "desk", "parametrization": "sp", "optimizer.time_feature": "plain",
        "optimizer.fraction_left": "plain", "meta_optimizer.clip": "update",
        "estimator.pairs_per_block": 4, "estimator.pairs": 16,
        "task.matmul_precision": "bfloat16",
    }  # fmt: skip
    if key in other:
        inner[last] = other[key]
    elif isinstance(old, bool):
        inner[last] = not old
    elif isinstance(old, int | float):
        inner[last] = old + 1
    else:
        inner[last] = [*old, 7] if isinstance(old, list) else f"{old}!"
    return parse_recipe(values, "changed")


@pytest.mark.parametrize(
    ("name", "key"),
    [("multi-width", key) for key in keys_of("small_fc_lopt")]
    + [("velo-multi-width", key) for key in keys_of("velo") if key.startswith("optimizer.")],
)
def test_every_setting_with_an_effect_is_in_the_digest_and_in_the_differences(name, key):
    if key == "optimizer.architecture":
        pytest.skip("another architecture has other settings: the next test")
    recipe = load_recipe(name, "paper", "mup")
    other = changed(recipe, key)
    assert other != recipe
    counts = key.split(".")[0] not in WITHOUT_EFFECT
    assert (digest(other) != digest(recipe)) is counts
    named = differences(as_dict(recipe), as_dict(other))
    assert [line.split(": ")[0] for line in named] == [key] * counts
    assert all(" -> " in line for line in named)


def test_a_recipe_tells_the_precision_of_products_and_older_ones_that_do_not_mean_float32():
    assert load_recipe("multi-width").task.matmul_precision == "float32"
    chosen = load_recipe("multi-width", overrides=["task.matmul_precision=bfloat16"])
    assert chosen.task.matmul_precision == "bfloat16"
    older = as_dict(chosen)
    del older["task"]["matmul_precision"]
    assert parse_recipe(older, "older") == load_recipe("multi-width")
    error = refused("multi-width", overrides=["task.matmul_precision=float16"])
    assert "'float32' or 'bfloat16'" in error.message


def test_a_recipe_from_before_there_was_a_choice_of_precision_keeps_its_digest():
    card = json.loads((ASSETS / "muvelo-m-desk" / "card.json").read_text("utf-8"))
    assert "matmul_precision" not in card["recipe"]["task"]
    assert digest(parse_recipe(card["recipe"], "card")) == card["recipe_digest"]
    assert digest(load_recipe("velo-multi-width", "desk")) == card["recipe_digest"]


def test_another_architecture_is_a_difference_and_so_are_its_settings():
    small_fc, velo = (as_dict(load_recipe(name)) for name in ("multi-width", "velo-multi-width"))
    named = differences(small_fc, velo)
    assert "optimizer.architecture: 'small_fc_lopt' -> 'velo'" in named
    assert "optimizer.lstm_size: None -> 16" in named
    assert "optimizer.clip_gradients: False -> None" in named


def test_a_setting_of_another_architecture_is_refused_as_such():
    error = refused("velo-multi-width", overrides=["optimizer.time_feature=plain"])
    assert "optimizer.time_feature" in error.message
    assert "not a setting of velo" in error.message


def test_an_unknown_architecture_is_refused_with_the_nearest_known_one():
    error = refused("velo-multi-width", overrides=["optimizer.architecture=velo2"])
    assert "unknown architecture 'velo2'" in error.message
    assert "'velo'" in error.hint


def test_a_recipe_without_an_architecture_lacks_it(write):
    text = to_toml(load_recipe("velo-multi-width")).replace('architecture = "velo"\n', "")
    error = refused(write(text))
    assert "lacks optimizer.architecture" in error.message


def test_only_words_and_savings_are_without_effect():
    free = [key for key in known_keys() if key.split(".")[0] in WITHOUT_EFFECT]
    assert free == ["description", "checkpoint.every", "checkpoint.keep"]


def test_a_setting_that_is_gone_or_new_is_a_difference():
    recipe = as_dict(load_recipe("multi-width"))
    older = {key: value for key, value in recipe.items() if key != "seed"}
    assert differences(older, recipe) == ["seed: None -> 0"]
    assert differences(recipe, older) == ["seed: 0 -> None"]
    assert differences(recipe, recipe) == []


# --- Any text -------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    sorted({"extends", "variants", "desk", "mup", "desk-mup", *".".join(known_keys()).split(".")})
)
LEAVES = (
    st.integers(-(2**40), 2**40)
    | st.floats()
    | st.booleans()
    | st.dates()
    | st.text(max_size=5)
    | st.sampled_from(["multi-width", "single-width", "desk", "paper", "mup", "sp", "/", "."])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=5)


def recipe_or_refusal(path: Path, content: str, overrides: list[str]):
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    try:
        outcome = load_recipe(str(path), overrides=overrides)
    except RecipeError as error:
        outcome = error
    if isinstance(outcome, RecipeError):
        assert outcome.message
        assert outcome.hint
        return
    values = flatten(as_dict(outcome)).values()
    assert all(math.isfinite(value) for value in values if type(value) is float)


FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(text=st.text(max_size=60))
def test_any_text_is_a_recipe_or_a_recipe_error(text, tmp_path):
    recipe_or_refusal(tmp_path / "fuzz.toml", text, [])


@FUZZ
@given(table=TABLES, extends=st.booleans())
def test_any_table_is_a_recipe_or_a_recipe_error(table, extends, tmp_path):
    values = {"extends": "multi-width", **table} if extends else table
    recipe_or_refusal(tmp_path / "fuzz.toml", tomli_w.dumps(values), [])


@FUZZ
@given(key=st.sampled_from(known_keys()) | st.text(max_size=5), value=st.text(max_size=10) | LEAVES)
def test_any_override_is_a_recipe_or_a_recipe_error(key, value, tmp_path):
    recipe_or_refusal(tmp_path / "fuzz.toml", 'extends = "multi-width"\n', [f"{key}={value}"])


def test_a_slip_in_a_variant_that_was_not_chosen_is_refused_too(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('extends = "multi-width"\n[variants.paper.task]\nwidth = [8]\n')
    with pytest.raises(RecipeError, match=r"task\.width") as refused:
        load_recipe(str(recipe), "desk")
    assert "task.widths" in refused.value.hint


def test_setting_a_whole_section_lists_its_keys():
    with pytest.raises(RecipeError) as refused:
        load_recipe("multi-width", overrides=["validation=3"])
    assert "validation.every" in refused.value.hint


@pytest.mark.parametrize("scale", ["desk", "paper"])
def test_what_a_recipe_says_itself_wins_over_the_variants_of_what_it_extends(tmp_path, scale):
    recipe = tmp_path / "narrow.toml"
    recipe.write_text('extends = "multi-width"\nname = "narrow"\n[task]\nwidths = [8, 16]\n')
    resolved = load_recipe(str(recipe), scale)
    assert resolved.task.widths == [8, 16]
    assert resolved.task.dataset == load_recipe("multi-width", scale).task.dataset


def test_a_width_that_is_named_twice_is_refused():
    with pytest.raises(RecipeError, match="twice"):
        load_recipe("multi-width", overrides=["task.widths=[8,8]"])
