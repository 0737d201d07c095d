"""What a user writes after --optimizer becomes the optimizer that was meant, and says so."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.mup.roles import infer_roles
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.optimizers.presets import PRESETS
from mulo_cli.recipes.references import parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.results.records import to_plain
from mulo_cli.results.tuned import Tuned
from mulo_cli.studies.evaluate import NamedOptimizer

ARTEFACT = str(Path(__file__).parent.parent / "assets" / "mulo-m-desk")
WIDTH = 16
"""A power of two: dividing by it is exact in binary."""


@pytest.fixture(autouse=True)
def optax_promotes():
    """Let optax raise a weak float to an int32 power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def named(text: str) -> NamedOptimizer:
    return build_named_optimizer(parse_optimizer(text))


def init_params(width: int):
    def init(key):
        keys = jax.random.split(key)
        return {
            "hidden": jax.random.normal(keys[0], (width, width)),
            "readout": jax.random.normal(keys[1], (width, 3)),
        }

    return init


ROLES = infer_roles(init_params(8), init_params(WIDTH), readout="forward")
PARAMS = jax.jit(init_params(WIDTH))(jax.random.key(1))


def first_update(make, hyper):
    @jax.jit
    def update(hyper):
        optimizer = make(hyper, ROLES, jnp.int32(40))
        return optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, loss=jnp.float32(1))[0]

    return update(hyper)


@pytest.fixture
def tuned(tmp_path) -> str:
    """Return the path of a file as `mulo tune-adam` writes it, with a colon in its name."""
    values = {"learning_rate": 0.5, "b1": 0.8, "b2": 0.9}
    facts = Tuned(
        "muadam", values, "warmup-cosine", "mup", 0.5, 8, (), "mlp", "digits",
        64, 3, 64, 500, 50, 2, "0.1.0",
    )  # fmt: skip
    path = tmp_path / "a:b" / "best.json"
    path.parent.mkdir()
    path.write_text(json.dumps(to_plain(facts)))
    return str(path)


def test_a_name_alone_has_its_defaults_and_its_own_parametrization():
    for name, entry in OPTIMIZERS.items():
        found = named(name)
        assert (found.name, found.parametrization) == (name, entry.parametrization)
        assert found.hyper == entry.defaults
        assert found.settings == {**entry.defaults, "schedule": "constant"}
        assert found.recipe_digest is None


def test_what_is_given_wins_over_a_preset_and_that_over_defaults():
    found = named("adamw:preset=paper/cifar10-mlp:b1=0.5")
    preset = PRESETS["adamw"]["paper/cifar10-mlp"]
    assert found.hyper == {**OPTIMIZERS["adamw"].defaults, **preset, "b1": 0.5}
    assert found.hyper["learning_rate"] == 2.89e-3
    assert found.name == "adamw:preset=paper/cifar10-mlp:b1=0.5", "as it was written"


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        ("", {}),
        (",b1=0.7", {"b1": 0.7}),
        (":schedule=constant", {"schedule": "constant"}),
    ],
)
def test_what_is_given_wins_over_a_file_of_tuned_values_with_its_schedule(tuned, more, changes):
    tuned_values = {"learning_rate": 0.5, "b1": 0.8, "b2": 0.9, "eps": 1e-8}
    found = named(f"muadam:tuned={tuned}{more}")
    assert found.settings == {**tuned_values, "schedule": "warmup-cosine", **changes}
    assert found.parametrization == "mup"


def test_an_option_that_is_off_by_default_can_be_given():
    assert named("sgd:momentum=0.9").hyper == {"learning_rate": 0.1, "momentum": 0.9}


def test_rows_are_told_every_hyper_parameter_and_the_schedule():
    for text in ("adamw:b1=0.5", "sgd:momentum=0.9:schedule=warmup-cosine", "muadam"):
        found = named(text)
        schedule = "warmup-cosine" if "warmup" in text else "constant"
        assert found.settings == {**found.hyper, "schedule": schedule}


@pytest.mark.parametrize("parametrization", ["sp", "mup"])
@pytest.mark.parametrize("schedule", ["constant", "warmup-cosine"])
def test_it_trains_with_the_schedule_and_under_the_parametrization_that_was_named(
    parametrization, schedule
):
    found = named(f"adamw:schedule={schedule},parametrization={parametrization}")
    assert found.parametrization == parametrization
    expected = OPTIMIZERS["adamw"].under(parametrization, schedule)
    updates = first_update(found.make, found.hyper)
    jax.tree.map(np.testing.assert_array_equal, updates, first_update(expected, found.hyper))
    # the first of two warm-up steps moves by half a rate, muP divides by fan_in
    rate = 1e-3 * (0.5 if schedule == "warmup-cosine" else 1.0)
    rate /= WIDTH if parametrization == "mup" else 1
    largest = float(jnp.abs(updates["hidden"]).max())
    assert largest == pytest.approx(rate, rel=0.02)  # decay is 1e-4 of params of size 1 to 3


def test_an_artefact_is_told_by_its_checksum_and_its_recipe():
    found = named(ARTEFACT)
    card = json.loads((Path(ARTEFACT) / "card.json").read_text())
    assert (found.name, found.parametrization) == (ARTEFACT, card["parametrization"])
    assert found.settings == {"checksum": card["checksum"]}
    assert found.recipe_digest == card["recipe_digest"]


def test_an_artefact_can_be_tried_under_the_other_parametrization():
    """Then its updates of hidden matrices are not divided by their fan-in."""
    under_mup, under_sp = named(ARTEFACT), named(f"{ARTEFACT}:parametrization=sp")
    assert (under_mup.parametrization, under_sp.parametrization) == ("mup", "sp")
    one = first_update(under_mup.make, under_mup.hyper)
    other = first_update(under_sp.make, under_sp.hyper)
    np.testing.assert_array_equal(other["hidden"], WIDTH * one["hidden"])
    np.testing.assert_array_equal(other["readout"], one["readout"])
    assert under_sp.settings == under_mup.settings
    assert under_sp.name != under_mup.name


def test_an_evaluation_is_judged_on_images_that_are_not_trained_on():
    dataset = build_dataset("digits")
    section = TaskSection("digits", "mlp", [8], 2, 16)
    task = build_evaluation_task(section, dataset, 8, "sp")
    assert task.task.data is dataset.splits["train"]
    assert task.test_data is dataset.splits["test"]
    assert (task.width, task.depth, task.batch_size) == (8, 2, 16)
    assert (task.optimizee, task.dataset, task.real) == ("mlp", "digits", True)
