"""Suites: the papers' has the papers' tasks, and a file of one's own is read, cut or refused."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from mulo_cli.errors import RecipeError, UsageError
from mulo_cli.recipes.references import parse_named
from mulo_cli.recipes.suites import Suite, load_suite, select, with_length

OWN = """
name = "own"
description = "two tasks"
source = "a test"
steps = 100
at = [50, 100]
seeds = 2
window = 10

[families]
mlp = { title = "MLP", dataset = "digits", network = "mlp", batch_size = 64 }
lm = { title = "LM", dataset = "pydoc", network = "lm:heads=1", batch_size = 8, length = 16 }

[deviations]
odd = "not as printed"

[tasks]
small = { family = "mlp", depth = 2, width = 8, sizes = ["base"] }
wide = { family = "mlp", depth = 2, width = 16, sizes = ["xxl", "xl"], batch_size = 32 }
text = { family = "lm", depth = 1, width = 8, steps = 200, at = [200], deviations = ["odd"] }
"""


def written(tmp_path: Path, text: str = OWN) -> str:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def paper() -> Suite:
    return load_suite("paper")


# --- The papers' tasks ----------------------------------------------------------------------------


def test_the_papers_suite_has_the_35_tasks_of_its_table_and_three_longer_ones(paper):
    axes = Counter(task.axis for task in paper.tasks)
    assert axes == {"width": 32, "depth": 3, "horizon": 3}
    assert len({task.name for task in paper.tasks}) == 38


def test_every_family_has_the_tables_widths_at_depth_three(paper):
    widths = {
        family: [t.width for t in paper.tasks if t.family == family and t.axis == "width"]
        for family in paper.families
    }
    doubling = [128 * 2**n for n in range(7)]
    published = [192, 384, 768, 1024, 2048, 3072]
    assert widths == {
        "mlp-in32": doubling,
        "mlp-in64": doubling[:-1],
        "mlp-c10": doubling,
        "vit-in32": published,
        "lm-lm1b": published,
    }
    assert {task.depth for task in paper.tasks if task.axis != "depth"} == {3}
    assert {(t.depth, t.width) for t in paper.tasks if t.axis == "depth"} == {(16, 1024)}


def test_batches_heads_and_lengths_are_the_tables(paper):
    tasks = {task.name: task for task in paper.tasks}
    assert {t.batch_size for t in paper.tasks if t.axis == "depth"} == {128}
    assert {(t.family, t.batch_size) for t in paper.tasks if t.axis != "depth"} == {
        ("mlp-in32", 4096),
        ("mlp-in64", 4096),
        ("mlp-c10", 4096),
        ("vit-in32", 1024),
        ("lm-lm1b", 128),
    }
    heads = {192: 3, 384: 6, 768: 8, 1024: 8, 2048: 16, 3072: 16}
    for width, number in heads.items():
        assert tasks[f"vit-in32-3-{width}"].network == f"vit:heads={number}"
        assert tasks[f"lm-lm1b-3-{width}"].network == f"lm:heads={number},length=64"
        assert width % number == 0
    assert {t.network for t in paper.tasks if t.family.startswith("mlp")} == {"mlp"}


def test_feed_forward_layers_are_as_wide_as_the_tables(paper):
    from mulo_cli.optimizees.catalogue import OPTIMIZEES

    printed = {192: 768, 384: 1536, 768: 3072, 1024: 4096, 2048: 8192, 3072: 12288}
    for task in paper.tasks:
        network = parse_named(task.network)
        if network.name != "mlp":
            module = OPTIMIZEES[network.name].make
            multiple = int(network.options.get("ffn_multiple", module.ffn_multiple))
            assert multiple * task.width == printed[task.width], task.name


def test_the_traps_of_the_table_are_told_beside_their_tasks(paper):
    tasks = {task.name: task for task in paper.tasks}
    assert tasks["mlp-c10-3-1024"].identifier == "T^LM_(3,1024)"
    assert "CIFAR-10 MLP" in tasks["mlp-c10-3-1024"].deviations[0]
    for name in ("vit-in32-16-1024", "lm-lm1b-16-1024"):
        assert "3 heads" in tasks[name].deviations[0]
        assert "heads=8" in tasks[name].network
    assert any("length" in text for text in tasks["lm-lm1b-16-1024"].deviations)
    assert {text for task in paper.tasks for text in task.deviations} == set(paper.deviations)


def test_trainings_are_told_at_the_steps_of_the_rank_table(paper):
    assert (paper.seeds, paper.window) == (5, 50)
    for task in paper.tasks:
        if task.axis == "horizon":
            assert (task.steps, task.at[-1]) == (25_000, 25_000)
        else:
            assert (task.steps, task.at) == (5_000, (1_000, 3_000, 5_000))


def test_every_size_has_one_task_of_every_family_and_the_widest_is_xxl(paper):
    """Table 1 averages five tasks a column; the widest of three families is its xl too."""
    for size, families in paper.families_by_size.items():
        assert sorted(families) == sorted(paper.families), size
    widths = {(task.family, size): task.width for task in paper.tasks for size in task.sizes}
    for family in paper.families:
        own = [task.width for task in paper.tasks if task.family == family]
        assert widths[family, "base"] == 1024
        assert widths[family, "large"] == 2048
        assert widths[family, "xl"] == (4096 if family.startswith("mlp") else 3072)
        assert widths[family, "xxl"] == max(own)


def test_every_family_names_published_values_of_both_baselines(paper):
    from mulo_cli.optimizers.presets import PRESETS

    for task, optimizer in itertools.product(paper.tasks, ("adamw", "muadam")):
        assert f"paper/{task.preset}" in PRESETS[optimizer]


def test_the_desks_suite_has_five_families_at_three_sizes():
    desk = load_suite("desk")
    assert {size: len(of) for size, of in desk.families_by_size.items()} == {
        "base": 5,
        "large": 5,
        "xl": 5,
    }
    widths = {(t.family, s): t.width for t in desk.tasks for s in t.sizes}
    for family in desk.families:
        base = widths[family, "base"]
        assert (widths[family, "large"], widths[family, "xl"]) == (4 * base, 8 * base)


# --- A suite of one's own -------------------------------------------------------------------------


def test_what_a_task_does_not_say_it_has_from_its_family_and_its_suite(tmp_path):
    small, wide, text = load_suite(written(tmp_path)).tasks
    assert (small.family, small.title) == ("mlp", "MLP")
    assert (small.dataset, small.network, small.batch_size) == ("digits", "mlp", 64)
    assert (small.suite, small.steps, small.at) == ("own", 100, (50, 100))
    assert (wide.batch_size, wide.sizes) == (32, ("xl", "xxl"))
    assert (text.network, text.steps, text.at) == ("lm:heads=1,length=16", 200, (200,))
    assert text.deviations == ("not as printed",)


@pytest.mark.parametrize(
    ("old", "new", "said", "hinted"),
    [
        ("seeds = 2", "seedz = 2", "unknown key 'seedz'", "did you mean 'seeds'"),
        ("depth = 2, width = 8", "dept = 2, width = 8", "'tasks.small.dept'", "'depth'"),
        ('dataset = "digits"', 'data = "digits"', "'families.mlp.data'", "'dataset'"),
        ("seeds = 2", "seeds = 0", "seeds: Input should be greater", "suites.md"),
        ("seeds = 2", "", "seeds: Field required", "suites.md"),
        ("width = 8, sizes", "width = 8.5, sizes", "tasks.small.width", "suites.md"),
        ('sizes = ["base"]', 'sizes = ["huge"]', "tasks.small.sizes", "suites.md"),
        ('sizes = ["base"]', 'sizes = ["xl"]', "small and wide are both xl in mlp", "suites.md"),
        ('family = "lm", depth', 'family = "ml", depth', "did you mean 'mlp'", "suites.md"),
        ('["odd"]', '["even"]', "unknown deviation 'even'", "suites.md"),
        ("at = [50, 100]", "at = [100, 50]", "does not ascend", "suites.md"),
        ("at = [50, 100]", "at = [50, 101]", "does not ascend up to steps = 100", "suites.md"),
        ("window = 10", "window = 51", "window = 51 is longer than at = 50", "suites.md"),
        ("small = {", "'mlp,*' = {", "task 'mlp,*': names are of a-z", "suites.md"),
        ("mlp = {", "'mlp/a' = {", "family 'mlp/a': names are of a-z", "suites.md"),
        ("mlp = {", "'' = {", "family '': names are of a-z", "suites.md"),
        ('name = "own"', 'name = ""', "name '': names are of a-z", "suites.md"),
        ('name = "own"', 'name = "o\\u001b[2J"', r"name 'o\x1b[2J': names are", "suites.md"),
        ("odd = ", "'o d' = ", "deviation 'o d': names are of a-z", "suites.md"),
        ("small = { ", '"\\u001b[2J" = { steps = 0, ', r"tasks.'\x1b[2J'.steps", "suites.md"),
        ("small = { ", f"{'w' * 200} = {{ steps = 0, ", f"'{'w' * 79}....steps", "suites.md"),
        ("small = { ", '"\\u001b[2J" = { stepz = 0, ', r"tasks.\x1b[2J.stepz", "'steps'"),
        ('name = "own"', 'name = "paper"', "as one that ships", "another name"),
        ("[tasks]", "[tasks", "is not valid TOML", "mend"),
        ("[families]", "families = 3\n[others]", "unknown key 'others'", "known are"),
    ],
)
def test_a_slip_in_a_file_is_one_sentence_and_a_hint(tmp_path, old, new, said, hinted):
    assert old in OWN
    with pytest.raises(RecipeError) as caught:
        load_suite(written(tmp_path, OWN.replace(old, new)))
    assert said in caught.value.message
    assert hinted in caught.value.hint
    assert (caught.value.message + caught.value.hint).isprintable()
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("reference", "said", "hinted"),
    [
        ("papers", "there is no suite 'papers'", "did you mean 'paper'"),
        ("absent.toml", "cannot be read", "paper"),
        ("pa\0per", "not a file name", "suite"),
        ("photo.png", "not a text file", "TOML"),
    ],
)
def test_a_suite_that_is_not_there_is_an_error_that_names_it(
    tmp_path, monkeypatch, reference, said, hinted
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(RecipeError) as caught:
        load_suite(reference)
    assert said in caught.value.message
    assert hinted in caught.value.hint


# --- Cut to measure -------------------------------------------------------------------------------


def test_patterns_choose_tasks_in_the_suites_order(paper):
    chosen = select(paper, ["vit-*-192,mlp-c10-*", "horizon-lm*"])
    names = [task.name for task in chosen]
    assert names == [
        *(f"mlp-c10-3-{128 * 2**n}" for n in range(7)),
        "vit-in32-3-192",
        "horizon-lm-lm1b-3-1024",
    ]
    assert select(paper, []) == paper.tasks


def test_a_pattern_that_names_nothing_is_an_error_with_the_names(paper):
    with pytest.raises(UsageError) as caught:
        select(paper, ["mlp-*,resnet-*"])
    assert "'resnet-*'" in caught.value.message
    assert "vit-in32-3-192" in caught.value.hint


@pytest.mark.parametrize(
    ("steps", "at", "told"),
    [
        (None, None, (1_000, 3_000, 5_000)),
        (1_000, None, (1_000,)),
        (2_000, None, (1_000, 2_000)),
        (200, None, (200,)),
        (9_000, None, (1_000, 3_000, 5_000, 9_000)),
        (200, (100, 150), (100, 150)),
        (None, (100,), (100,)),
    ],
)
def test_another_number_of_steps_is_told_at_its_end(paper, steps, at, told):
    task = with_length(paper.tasks[0], steps, at)
    assert (task.steps, task.at) == (steps or 5_000, told)


def test_a_step_beyond_the_end_cannot_be_told(paper):
    with pytest.raises(UsageError, match="--at 6000 is beyond the 5000 steps of mlp-in32-3-128"):
        with_length(paper.tasks[0], None, (1_000, 6_000))
