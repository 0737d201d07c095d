"""What a user writes after --optimizer, where it concerns muP: rules, networks, epsilon."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly import optimizers as assembly
from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.errors import UsageError
from mulo_cli.recipes.references import parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.evaluate import EvaluationConfig, identity


def named(text: str):
    return build_named_optimizer(parse_optimizer(text))


def task_of(optimizer, network: str = "mlp"):
    section = TaskSection("digits", network, [8], 2, 4)
    return build_evaluation_task(
        section, build_dataset("digits"), 8, optimizer.parametrization, optimizer.network
    )


def readout_of(task) -> np.ndarray:
    return np.asarray(jax.jit(task.task.init)(jax.random.key(0))["readout"]["kernel"])


def test_lamb_has_two_rules_and_its_rows_tell_which():
    ours, paper = (named(f"lamb:parametrization=mup{word}") for word in ("", ",rule=paper"))
    assert (ours.settings["rule"], paper.settings["rule"]) == ("ours", "paper")
    task = task_of(ours)
    moved = []
    for one in (ours, paper):
        params = jax.jit(task.task.init)(jax.random.key(0))
        optimizer = one.make(one.hyper, task.task.roles, jnp.int32(5))
        gradients = jax.tree.map(jnp.ones_like, params)
        with jax.numpy_dtype_promotion("standard"):
            state = optimizer.init(params)
            moved.append(jax.jit(optimizer.update)(gradients, state, params)[0])
    for layer, factor in (("hidden_0", 8**-0.5), ("readout", 1.0)):
        found = [updates[layer]["kernel"] for updates in moved]
        np.testing.assert_allclose(found[0], factor * found[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lamb:rule=paper", "no rule to choose under sp"),
        ("adamw:rule=paper,parametrization=mup", "no rule to choose"),
        ("lamb:rule=papr,parametrization=mup", "unknown rule 'papr'"),
        ("sgd:eps_scaling=1", "sgd has no hyper-parameter 'eps_scaling'"),
        ("sophia:eps_scaling=1", "sophia has no hyper-parameter 'eps_scaling'"),
        ("sophia:update_interval=0", "update_interval counts steps"),
        ("sophia:update_interval=2.5", "update_interval counts steps"),
        ("mulo-m-desk:learning_rate=1", "a meta-learned optimizer has no settings"),
        ("mulo-m-desk:rule=paper", "a meta-learned optimizer has no settings"),
    ],
)
def test_what_an_optimizer_does_not_have_is_an_error(text, said):
    with pytest.raises(UsageError, match=said):
        named(text)


def test_lamb_asks_for_a_readout_that_is_not_zero_and_the_network_has_the_last_word():
    lamb, adam = named("lamb:parametrization=mup"), named("muadam")
    assert readout_of(task_of(lamb)).std() > 0.5
    assert not readout_of(task_of(adam)).any()
    assert not readout_of(task_of(lamb, "mlp:readout=zeros")).any()
    assert readout_of(task_of(adam, "mlp:readout=normal")).std() > 0.5


def test_rows_tell_what_an_optimizer_asked_of_its_networks():
    config = EvaluationConfig(steps=1, seeds=1, window=1, at=(1,))
    lamb = named("lamb:parametrization=mup")
    rows = [
        identity(task_of(lamb, net), lamb, config, 0, "") for net in ("mlp", "mlp:readout=zeros")
    ]
    assert [row.settings["network_wanted"] for row in rows] == ["readout=normal"] * 2
    assert [row.task for row in rows] == ["mlp", "mlp:readout=zeros"]
    assert "network_wanted" not in named("muadam").settings
    assert all("network" not in row.settings for row in rows), "the user's options win"


def test_under_spectral_a_readout_starts_small_and_its_update_has_the_factor():
    task = task_of(named("muadam:parametrization=spectral"))
    role = task.task.roles["readout"]["kernel"]
    assert not role.forward_multiplier
    assert readout_of(task).std() == pytest.approx(1 / 8, rel=0.3)
    assert not readout_of(
        task_of(named("muadam:parametrization=spectral"), "mlp:readout=zeros")
    ).any()
    with pytest.raises(UsageError, match="readout=ones is unknown"):
        task_of(named("muadam"), "mlp:readout=ones").task.init(jax.random.key(0))


def test_a_meta_learned_optimizer_takes_one_setting_beside_its_parametrization():
    scaled, plain = named("mulo-m-desk:eps_scaling=1"), named("mulo-m-desk")
    assert scaled.settings == {**plain.settings, "eps_scaling": 1.0}
    task = task_of(plain)
    params = jax.jit(task.task.init)(jax.random.key(0))
    gradients = jax.tree.map(lambda p: 1e-5 * jnp.cos(9.0 * p), params)
    wider = jax.tree.map(lambda g: 8.0 * g, gradients)  # every leaf of this network has width 8

    def updates(one, gradients):
        def first(gradients):
            optimizer = one.make(one.hyper, task.task.roles, jnp.int32(5))
            state = optimizer.init(params)
            return optimizer.update(gradients, state, params, loss=jnp.float32(1))[0]

        return jax.jit(first)(gradients)

    found = updates(scaled, gradients)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), found, updates(plain, wider)
    )
    assert not np.array_equal(
        found["hidden_0"]["kernel"], updates(plain, gradients)["hidden_0"]["kernel"]
    )


def test_an_artefact_that_clips_by_the_norm_refuses_to_scale_epsilon(monkeypatch):
    load = assembly.load_learned_optimizer

    def clipping(*given):
        loaded = load(*given)
        settings = {**loaded.card.settings, "clip_gradients": True}
        return loaded._replace(card=dataclasses.replace(loaded.card, settings=settings))

    monkeypatch.setattr(assembly, "load_learned_optimizer", clipping)
    with pytest.raises(UsageError, match="clips gradients by their norm"):
        named("mulo-m-desk:eps_scaling=1")
