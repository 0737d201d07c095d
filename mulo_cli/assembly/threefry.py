"""JAX's random numbers compiled as one fused kernel on a CPU: the same bits, compiled faster.

J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011):
Threefry-2x32 with 20 rounds. On a CPU jax writes it as a loop of five turns, of which XLA makes
some ten small kernels per draw; initialising one network takes longer to compile than training it.
Written out, the rounds are elementwise arithmetic that is fused with whatever reads the numbers.
"""

from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir
from jaxtyping import Array, UInt32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
"""Bits by which the second word is rotated, in turn (table 2 of the paper: R for N = 2, W = 32)."""

PARITY = 0x1BD11BDA
"""The constant of the third word of a key (Threefish's, for words of 32 bits)."""

GROUPS = 5
"""Of four rounds each; words of the key are added after each group."""

WORD_BITS = 32

Words = UInt32[Array, "..."]


def fuse_threefry() -> None:
    """Let jax compile Threefry for CPUs without a loop, for as long as the process lives.

    No number changes. Call before anything is compiled; calling it again does nothing.
    """
    rule = mlir.lower_fun(threefry_2x32, multiple_results=True)
    mlir.register_lowering(threefry2x32_p, rule, platform="cpu")


def threefry_2x32(key_1: Words, key_2: Words, x_1: Words, x_2: Words) -> tuple[Words, Words]:
    """Scramble two words of counters under two words of a key.

    Returns:
        Two words; all four arguments are broadcast against each other.
    """
    words = (key_1, key_2, key_1 ^ key_2 ^ PARITY)
    x_1, x_2 = x_1 + words[0], x_2 + words[1]
    for group in range(GROUPS):
        for bits in ROTATIONS[group % 2]:
            x_1 = x_1 + x_2
            x_2 = x_1 ^ _rotated_left(x_2, bits)
        x_1 = x_1 + words[(group + 1) % 3]
        x_2 = x_2 + words[(group + 2) % 3] + (group + 1)
    return x_1, x_2


def _rotated_left(x: Words, bits: int) -> Words:
    return (x << bits) | (x >> (WORD_BITS - bits))
