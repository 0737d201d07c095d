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
    FEW,
    STEPS,
    TOLERANCE,
    WIDTH,
    Network,
    data,
    drawn,
    gradients,
    loss_of,
    same,
    step_with,
    train,
)

ONE = jnp.float32(1)


def is_matrix(tree):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)


def is_zero(tree) -> bool:
    return not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(tree))


def has_moved(before, after) -> bool:
    return all(
        np.any(np.asarray(a) != np.asarray(b))
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


def test_it_is_of_optax_s_own_type(either):
    assert isinstance(either.tx, optax.GradientTransformationExtraArgs)


def test_the_real_artefact_trains(mulo_m):
    _, _, losses = mulo_m.trained(steps=STEPS)
    assert losses[-1] < 0.3 * losses[0]


def test_jit_compiles_once(either):
    step = jax.jit(step_with(either.tx))
    params, state = drawn(), either.tx.init(drawn())
    for _ in range(FEW):
        params, state, loss = step(params, state, *data())
    assert step._cache_size() == 1
    assert np.isfinite(loss)
    assert has_moved(drawn(), params)


def test_vmap_over_seeds_is_a_loop_over_seeds(either):
    inits = [drawn(seed) for seed in range(2)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *inits)
    state = jax.vmap(either.tx.init)(params)
    step = jax.jit(jax.vmap(step_with(either.tx), in_axes=(0, 0, None, None)))
    for _ in range(FEW):
        params, state, losses = step(params, state, *data())
    assert losses.shape == (2,)
    for seed, given in enumerate(inits):
        alone, _, _ = either.trained(given)
        same(jax.tree.map(lambda leaf, i=seed: leaf[i], params), alone)


def test_scan_is_a_loop(either):
    def run(params):
        def body(carry, _):
            *carry, loss = step_with(either.tx)(*carry, *data())
            return tuple(carry), loss

        return jax.lax.scan(body, (params, either.tx.init(params)), length=FEW)

    (params, state), losses = jax.jit(run)(drawn())
    expected, expected_state, expected_losses = either.trained()
    same(params, expected)
    same(state, expected_state)
    np.testing.assert_allclose(losses, expected_losses, atol=TOLERANCE)


def test_donated_buffers(either):
    """Params and state are given away, from the very first state on; no buffer is there twice."""
    step = jax.jit(step_with(either.tx), donate_argnums=(0, 1))
    params, state = drawn(), either.tx.init(drawn())
    for _ in range(FEW):
        given = jax.tree.leaves((params, state))
        params, state, _ = step(params, state, *data())
        assert all(leaf.is_deleted() for leaf in given)
    same(params, either.trained()[0])


def test_chain_of_clipping_weight_decay_and_schedule(mulo_m):
    """Its updates already point downhill: decay subtracts, and a schedule has no sign."""
    decay, schedule, largest = 0.01, optax.linear_schedule(1.0, 0.0, 10), 0.01
    chain = optax.chain(
        optax.clip_by_global_norm(largest),
        mulo_m.tx,
        optax.add_decayed_weights(-decay, mask=is_matrix),
        optax.scale_by_schedule(schedule),
    )
    found, _, _ = train(chain, FEW)
    loss_and_grads = jax.jit(jax.value_and_grad(loss_of))

    params, state = drawn(), mulo_m.tx.init(drawn())
    for i in range(FEW):
        loss, grads = loss_and_grads(params, *data())
        norm = optax.tree.norm(grads)
        assert norm > largest
        clipped = jax.tree.map(lambda g, by=norm: g * largest / by, grads)
        updates, state = mulo_m.update(clipped, state, params, loss=loss)
        params = jax.tree.map(
            lambda p, u, at=i: p + schedule(at) * (u - decay * p * (p.ndim > 1)), params, updates
        )
    same(found, params)


def test_multi_transform_beside_adam(either):
    """Matrices are its own, vectors are Adam's; a tensor of another is nothing to it."""
    adam = optax.adam(1e-2)
    mixed = optax.multi_transform(
        {"learned": either.tx, "adam": adam},
        lambda params: jax.tree.map(lambda p: "learned" if p.ndim > 1 else "adam", params),
    )
    state = mixed.init(drawn())
    updates, state = jax.jit(mixed.update)(gradients(), state, drawn(), loss=ONE)
    by_adam, _ = adam.update(gradients(), adam.init(drawn()))
    same(updates["Dense_1"]["bias"], by_adam["Dense_1"]["bias"])
    assert all(not is_zero(leaf) for leaf in jax.tree.leaves(updates["Readout_0"]))
    held = state.inner_states["learned"].inner_state.accumulators
    averages = jax.tree.leaves(held, is_leaf=lambda node: isinstance(node, Accumulators))
    assert len(averages) == 3, "those of matrices"


def test_a_masked_tensor_gets_the_update_it_gets_among_others(mulo_m):
    """small_fc_lopt's tensors do not know of one another."""
    masked = optax.masked(mulo_m.tx, is_matrix)
    found, _ = jax.jit(masked.update)(gradients(), masked.init(drawn()), drawn())
    expected, _ = mulo_m.update(gradients(), mulo_m.tx.init(drawn()), drawn())
    for name in found:
        same(found[name]["kernel"], expected[name]["kernel"])
    same(found["Dense_1"]["bias"], gradients()["Dense_1"]["bias"], 0)


def test_a_mask_may_leave_nothing(either):
    masked = optax.masked(either.tx, lambda tree: jax.tree.map(lambda _: False, tree))
    found, _ = masked.update(gradients(), masked.init(drawn()), drawn(), loss=ONE)
    same(found, gradients(), 0)


def test_params_that_are_not_trained_may_be_none(velo):
    """As `equinox.partition` leaves them."""
    params, grads = ({**tree, "Dense_0": {"kernel": None}} for tree in (drawn(), gradients()))
    updates, _ = velo.update(grads, velo.tx.init(params), params, loss=ONE)
    assert updates["Dense_0"] == {"kernel": None}
    assert not is_zero(updates)


def test_apply_if_finite_skips_a_step(velo):
    """The step that is skipped is not remembered, nor is its loss."""
    safe = optax.apply_if_finite(velo.tx, max_consecutive_errors=3)
    update = jax.jit(safe.update)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), gradients())
    updates, state = update(bad, safe.init(drawn()), drawn(), loss=jnp.float32(jnp.nan))
    assert is_zero(updates)
    found, _ = update(gradients(), state, drawn(), loss=ONE)
    expected, _ = velo.update(gradients(), velo.tx.init(drawn()), drawn(), loss=ONE)
    same(found, expected)


