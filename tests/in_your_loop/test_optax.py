"""A learned optimizer is an optax transformation: whatever optax and jax do with one, they do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import mulo_cli as mulo
from mulo_cli.errors import UsageError
from mulo_cli.learned_optimizers.accumulators import Accumulators
from tests.in_your_loop.loops import (
    CLASSES,
    FEATURES,
    STEPS,
    TOLERANCE,
    WIDTH,
    Network,
    data,
    drawn,
    loss_of,
    roles,
    same,
    step_with,
    train,
)

FEW = 3
"""Steps after which two ways are compared."""


def gradients(params):
    return jax.grad(loss_of)(params, *data())


def is_matrix(tree):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)


def moved(before, after) -> bool:
    return all(
        np.any(np.asarray(a) != np.asarray(b))
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


def test_it_is_of_optax_s_own_type(tx):
    assert isinstance(tx, optax.GradientTransformationExtraArgs)


def test_the_real_artefact_trains(paths):
    tx = mulo.learned_optimizer(paths["small_fc_lopt"], roles=roles(), num_steps=STEPS)
    _, _, losses = train(tx, STEPS)
    assert losses[-1] < 0.3 * losses[0]


def test_jit_compiles_once_and_computes_what_python_does(tx):
    step = jax.jit(step_with(tx))
    params, _, losses = train(tx, FEW, wrap=lambda _: step)
    assert step._cache_size() == 1
    assert np.isfinite(losses).all()
    assert moved(drawn(), params)
    same(params, train(tx, FEW, wrap=lambda step: step)[0])


def test_vmap_over_seeds_is_a_loop_over_seeds(tx):
    seeds = 3
    inits = [drawn(seed) for seed in range(seeds)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *inits)
    together = functools.partial(jax.vmap, in_axes=(0, 0, None, None))
    state = jax.vmap(tx.init)(params)
    step = jax.jit(together(step_with(tx)))
    for _ in range(FEW):
        params, state, losses = step(params, state, *data())
    assert losses.shape == (seeds,)
    for seed, given in enumerate(inits):
        alone, _, _ = train(tx, FEW, given)
        same(jax.tree.map(lambda leaf, i=seed: leaf[i], params), alone)


def test_scan_is_a_loop(tx):
    def run(params):
        def body(carry, _):
            *carry, loss = step_with(tx)(*carry, *data())
            return tuple(carry), loss

        return jax.lax.scan(body, (params, tx.init(params)), length=FEW)

    (params, state), losses = jax.jit(run)(drawn())
    expected, expected_state, expected_losses = train(tx, FEW)
    same(params, expected)
    same(state, expected_state)
    np.testing.assert_allclose(losses, expected_losses, atol=TOLERANCE)


def test_donated_buffers(tx):
    """Params and state are given away, from the very first state on; no buffer is there twice."""
    step = jax.jit(step_with(tx), donate_argnums=(0, 1))
    params, state = drawn(), tx.init(drawn())
    for _ in range(FEW):
        given = jax.tree.leaves((params, state))
        params, state, _ = step(params, state, *data())
        assert all(leaf.is_deleted() for leaf in given)
    same(params, train(tx, FEW)[0], 0)


def test_chain_of_clipping_weight_decay_and_schedule(tx):
    """Its updates already point downhill: decay subtracts, and a schedule scales with no sign."""
    decay, schedule = 0.01, optax.linear_schedule(1.0, 0.0, 10)
    chain = optax.chain(
        optax.clip_by_global_norm(0.1),
        tx,
        optax.add_decayed_weights(-decay, mask=is_matrix),
        optax.scale_by_schedule(schedule),
    )
    found, _, _ = train(chain, FEW)

    update = jax.jit(tx.update)
    params, state = drawn(), tx.init(drawn())
    for i in range(FEW):
        loss, grads = jax.value_and_grad(loss_of)(params, *data())
        norm = optax.tree.norm(grads)
        assert norm > 0.1
        clipped = jax.tree.map(lambda g, by=norm: g * 0.1 / by, grads)
        updates, state = update(clipped, state, params, loss=loss)
        params = jax.tree.map(
            lambda p, u, at=i: p + schedule(at) * (u - decay * p * (p.ndim > 1)), params, updates
        )
    same(found, params)


def labels(params):
    return jax.tree.map(lambda leaf: "learned" if leaf.ndim > 1 else "adam", params)


def test_multi_transform_beside_adam(tx):
    both = optax.multi_transform({"learned": tx, "adam": optax.adam(1e-2)}, labels)
    params, state, losses = train(both, FEW)
    assert moved(drawn(), params)
    held = state.inner_states["learned"].inner_state.accumulators
    averages = jax.tree.leaves(held, is_leaf=lambda node: isinstance(node, Accumulators))
    assert len(averages) == 3, "the matrices', and no vector's"
    assert np.isfinite(losses).all()

    updates, _ = both.update(gradients(drawn()), both.init(drawn()), drawn(), loss=1.0)
    adam = optax.adam(1e-2)
    expected, _ = adam.update(gradients(drawn()), adam.init(drawn()), drawn())
    same(updates["Dense_0"]["bias"], expected["Dense_0"]["bias"])


def test_a_masked_matrix_gets_the_update_it_gets_among_others(paths):
    """small_fc_lopt's tensors do not know of one another; VeLO's do not either, but by its loss."""
    tx = mulo.learned_optimizer(paths["small_fc_lopt"], roles=roles(), num_steps=STEPS)
    masked = optax.masked(tx, is_matrix)
    grads = gradients(drawn())
    found, _ = masked.update(grads, masked.init(drawn()), drawn())
    expected, _ = tx.update(grads, tx.init(drawn()), drawn())
    for name in grads:
        same(found[name]["kernel"], expected[name]["kernel"])
        same(found[name]["bias"], grads[name]["bias"], 0)


def test_a_mask_may_leave_nothing(tx):
    masked = optax.masked(tx, lambda tree: jax.tree.map(lambda _: False, tree))
    grads = gradients(drawn())
    found, _ = masked.update(grads, masked.init(drawn()), drawn(), loss=1.0)
    same(found, grads, 0)


def test_params_that_are_not_trained_may_be_none(tx):
    """As `equinox.partition` leaves them."""
    params = drawn()
    params["Dense_0"] = {"kernel": None, "bias": None}
    state = tx.init(params)
    updates, _ = jax.jit(tx.update)(params, state, params, loss=jnp.float32(1))
    assert updates["Dense_0"] == {"kernel": None, "bias": None}
    assert np.any(np.asarray(updates["Dense_1"]["kernel"]))


def test_apply_if_finite_skips_a_step(tx):
    """The step that is skipped is not remembered; the loss goes through."""
    safe = optax.apply_if_finite(tx, max_consecutive_errors=3)
    update = jax.jit(safe.update)
    params, state = drawn(), safe.init(drawn())
    good = gradients(params)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), good)
    updates, skipped = update(bad, state, params, loss=jnp.float32(jnp.nan))
    assert not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(updates))
    found, _ = update(good, skipped, params, loss=jnp.float32(1))
    expected, _ = jax.jit(tx.update)(good, tx.init(params), params, loss=jnp.float32(1))
    same(found, expected)


def test_gradient_accumulation(tx):
    """Two halves of a batch give the step of the whole; VeLO sees the loss of the second half."""
    steps = optax.MultiSteps(tx, every_k_schedule=2)
    update = jax.jit(steps.update)
    params, state = drawn(), steps.init(drawn())
    inputs, labels = data()
    halves = [(inputs[:16], labels[:16]), (inputs[16:], labels[16:])]
    for i, half in enumerate(halves):
        loss, grads = jax.value_and_grad(loss_of)(params, *half)
        updates, state = update(grads, state, params, loss=loss)
        if i == 0:
            assert not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(updates))
    whole = gradients(params)
    expected, _ = jax.jit(tx.update)(whole, tx.init(params), params, loss=loss)
    same(updates, expected, 1e-4)  # the mean of two halves is rounded otherwise


def test_a_factor_injected_as_a_hyperparameter(tx):
    @optax.inject_hyperparams
    def scaled(factor):
        return optax.chain(tx, optax.scale(factor))

    injected = scaled(factor=0.5)
    grads, params = gradients(drawn()), drawn()
    state = injected.init(params)
    update = jax.jit(injected.update)
    half, state = update(grads, state, params, loss=jnp.float32(1))
    expected, _ = jax.jit(tx.update)(grads, tx.init(params), params, loss=jnp.float32(1))
    same(jax.tree.map(lambda leaf: 2 * leaf, half), expected)
    state.hyperparams["factor"] = jnp.float32(0)
    none, _ = update(grads, state, params, loss=jnp.float32(1))
    assert not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(none))


def test_num_steps_may_be_traced(paths):
    """A horizon per lane: one program trains them all."""

    def first_update(num_steps):
        tx = mulo.learned_optimizer(paths["velo"], roles=roles(), num_steps=num_steps)
        state = tx.init(drawn())._replace(updates_done=jnp.int32(9))
        return tx.update(gradients(drawn()), state, drawn(), loss=jnp.float32(1))[0]

    short, long = (
        jax.tree.map(lambda leaf, i=i: leaf[i], jax.vmap(first_update)(jnp.array([10, 1000])))
        for i in range(2)
    )
    assert moved(short, long)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_parameters(tx, dtype):
    """Updates have the parameters' type; what is remembered is float32, at first and later on."""
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn())
    state = tx.init(params)
    step = jax.jit(step_with(tx))
    found, after, loss = step(params, state, *data())
    assert jax.tree.map(jnp.dtype, state) == jax.tree.map(jnp.dtype, after)
    averages = jax.tree.leaves(after.accumulators)
    assert {leaf.dtype for leaf in averages} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    for _ in range(FEW - 1):
        found, after, loss = step(found, after, *data())
    assert step._cache_size() == 1
    assert np.isfinite(float(loss))
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    expected, _, _ = train(tx, 1, wide)
    once, _, _ = step(params, state, *data())
    same(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), once), expected, 0.05)


