"""What the transformers promise besides: who sees whom, patches, heads, and depth scaling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.errors import UsageError
from mulo_cli.mup.roles import infer_roles
from mulo_cli.mup.rules import adam_like, standard
from mulo_cli.optimizees.gpt import GPT
from mulo_cli.optimizees.transformer import PUBLISHED_HEADS, usual_heads
from mulo_cli.optimizees.transformer_lm import TransformerLM
from mulo_cli.optimizees.vit import cut_into_patches, usual_patch
from mulo_cli.tasks.base import network_init, with_update_multipliers
from mulo_cli.tasks.losses import accuracy, next_token_cross_entropy
from tests.optimizees.networks import CLASSES, LENGTH, WIDTH, apply, build, inputs_of, shaken, start

TEXT = ("gpt", "lm")


@pytest.mark.parametrize("mup", [True, False], ids=["mup", "sp"])
@pytest.mark.parametrize("name", TEXT)
def test_a_position_sees_itself_and_all_before_and_nothing_after(name, mup, getkey):
    """By gradients: of the logits of every position, with respect to what every position reads."""
    network, params = start(name, mup, depth=2)
    params = shaken(params, getkey())
    tokens = inputs_of(name, batch=1)

    def summed_logits(positions):
        moved = {**params, "positions": positions}
        weights = jax.random.normal(jax.random.key(7), (CLASSES,))
        return network.apply({"params": moved}, tokens)[0] @ weights

    seen = np.abs(jax.jit(jax.jacrev(summed_logits))(params["positions"])).max(axis=-1)
    assert seen.shape == (LENGTH, LENGTH)
    assert not np.triu(seen, k=1).any(), "nothing comes from the future, not even a rounding"
    past = seen[np.tril_indices(LENGTH)]
    assert past.min() > 1e-6 * past.max()


@pytest.mark.parametrize("name", TEXT)
def test_another_token_changes_its_own_position_and_those_after(name, getkey):
    network, params = start(name, depth=2)
    params, tokens = shaken(params, getkey()), inputs_of(name, batch=1)
    other = tokens.at[0, 5].set((tokens[0, 5] + 1) % CLASSES)
    before, after = (apply(network, params, t)[0] for t in (tokens, other))
    changed = np.abs(after - before).max(axis=-1) > 0
    assert changed.tolist() == [False] * 5 + [True] * (LENGTH - 5)


def test_every_patch_of_an_image_is_seen(getkey):
    network, params = start("vit", depth=2)
    params, images = shaken(params, getkey()), inputs_of("vit", batch=1)
    weights = jnp.arange(CLASSES, dtype=jnp.float32)
    gradient = jax.grad(lambda x: apply(network, params, x)[0] @ weights)(images)
    assert np.abs(gradient).min() > 0


def test_patches_are_the_squares_of_an_image_row_by_row():
    images = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    patches = np.asarray(cut_into_patches(images, 2))
    assert patches.shape == (2, 6, 12)
    squares = [images[:, r : r + 2, c : c + 2] for r in (0, 2) for c in (0, 2, 4)]
    for number, square in enumerate(squares):
        np.testing.assert_array_equal(patches[:, number], square.reshape(2, -1))


@pytest.mark.parametrize(
    ("side", "patch"), [(8, 2), (28, 4), (32, 4), (64, 8), (96, 12), (224, 28), (7, 1), (1, 1)]
)
def test_a_patch_leaves_about_eight_on_a_side(side, patch):
    assert usual_patch(side, side) == patch


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_pooling_by_a_class_token_or_the_mean(pooling, getkey):
    _, params = start("vit", pooling=pooling)
    assert ("class_token" in params) == (pooling == "token")
    assert len(params["positions"]) == 16 + (pooling == "token")
    if pooling == "token":
        assert not params["class_token"].any()
    network = build("vit", pooling=pooling)
    logits = apply(network, shaken(params, getkey()), inputs_of("vit"))
    assert float(logits.std(axis=0).min()) > 0


def test_tables_are_drawn_alike_at_every_width():
    """N(0, 1/vocabulary) and N(0, 0.02^2)."""
    for width in (64, 1_024):
        network = TransformerLM(width=width, depth=1, num_classes=500, heads=1)
        example = jax.ShapeDtypeStruct((1, 300), jnp.int32)
        params = jax.jit(network_init(network, example))(jax.random.key(0))
        assert params["embed"]["embedding"].std() == pytest.approx(500**-0.5, rel=0.03)
        assert params["positions"].std() == pytest.approx(0.02, rel=0.03)


def test_norms_start_as_the_identity():
    _, params = start("lm")
    for norm in (params["norm"], params["blocks"]["norm_1"], params["blocks"]["norm_2"]):
        assert (np.asarray(norm["scale"]) == 1).all()
        assert not np.asarray(norm["bias"]).any()


def test_published_heads_and_others_of_size_64():
    for width, heads in PUBLISHED_HEADS.items():
        assert width % heads == 0
        assert usual_heads(width) == heads
    assert [usual_heads(width) for width in (16, 64, 128, 256, 512, 100)] == [1, 1, 2, 4, 8, 1]


def test_attention_divides_by_the_head_size_under_mup_and_by_its_root_under_sp(getkey):
    """Twice the queries and keys: the logits of attention grow fourfold, whatever divides them.

    So a network with another divisor is one with other queries; the ratio of the two is told.
    """
    tokens = inputs_of("lm", batch=4)
    (mup, params), (sp, _) = (
        start("lm", True, depth=1, heads=4),
        start("lm", False, depth=1, heads=4),
    )
    params = shaken(params, getkey())
    query = params["blocks"]["attention"]["query"]
    size = WIDTH // 4
    louder = jax.tree.map(lambda x: x * size**0.5, query)
    attention = {**params["blocks"]["attention"], "query": louder}
    turned = {**params, "blocks": {**params["blocks"], "attention": attention}}
    under_sp = apply(sp, params, tokens)
    under_mup = WIDTH * apply(mup, turned, tokens)
    np.testing.assert_allclose(under_mup, under_sp, rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(under_sp - WIDTH * apply(mup, params, tokens)).max()) > 1e-2


def test_heads_that_do_not_divide_the_width_are_an_error_that_says_which_do():
    with pytest.raises(UsageError, match="heads=3 does not divide the width 64"):
        start("lm", heads=3)


def test_a_patch_that_does_not_tile_the_image_is_an_error():
    with pytest.raises(UsageError, match="patch=3 does not tile images of 8 x 8"):
        start("vit", patch=3)


def test_padding_counts_neither_in_the_loss_nor_in_the_accuracy(getkey):
    logits = jax.random.normal(getkey(), (3, 5, CLASSES))
    targets = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    padded = targets.at[:, 3:].set(-1)
    short = next_token_cross_entropy(logits[:, :3], targets[:, :3])
    np.testing.assert_allclose(next_token_cross_entropy(logits, padded), short, rtol=1e-6)
    gradient = jax.grad(next_token_cross_entropy)(logits, padded)
    assert not np.asarray(gradient[:, 3:]).any()
    assert float(accuracy(logits, padded)) == 1.0
    wrong = padded.at[0, 0].set((padded[0, 0] + 1) % CLASSES)
    assert float(accuracy(logits, wrong)) == pytest.approx(8 / 9)
    nothing = jnp.full((3, 5), -1, jnp.int32)
    assert float(next_token_cross_entropy(logits, nothing)) == 0.0


def gpt(depth: int, power: float, mup: bool = True) -> GPT:
    return GPT(
        width=WIDTH,
        depth=depth,
        num_classes=CLASSES,
        parametrization="mup" if mup else "sp",
        depth_power=power,
    )


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_depth_scaling_multiplies_every_branch(power, getkey):
    """As if every projection into the stream were smaller, and nothing else."""
    example = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)
    params = shaken(jax.jit(network_init(gpt(4, power), example))(getkey()), getkey())
    factor = 4.0**-power
    blocks = params["blocks"]
    shrunk = {
        **blocks,
        "down": jax.tree.map(lambda x: factor * x, blocks["down"]),
        "attention": {
            **blocks["attention"],
            "out": jax.tree.map(lambda x: factor * x, blocks["attention"]["out"]),
        },
    }
    tokens = inputs_of("gpt")
    scaled = apply(gpt(4, power), params, tokens)
    plain = apply(gpt(4, 0.0), {**params, "blocks": shrunk}, tokens)
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-5)
    unscaled = apply(gpt(4, 0.0), params, tokens)
    assert float(jnp.abs(scaled - unscaled).max()) > 1e-3


def test_depth_scaling_of_one_half_slows_the_blocks_by_the_root_of_the_depth():
    for depth, power in itertools.product((4, 16), (0.0, 0.5, 1.0)):
        wanted = {"blocks": depth**-0.5} if power == 0.5 else {}
        assert gpt(depth, power).update_multipliers == wanted
    assert not gpt(4, 0.5, mup=False).update_multipliers


def test_an_update_multiplier_acts_beside_the_rule(roles_with_depth_scaling):
    roles = roles_with_depth_scaling
    query = roles["blocks"]["attention"]["query"]
    assert adam_like(query["kernel"]) == pytest.approx(4**-0.5 / WIDTH)
    assert adam_like(query["bias"]) == standard(query["bias"]) == pytest.approx(4**-0.5)
    assert adam_like(roles["embed"]["embedding"]) == 1.0
    assert adam_like(roles["norm"]["scale"]) == 1.0


@pytest.fixture
def roles_with_depth_scaling():
    """Return the roles of a GPT with depth scaling, as a task has them."""
    example = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)
    inits = [
        network_init(GPT(width=width, depth=4, num_classes=CLASSES, depth_power=0.5), example)
        for width in (2 * WIDTH, WIDTH)
    ]
    roles = infer_roles(*inits, readout="forward")
    return with_update_multipliers(roles, gpt(4, 0.5).update_multipliers)
