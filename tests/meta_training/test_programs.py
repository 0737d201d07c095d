"""Programs that are compiled side by side are the programs that jit would have made."""

import gc

import jax
import jax.numpy as jnp
import pytest

from mulo_cli.meta_training.kept_programs import KeptPrograms
from mulo_cli.meta_training.programs import Source, compiling_side_by_side

SCALAR = jax.ShapeDtypeStruct((), jnp.float32)


def double_and_count(state, x):
    """Take and return trees, so that leaves could change places."""
    return {"sum": state["sum"] + 2.0 * x, "count": state["count"] + 1}, x


def source(name: str = "double", function=double_and_count, *, donates: bool = False) -> Source:
    state = {"sum": SCALAR, "count": jax.ShapeDtypeStruct((), jnp.int32)}
    return Source(name, function, (state, SCALAR), (state, SCALAR), donates)


def begin() -> dict:
    return {"sum": jnp.float32(1.0), "count": jnp.int32(5)}


@pytest.fixture
def kept(tmp_path) -> KeptPrograms:
    return KeptPrograms(tmp_path / "traced", "identity")


def compiled(source: Source, kept: KeptPrograms | None = None):
    with compiling_side_by_side(kept) as compile_later:
        program = compile_later(source)
        program.compiled.result()
    return program


def test_each_program_does_what_its_function_does():
    with compiling_side_by_side(None) as compile_later:
        programs = [
            compile_later(Source(f"times_{n}", lambda x, n=n: n * x, (SCALAR,), SCALAR))
            for n in range(3)
        ]
        assert [float(program(jnp.float32(2.0))) for program in programs] == [0.0, 2.0, 4.0]


def test_a_program_that_cannot_be_traced_is_an_error_at_once():
    def wrong(state, x):
        raise RuntimeError("this network has no layers")

    with compiling_side_by_side(None) as compile_later, pytest.raises(RuntimeError, match="layers"):
        compile_later(source(function=wrong))
    assert gc.isenabled()


def test_a_program_that_returns_another_tree_than_was_said_is_refused():
    with compiling_side_by_side(None) as compile_later, pytest.raises(TypeError, match="double"):
        compile_later(source(function=lambda state, x: (x, state)))


def test_what_fails_to_compile_is_an_error_at_the_call(monkeypatch):
    def fail(self):
        raise MemoryError("no room for this program")

    monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
    with compiling_side_by_side(None) as compile_later:
        program = compile_later(source())
        with pytest.raises(MemoryError, match="no room"):
            program(begin(), jnp.float32(1.0))


@pytest.mark.parametrize("keeping", [False, True])
def test_what_a_function_donates_its_program_donates(keeping, kept):
    program = compiled(source(donates=True), kept if keeping else None)
    state, x = begin(), jnp.float32(3.0)
    (after, _) = program(state, x)
    assert float(after["sum"]) == 7.0
    assert int(after["count"]) == 6
    assert state["sum"].is_deleted()
    assert not x.is_deleted()


def test_what_was_kept_is_not_traced_again(kept):
    traced = []

    def counted(state, x):
        traced.append(1)
        return double_and_count(state, x)

    outcomes = [
        compiled(source(function=counted), kept)(begin(), jnp.float32(0.1)) for _ in range(2)
    ]
    assert len(traced) == 1
    assert outcomes[0] == outcomes[1] == double_and_count(begin(), jnp.float32(0.1))


@pytest.mark.parametrize("other", ["identity", "name", "shape"])
def test_what_was_kept_for_something_else_is_not_found(kept, other):
    leaves = [SCALAR]
    program = jax.export.export(jax.jit(lambda x: x + 1.0))(*leaves)
    kept.keep("one", leaves, program)
    assert kept.find("one", leaves) is not None
    stranger = KeptPrograms(kept.folder, "another" if other == "identity" else "identity")
    asked = [jax.ShapeDtypeStruct((2,), jnp.float32)] if other == "shape" else leaves
    assert stranger.find("two" if other == "name" else "one", asked) is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-7], lambda b: b[:50] + b"\0" + b[51:], lambda b: b""]
)
def test_a_damaged_program_is_traced_again(kept, damage):
    compiled(source(), kept)
    (file,) = kept.folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    leaves = jax.tree.leaves(source().arguments)
    assert kept.find("double", leaves) is None
    program = compiled(source(), kept)
    assert float(program(begin(), jnp.float32(1.0))[1]) == 1.0
    assert kept.find("double", leaves) is not None


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    program = compiled(source(), KeptPrograms(tmp_path / "file" / "traced", ""))
    assert float(program(begin(), jnp.float32(1.0))[1]) == 1.0


def test_a_program_that_calls_python_is_not_kept(kept):
    def calls(state, x):
        jax.debug.callback(lambda: None)
        return double_and_count(state, x)

    program = compiled(source(function=calls), kept)
    assert float(program(begin(), jnp.float32(1.0))[1]) == 1.0
    assert not kept.folder.exists()
