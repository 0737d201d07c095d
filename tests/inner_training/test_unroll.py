"""Unrolling in parts is unrolling at once; a loss is that of its batch before its update."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.inner_training.state import init_inner_state
from mulo_cli.inner_training.step import inner_step
from mulo_cli.inner_training.unroll import unroll
from mulo_cli.mup.roles import infer_roles
from mulo_cli.optimizers.catalogue import OPTIMIZERS
from mulo_cli.tasks.base import Task, TaskAux
from mulo_cli.tasks.losses import cross_entropy
from tests.worlds import START, linear_optimizer, quadratic_task, small_optimizer

ROUNDING = 1e-5
"""Relative: the same float32 sums, compiled in two programs."""


@pytest.fixture(scope="module")
def task() -> Task:
    """Return the digits read by one matrix: what compiles fastest and still has batches."""
    dataset = build_dataset("digits")

    def init(key):
        return {"w": 0.1 * jax.random.normal(key, (64, dataset.num_classes))}

    def loss(params, batch):
        logits = batch.inputs.reshape(-1, 64) @ params["w"]
        value = cross_entropy(logits, batch.targets)
        return value, TaskAux(value, logits, {})

    roles, batch = infer_roles(init, init), dataset.make_batch(16)
    return Task("matrix", roles, dataset.splits["train"], batch, init, loss, None)


@pytest.fixture(scope="module")
def optimizer(task):
    learned = small_optimizer()
    return learned.build(learned.init(jax.random.key(1)), task.roles, jnp.int32(5))


@pytest.fixture(scope="module")
def start(task, optimizer):
    return init_inner_state(task, optimizer, jax.random.key(2))


@pytest.fixture(scope="module")
def run(task, optimizer):
    return jax.jit(functools.partial(unroll, task, optimizer))


KEY = jax.random.key(3)


def losses_at(task, params, number: int):
    batch = jax.jit(task.batch)(task.data, KEY, jnp.int32(number))
    return jax.jit(task.loss)(params, batch)[0]


def test_three_and_two_steps_are_five_steps_to_the_bit(task, run, start):
    whole, losses = run(start, task.data, KEY, jnp.arange(5))
    middle, first = run(start, task.data, KEY, jnp.arange(3))
    end, second = run(middle, task.data, KEY, jnp.arange(3, 5))
    np.testing.assert_array_equal(losses, jnp.concatenate([first, second]))
    jax.tree.map(np.testing.assert_array_equal, whole, end)
    assert int(end.step) == 5
    assert not np.array_equal(middle.params["w"], end.params["w"])


def test_a_loss_is_that_before_the_update(task, run, start):
    middle, losses = run(start, task.data, KEY, jnp.arange(3))
    assert float(losses[0]) == pytest.approx(float(losses_at(task, start.params, 0)), rel=ROUNDING)
    after, later = run(middle, task.data, KEY, jnp.arange(3, 5))
    assert float(later[0]) == pytest.approx(float(losses_at(task, middle.params, 3)), rel=ROUNDING)
    assert float(later[1]) != pytest.approx(float(losses_at(task, after.params, 4)), rel=ROUNDING)


def test_the_first_loss_of_a_number_squared_is_that_of_its_start():
    task, learned = quadratic_task(), linear_optimizer(theta=0.5)
    built = learned.build(learned.init(jax.random.key(0)), task.roles, jnp.int32(2))
    state = init_inner_state(task, built, KEY)
    end, losses = unroll(task, built, state, task.data, KEY, jnp.arange(2))
    x = [START, 0.8 * START + 0.5]
    np.testing.assert_allclose(losses, [0.5 * x[0] ** 2, 0.5 * x[1] ** 2], rtol=1e-6)
    assert float(end.params["x"]) == pytest.approx(0.8 * x[1] + 0.5)


def test_the_batch_depends_on_the_key_and_the_number_of_the_step_alone(task, run, start):
    _, seventh = run(start, task.data, KEY, jnp.array([7, 8]))
    older = start._replace(step=start.step + 100)
    _, again = run(older, task.data, KEY, jnp.array([7, 8]))
    np.testing.assert_array_equal(seventh, again)
    assert float(seventh[0]) == pytest.approx(float(losses_at(task, start.params, 7)), rel=ROUNDING)
    _, eighth = run(start, task.data, KEY, jnp.array([8, 7]))
    assert not np.array_equal(seventh[0], eighth[0])
    _, elsewhere = run(start, task.data, jax.random.key(4), jnp.array([7, 8]))
    assert not np.array_equal(seventh[0], elsewhere[0])


def test_two_optimizers_see_the_same_data(task):
    """With one start the first losses agree, because the batch is not the optimizer's business."""
    found = []
    with jax.numpy_dtype_promotion("standard"):  # optax raises a weak float to an int32 power
        for name in ("adamw", "sgd"):
            entry = OPTIMIZERS[name]
            make = entry.under(entry.parametrization)
            built = make(entry.defaults, task.roles, jnp.int32(2))
            state = init_inner_state(task, built, jax.random.key(2))
            run = jax.jit(functools.partial(unroll, task, built))
            found.append(run(state, task.data, KEY, jnp.array([3, 4]))[1])
    assert float(found[0][0]) == pytest.approx(float(found[1][0]), rel=ROUNDING)
    assert float(found[0][1]) != pytest.approx(float(found[1][1]), rel=ROUNDING)


def test_an_optimizer_is_offered_the_loss_and_the_params_of_its_gradient(task, start):
    seen = {}

    def update(gradients, state, params=None, *, loss, **extra):
        seen.update(loss=loss, params=params)
        return jax.tree.map(jnp.zeros_like, gradients), state

    spy = optax.GradientTransformationExtraArgs(lambda params: (), update)
    state = init_inner_state(task, spy, jax.random.key(2))
    batch = task.batch(task.data, KEY, jnp.int32(0))
    after, loss = inner_step(task, spy, state, batch)
    assert float(seen["loss"]) == float(loss)
    jax.tree.map(np.testing.assert_array_equal, seen["params"], start.params)
    assert int(after.step) == 1


def test_a_run_starts_from_its_key_at_step_zero(task, optimizer, start):
    again = init_inner_state(task, optimizer, jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, start, again)
    assert int(start.step) == 0
    other = init_inner_state(task, optimizer, jax.random.key(5))
    assert not np.array_equal(start.params["w"], other.params["w"])
