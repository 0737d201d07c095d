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


def test_jax_draws_the_same_numbers_without_a_loop():
    def draw(key):
        noise = jax.random.normal(jax.random.fold_in(key, 3), (5, 7))
        return noise, jax.random.randint(key, (11,), 0, 1_000), jax.random.key_data(key)

    keys = jax.random.split(jax.random.key(0), 4)
    before = jax.jit(jax.vmap(draw))(keys)
    fuse_threefry()
    fused = jax.jit(jax.vmap(lambda key: draw(key))).lower(keys).compile()
    if jax.default_backend() == "cpu":
        assert " while(" not in fused.as_text()
    for was, now in zip(before, fused(keys), strict=True):
        np.testing.assert_array_equal(was, now)