def test_gradient_accumulation(velo):
    """Of two halves of a batch, the gradients are averaged; the loss seen is the second half's."""
    accumulating = optax.MultiSteps(velo.tx, every_k_schedule=2)
    update, state = jax.jit(accumulating.update), accumulating.init(drawn())
    half = jax.tree.map(lambda leaf: 0.5 * leaf, gradients())
    more = jax.tree.map(lambda leaf: 1.5 * leaf, gradients())
    updates, state = update(half, state, drawn(), loss=3 * ONE)
    assert is_zero(updates)
    updates, _ = update(more, state, drawn(), loss=ONE)
    expected, _ = velo.update(gradients(), velo.tx.init(drawn()), drawn(), loss=ONE)
    same(updates, expected)


def test_a_factor_injected_as_a_hyperparameter(velo):
    injected = optax.inject_hyperparams(lambda f: optax.chain(velo.tx, optax.scale(f)))(f=0.5)
    update, state = jax.jit(injected.update), injected.init(drawn())
    half, state = update(gradients(), state, drawn(), loss=ONE)
    expected, _ = velo.update(gradients(), velo.tx.init(drawn()), drawn(), loss=ONE)
    same(jax.tree.map(lambda leaf: 2 * leaf, half), expected)
    state.hyperparams["f"] = jnp.float32(0)
    assert is_zero(update(gradients(), state, drawn(), loss=ONE)[0])


