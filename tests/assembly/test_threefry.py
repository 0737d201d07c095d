"""Threefry written out gives the published words, and jax the numbers that it always gave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mulo_cli.assembly.threefry import fuse_threefry, threefry_2x32

KNOWN = (
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
)
"""(key, counter, words): known answers of Random123, the authors' library, for 20 rounds."""


@pytest.mark.parametrize(("key", "counter", "words"), KNOWN)
def test_words_are_those_of_the_authors(key, counter, words):
    made = threefry_2x32(*(jnp.uint32(word) for word in (*key, *counter)))
    assert tuple(map(int, made)) == words


DRAWN = (
    (0xF29A4FA7, 0xFA843692, 0x55110E28, 0x77FAA835, 0x91E43BB7),
    (0x9312778B, 0xE4E8DFBE),
    ((0x6B200159, 0x99BA4EFE), (0x375F238F, 0xCDDB151D), (0xF71F4EA9, 0xA20E4081)),
    (789, 0, 712, 373, 771, 347, 832),
)
"""What jax 0.10.2 draws by itself: bits, a folded key, split keys, integers. Written down, because
within one process nothing can be drawn in the old way once threefry has been fused."""


def test_jax_draws_the_same_numbers_without_a_loop():
    def draw(key):
        return (
            jax.random.bits(key, (5,)),
            jax.random.key_data(jax.random.fold_in(key, 3)),
            jax.random.key_data(jax.random.split(key, 3)),
            jax.random.randint(key, (7,), 0, 1_000),
        )

    fuse_threefry()
    keys = jnp.stack([jax.random.key(1), jax.random.key(0)])
    fused = jax.jit(jax.vmap(draw)).lower(keys).compile()
    if jax.default_backend() == "cpu":
        assert " while(" not in fused.as_text()
    for known, drawn in zip(DRAWN, fused(keys), strict=True):
        np.testing.assert_array_equal(drawn[1], known)