def test_bfloat16_trains(paths):
    tx = mulo.learned_optimizer(paths["small_fc_lopt"], roles=roles(), num_steps=STEPS)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), drawn())
    _, _, losses = train(tx, STEPS, params)
    assert losses[-1] < 0.3 * losses[0]


def test_flax_train_state(paths):
    """`apply_gradients` passes no loss on: enough for small_fc_lopt, refused by VeLO."""
    grads = gradients(drawn())
    for name, path in paths.items():
        tx = mulo.learned_optimizer(path, roles=roles(), num_steps=STEPS)
        state = TrainState.create(apply_fn=Network().apply, params=drawn(), tx=tx)
        if name == "velo":
            with pytest.raises(UsageError, match="needs the loss"):
                state.apply_gradients(grads=grads)
        else:
            state = jax.jit(lambda state: state.apply_gradients(grads=grads))(state)
            assert state.step == 1
            assert moved(drawn(), state.params)


def test_flax_train_state_that_passes_the_loss(tx):
    class State(TrainState):
        def apply_gradients(self, *, grads, loss, **fields):
            with_loss = functools.partial(self.tx.update, loss=loss)
            inner = self.replace(tx=optax.GradientTransformation(self.tx.init, with_loss))
            return TrainState.apply_gradients(inner, grads=grads, **fields).replace(tx=self.tx)

    @jax.jit
    def step(state):
        loss, grads = jax.value_and_grad(loss_of)(state.params, *data())
        return state.apply_gradients(grads=grads, loss=loss)

    state = State.create(apply_fn=Network().apply, params=drawn(), tx=tx)
    for _ in range(FEW):
        state = step(state)
    same(state.params, train(tx, FEW)[0])