def test_bfloat16_parameters(either):
    """Updates have the parameters' type; what is remembered is float32, at first and later on."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), drawn())
    found, step = (params, either.tx.init(params)), jax.jit(step_with(either.tx))
    for _ in range(FEW):
        *found, loss = step(*found, *data())
        assert {leaf.dtype for leaf in jax.tree.leaves(found[0])} == {jnp.dtype(jnp.bfloat16)}
        averages = jax.tree.leaves(found[1].accumulators)
        assert {leaf.dtype for leaf in averages} == {jnp.dtype(jnp.float32)}
    assert step._cache_size() == 1
    assert np.isfinite(float(loss))


def test_bfloat16_trains(mulo_m):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), drawn())
    _, _, losses = mulo_m.trained(params, STEPS)
    assert losses[-1] < 0.3 * losses[0]


def test_flax_train_state_passes_no_loss(both):
    """Enough for small_fc_lopt; VeLO says what it misses."""

    def applied(name):
        state = TrainState.create(apply_fn=Network().apply, params=drawn(), tx=both[name].tx)
        return state.apply_gradients(grads=gradients())

    assert has_moved(drawn(), jax.jit(lambda: applied("small_fc_lopt"))().params)
    with pytest.raises(UsageError, match="needs the loss"):
        applied("velo")


def test_flax_train_state_that_passes_it(velo):
    """The class that the how-to shows."""

    class StateWithLoss(TrainState):
        def apply_gradients(self, *, grads, loss, **fields):
            updates, state = self.tx.update(grads, self.opt_state, self.params, loss=loss)
            params = optax.apply_updates(self.params, updates)
            return self.replace(step=self.step + 1, params=params, opt_state=state, **fields)

    @jax.jit
    def step(state):
        loss, grads = jax.value_and_grad(loss_of)(state.params, *data())
        return state.apply_gradients(grads=grads, loss=loss)

    state = StateWithLoss.create(apply_fn=Network().apply, params=drawn(), tx=velo.tx)
    for _ in range(FEW):
        state = step(state)
    same(state.params, velo.trained()[0])


class NnxNetwork(nnx.Module):
    def __init__(self, width, rngs):
        self.first = nnx.Linear(FEATURES, width, rngs=rngs)
        self.hidden = nnx.Linear(width, width, rngs=rngs)
        self.last = nnx.Linear(width, CLASSES, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.hidden(nnx.relu(self.first(x)))))


def test_nnx_optimizer(both):
    """`nnx.Optimizer` begins with a state of Params and goes on with plain arrays."""

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

    for name, each in both.items():
        model = model_of(WIDTH)(jax.random.key(0))
        tx = mulo.learned_optimizer(each.path, roles=inferred, num_steps=STEPS)
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        losses = [float(step(model, optimizer)) for _ in range(20)]
        assert np.isfinite(losses).all()
        if name == "small_fc_lopt":
            assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("wrap", [lambda tx: tx, functools.partial(optax.chain, optax.clip(1.0))])
def test_velo_without_a_loss_says_so_in_one_sentence(velo, wrap):
    tx = wrap(velo.tx)
    with pytest.raises(UsageError) as caught:
        jax.jit(tx.update)(gradients(), tx.init(drawn()), drawn())
    assert str(caught.value) == "VeLO needs the loss of the step"
    assert caught.value.hint == "call update(grads, state, params, loss=loss)"


def test_small_fc_lopt_ignores_the_loss(mulo_m):
    state = mulo_m.tx.init(drawn())
    without, _ = mulo_m.update(gradients(), state, drawn())
    nothing, _ = mulo_m.update(gradients(), state, drawn(), loss=jnp.float32(jnp.nan))
    same(nothing, without, 0)


def test_update_without_params_says_so(either):
    with pytest.raises(UsageError, match="needs the parameters"):
        either.tx.update(gradients(), either.tx.init(drawn()), loss=ONE)
