"""Rows that stay in a file: the same bits as on the device, in every engine."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mulo_cli.assembly.datasets import build_dataset
from mulo_cli.assembly.optimizers import build_named_optimizer
from mulo_cli.assembly.tasks import build_evaluation_task
from mulo_cli.datasets.mapped import MappedRows, take_rows
from mulo_cli.gradient_estimators.antithetic import EstimatorConfig
from mulo_cli.gradient_estimators.pes import pes
from mulo_cli.learned_optimizers.base import LearnedOptimizer
from mulo_cli.recipes.references import parse_optimizer
from mulo_cli.recipes.schema import TaskSection
from mulo_cli.studies.evaluate import EvaluationConfig, EvaluationRow, evaluate
from tests.datasets.prepared_sets import prepare_images

ROWS = np.random.default_rng(0).integers(0, 256, (50, 4, 3), np.uint8)


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    return MappedRows(tmp_path / "rows.npy")


def test_rows_are_taken_inside_compiled_and_mapped_programs(mapped):
    index = jnp.array([[3, 49, 0], [7, 7, 1]])
    np.testing.assert_array_equal(
        jax.jit(take_rows, static_argnums=0)(mapped, index[0]), ROWS[index[0]]
    )
    of_lanes = jax.jit(jax.vmap(lambda one: take_rows(mapped, one)))(index)
    np.testing.assert_array_equal(of_lanes, ROWS[np.asarray(index)])

    def step(total, one):
        return total + take_rows(mapped, one).astype(jnp.int32).sum(), None

    total, _ = jax.jit(lambda index: jax.lax.scan(step, jnp.int32(0), index))(index)
    assert int(total) == ROWS[np.asarray(index)].sum()


def test_a_file_is_no_array_of_the_program_and_two_of_one_file_are_one(mapped):
    assert jax.tree.leaves({"inputs": mapped}) == []
    again = MappedRows(mapped.path)
    assert (mapped, hash(mapped)) == (again, hash(again))
    compiled = jax.jit(lambda data, i: take_rows(data["rows"], i))
    for rows in (mapped, again):
        compiled({"rows": rows}, jnp.array([1]))
    assert compiled._cache_size() == 1


def test_a_file_on_the_host_may_be_read_only(mapped):
    assert (mapped.shape, mapped.dtype) == (ROWS.shape, np.uint8)
    assert not mapped.array.flags.writeable
    np.testing.assert_array_equal(mapped.read(np.array([2])), ROWS[[2]])


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Return one task on the device, and the same with its images in their file."""
    monkeypatch.setenv("MULO_DATA_DIR", str(tmp_path))
    prepare_images(tmp_path, "mine")
    section = TaskSection("mine", "mlp", [4], 1, 8)
    datasets = [build_dataset(f"mine:feed={feed}") for feed in ("never", "always")]
    assert [isinstance(d.splits["train"]["inputs"], MappedRows) for d in datasets] == [False, True]
    return [build_evaluation_task(section, dataset, 4, "mup") for dataset in datasets]


def test_an_evaluation_has_the_same_bits_wherever_the_images_are(tasks):
    optimizer = build_named_optimizer(parse_optimizer("muadam:learning_rate=0.01"))
    config = EvaluationConfig(steps=6, seeds=2, window=2, at=(3, 6))

    def rows(task):
        with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
            told = list(evaluate(task, optimizer, config, "test"))
        return [row for row in told if isinstance(row, EvaluationRow)]

    resident, fed = map(rows, tasks)
    assert len(resident) == 2
    for one, other in zip(resident, fed, strict=True):
        assert one.curve == other.curve
        assert one.smoothed_loss == other.smoothed_loss
        assert one.test_accuracy == other.test_accuracy
        assert (one.dataset, other.dataset) == ("mine:feed=never", "mine:feed=always")


def descent(theta, roles, num_steps):
    """Build gradient descent whose rate is all there is to learn: it is compiled in no time."""
    del roles, num_steps
    return optax.with_extra_args_support(
        optax.stateless(lambda grads, params: jax.tree.map(lambda g: -theta["rate"] * g, grads))
    )


def test_a_meta_step_has_the_same_bits_wherever_the_images_are(tasks):
    learned = LearnedOptimizer(lambda key: {"rate": jnp.float32(0.1)}, descent)
    theta = learned.init(jax.random.key(0))
    config = EstimatorConfig(
        pairs=2, pairs_per_block=1, sigma=0.01, truncation=4, min_horizon=4, max_horizon=8
    )

    def estimated(task):
        estimator = pes(task, learned, config)
        state = estimator.init(theta)
        estimate = jax.jit(estimator.estimate)
        for step in range(2):
            gradient, state, info = estimate(jax.random.key(step), theta, state, task.data)
        return gradient, info

    resident, fed = (estimated(of.task) for of in tasks)
    jax.tree.map(np.testing.assert_array_equal, resident, fed)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(resident[0]))