class NnxNetwork(nnx.Module):
    def __init__(self, width, rngs):
        self.first = nnx.Linear(FEATURES, width, rngs=rngs)
        self.hidden = nnx.Linear(width, width, rngs=rngs)
        self.last = nnx.Linear(width, CLASSES, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.hidden(nnx.relu(self.first(x)))))


def test_nnx_optimizer(paths):
    def model_of(width):
        return lambda key: NnxNetwork(width, nnx.Rngs(key))

    inferred = mulo.infer_roles(model_of(8), model_of(WIDTH))

    @nnx.jit
    def step(model, optimizer):
        def loss_fn(model):
            logits = model(data()[0])
            return optax.softmax_cross_entropy_with_integer_labels(logits, data()[1]).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads, loss=loss)
        return loss

    for name, path in paths.items():
        model = model_of(WIDTH)(jax.random.key(0))
        tx = mulo.learned_optimizer(path, roles=inferred, num_steps=STEPS)
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        losses = [float(step(model, optimizer)) for _ in range(20)]
        assert np.isfinite(losses).all()
        if name == "small_fc_lopt":
            assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: optax.chain(optax.clip(1.0), tx)])
def test_velo_without_a_loss_says_so_in_one_sentence(paths, wrap):
    tx = wrap(mulo.learned_optimizer(paths["velo"], roles=roles(), num_steps=STEPS))
    state = tx.init(drawn())
    with pytest.raises(UsageError) as caught:
        jax.jit(tx.update)(gradients(drawn()), state, drawn())
    assert str(caught.value) == "VeLO needs the loss of the step"
    assert caught.value.hint == "call update(grads, state, params, loss=loss)"


def test_small_fc_lopt_needs_no_loss_and_ignores_one(paths):
    tx = mulo.learned_optimizer(paths["small_fc_lopt"], roles=roles(), num_steps=STEPS)
    grads, params = gradients(drawn()), drawn()
    update = jax.jit(tx.update)
    without, _ = update(grads, tx.init(params), params)
    with_loss, _ = update(grads, tx.init(params), params, loss=jnp.float32(jnp.nan))
    same(with_loss, without)


def test_update_without_params_says_so(tx):
    with pytest.raises(UsageError, match="needs the parameters"):
        tx.update(gradients(drawn()), tx.init(drawn()), loss=1.0)
