"""Programs that are compiled side by side are the programs that jit would have made."""

import jax
import jax.numpy as jnp
import pytest

from mulo_cli.meta_training.programs import side_by_side


def test_each_program_does_what_its_function_does():
    with side_by_side() as compile_later:
        programs = [
            compile_later(jax.jit(lambda x, n=n: n * x), jax.ShapeDtypeStruct((), jnp.float32))
            for n in range(3)
        ]
        assert [float(program(jnp.float32(2.0))) for program in programs] == [0.0, 2.0, 4.0]


def test_a_program_that_cannot_be_traced_is_an_error_at_once():
    def wrong(x):
        raise ValueError("this network has no layers")

    with side_by_side() as compile_later, pytest.raises(ValueError, match="no layers"):
        compile_later(jax.jit(wrong), jnp.float32(0.0))


def test_what_a_function_donates_its_program_donates():
    with side_by_side() as compile_later:
        x = jnp.zeros((4,))
        program = compile_later(jax.jit(lambda x: x + 1.0, donate_argnums=0), x)
        program(x)
    assert x.is_deleted()
