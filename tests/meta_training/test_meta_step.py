"""What a run draws at its beginning, in its steps and for validation never comes from one key."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.gradient_estimators.base import (
    EstimateInfo,
    EstimatorState,
    GradientEstimator,
    PairReports,
)
from mulo_cli.meta_training.meta_step import (
    Stream,
    make_init,
    make_learn,
    make_unroll,
    stream,
)
from mulo_cli.meta_training.validation import ValidationConfig, make_validators
from tests.worlds import linear_optimizer, quadratic_task

RUNS, STEPS, TASKS, VALIDATION_SEEDS = 4, 30, 3, 5

Bits = tuple[int, ...]
"""A key as plain numbers."""


def bits(keys: jax.Array) -> list[Bits]:
    data = np.asarray(jax.random.key_data(keys))
    return [tuple(map(int, one)) for one in data.reshape(-1, data.shape[-1])]


class Witness:
    """Keys, by what they were handed out for; every part of a run tells those it was given."""

    def __init__(self):
        self.seen: dict[str, list[Bits]] = collections.defaultdict(list)

    def note(self, what: str, key: jax.Array) -> None:
        def keep(data):
            self.seen[what].append(tuple(map(int, data)))

        jax.debug.callback(keep, jax.random.key_data(key))

    def told(self) -> dict[str, list[Bits]]:
        """Return what was seen since the last time."""
        jax.effects_barrier()
        seen, self.seen = dict(self.seen), collections.defaultdict(list)
        return seen


WITNESS = Witness()


def learned_optimizer():
    linear = linear_optimizer()

    def init(key):
        WITNESS.note("theta", key)
        return linear.init(key)

    return linear._replace(init=init)


def estimator() -> GradientEstimator:
    def init(theta):
        return EstimatorState(jnp.zeros(1), jax.tree.map(lambda x: x[None], theta))

    def unroll(key, theta, runs, data, first):
        del theta, data, first
        WITNESS.note("unroll", key)
        return runs, PairReports(*jnp.zeros((4, 1)))

    def credit(key, theta, accumulated, reports):
        del reports
        WITNESS.note("credit", key)
        zero = jnp.zeros(())
        info = EstimateInfo(zero, zero, zero, jnp.zeros((), jnp.int32))
        return jax.tree.map(jnp.zeros_like, theta), accumulated, info

    return GradientEstimator(1, 1, init, unroll, credit)


def task():
    quadratic = quadratic_task()

    def init(key):
        WITNESS.note("validation network", key)
        return quadratic.init(key)

    def batch(data, key, step):
        WITNESS.note("validation data", key)
        return quadratic.batch(data, key, step)

    return quadratic._replace(init=init, batch=batch)


@pytest.fixture(scope="module")
def runs() -> list[dict[str, list[Bits]]]:
    """Return the keys of some runs, each of another seed."""
    estimators, optimizer = [estimator()] * TASKS, optax.identity()
    init = jax.jit(make_init(learned_optimizer(), estimators, optimizer))
    unrolls = [jax.jit(make_unroll(estimators, i)) for i in range(TASKS)]
    learn = jax.jit(make_learn(estimators, optimizer))
    config = ValidationConfig(every=1, seeds=VALIDATION_SEEDS, steps=2, window=1)
    (validate,) = make_validators([task()], learned_optimizer(), config)
    found = []
    for seed in range(RUNS):
        root = jax.random.key(seed)
        shared, runs = init(root)
        for _ in range(STEPS):
            arguments = shared.theta, shared.step, root, task().data, jnp.int32(0)
            told = [unroll(mine, *arguments)[1] for unroll, mine in zip(unrolls, runs, strict=True)]
            shared, _ = learn(shared, root, tuple(told))
        validate(shared.theta, root, task().data)
        found.append(WITNESS.told())
    return found


def test_every_key_is_used_for_one_thing(runs):
    for run in runs:
        assert set(run["unroll"]) == set(run.pop("credit")), "both halves draw the same"
        assert {what: len(set(keys)) for what, keys in run.items()} == {
            "theta": 1,
            "unroll": STEPS * TASKS,
            "validation network": VALIDATION_SEEDS,
            "validation data": VALIDATION_SEEDS,
        }
        together = [key for keys in run.values() for key in set(keys)]
        assert len(set(together)) == len(together)


def test_runs_of_other_seeds_have_other_keys(runs):
    together = [key for run in runs for keys in run.values() for key in set(keys)]
    assert len(set(together)) == len(together)


def test_no_key_is_one_that_the_root_gives_at_once(runs):
    """Those of steps once were fold_in(root, step), of which two had begun the run."""
    for seed, run in enumerate(runs):
        root = jax.random.key(seed)
        numbers = jnp.arange(1_000)
        folded = jax.vmap(lambda number, root=root: jax.random.fold_in(root, number))(numbers)
        former = {*bits(root), *bits(folded), *bits(jax.random.split(root, 10))}
        assert not former & {key for keys in run.values() for key in keys}


def test_streams_are_as_many_keys_as_there_are_purposes():
    for seed in range(10):
        root = jax.random.key(seed)
        keys = [bits(stream(root, which))[0] for which in Stream]
        assert len({*keys, *bits(root)}) == len(Stream) + 1
