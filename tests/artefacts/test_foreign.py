"""Files of strangers: read to the bit, or refused in one sentence with nothing executed."""

import bz2
import collections
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import flax.serialization
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulo_cli.artefacts.foreign import files
from mulo_cli.artefacts.foreign.architectures import expected_shapes, recognise, to_theta
from mulo_cli.artefacts.foreign.files import ForeignFile, read_foreign
from mulo_cli.artefacts.trees import named_leaves, tree_checksum
from mulo_cli.errors import ArtefactError, MuloError
from tests.artefacts.foreign_files import (
    SMALL,
    VELO,
    msgpack_of,
    mulo_pickle,
    published,
    pylo_file,
    pylo_tensors,
    theta_of,
    velo_container,
)

CELO = Path(__file__).parents[3] / "shared/data/learned_optimizer_weights/celo.theta.state"


def read(folder: Path, content: bytes, name: str = "file") -> ForeignFile:
    (folder / name).write_bytes(content)
    return read_foreign(folder / name)


def refused(folder: Path, content: bytes) -> ArtefactError:
    """Assert that a file is refused in one sentence with advice, and nothing else happens."""
    (folder / "file").write_bytes(content)
    with pytest.raises(ArtefactError) as caught:
        read_foreign(folder / "file")
    assert "\n" not in caught.value.message
    assert "'file'" in caught.value.message
    assert len(caught.value.message) < 400
    assert caught.value.hint
    assert [path.name for path in folder.iterdir()] == ["file"]
    return caught.value


# --- What is read ---------------------------------------------------------------------------------

WRITTEN = {
    "flax msgpack": msgpack_of,
    "VeLO container": velo_container,
    "pickle": mulo_pickle,
}


@pytest.mark.parametrize("theta", [SMALL, VELO], ids=["small_fc_lopt", "velo"])
@pytest.mark.parametrize("container", WRITTEN)
def test_every_container_gives_theta_to_the_bit(tmp_path, container, theta):
    file = read(tmp_path, WRITTEN[container](theta))
    assert file.container == container
    found = recognise(file.arrays)
    assert found.complaints == ()
    again = to_theta(found.architecture or "", found.sizes, file.arrays)
    assert tree_checksum(again) == tree_checksum(theta)


def test_pylos_file_is_turned_round_and_lacks_the_decays(tmp_path):
    file = read(tmp_path, pylo_file(SMALL))
    assert file.container == "PyLO safetensors"
    for name, leaf in named_leaves(SMALL["nn"]).items():
        assert file.arrays[f"nn/{name}"].tobytes() == leaf.tobytes()
    decays = {"momentum_decays", "rms_decays", "adafactor_decays"}
    assert recognise(file.arrays, forgiven=frozenset(decays)).complaints == ()
    assert {text.split("'")[1] for text in recognise(file.arrays).complaints} == decays


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "leaf", [np.asarray, jnp.asarray, np.asfortranarray], ids=["np", "jax", "F"]
)
def test_pickles_of_every_protocol_and_kind_of_array(tmp_path, protocol, leaf):
    if protocol < 2 and leaf is jnp.asarray:
        pytest.skip("JAX has no such pickles")
    file = read(tmp_path, mulo_pickle(SMALL, protocol, leaf))
    expected = named_leaves(SMALL)
    assert file.arrays.keys() == expected.keys()
    for name, array in file.arrays.items():
        assert array.dtype == np.float32
        assert array.tobytes() == expected[name].tobytes()


def test_pickles_of_older_numpy_and_jax_are_read(tmp_path):
    content = mulo_pickle(SMALL, 2)
    assert b"numpy._core.multiarray" in content
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert read(tmp_path, old).arrays.keys() == named_leaves(SMALL).keys()
    content = mulo_pickle(SMALL, 2, jnp.asarray)
    old = content.replace(
        b"jax._src.array\n_reconstruct_array", b"jax._src.device_array\nreconstruct_device_array"
    )
    assert old != content
    assert read(tmp_path, old).arrays.keys() == named_leaves(SMALL).keys()


@pytest.mark.parametrize("protocol", range(6))
def test_an_array_without_numbers_is_spelled_in_several_ways(tmp_path, protocol):
    content = pickle.dumps({"a": np.zeros((0, 3), np.float32), "b": {}}, protocol)
    assert read(tmp_path, content).arrays["a"].shape == (0, 3)


@pytest.mark.parametrize("name", ["FlatMap", "frozendict"])
def test_haikus_mapping_had_several_names(tmp_path, name):
    content = mulo_pickle(SMALL, 2).replace(
        b"haiku._src.data_structures\nFlatMapping", f"haiku._src.data_structures\n{name}".encode()
    )
    assert read(tmp_path, content).arrays.keys() == named_leaves(SMALL).keys()


def test_ordered_dicts_scalars_and_big_endian_numbers(tmp_path):
    tree = collections.OrderedDict(
        step=np.int32(3), w=np.arange(3, dtype=">f4"), nothing=None, name="µ\x1b[31m"
    )
    file = read(tmp_path, pickle.dumps(tree))
    assert file.arrays["step"] == 3
    np.testing.assert_array_equal(file.arrays["w"], [0, 1, 2])
    assert file.notes["nothing"] == "None"
    assert "\x1b" not in file.notes["name"], "a terminal would obey it"


def test_what_surrounds_velo_is_a_note(tmp_path):
    assert read(tmp_path, velo_container(VELO)).notes == {"gen_id": "gen 7", "step": "12"}


def test_a_level_without_a_name_says_nothing(tmp_path):
    assert "nn" in published(SMALL)
    assert read(tmp_path, msgpack_of(SMALL)).arrays.keys() == named_leaves(SMALL).keys()
    plain = flax.serialization.msgpack_serialize(SMALL)
    assert read(tmp_path, plain).arrays.keys() == named_leaves(SMALL).keys()


@pytest.mark.skipif(not CELO.exists(), reason="needs ../shared/data, which is no part of this")
def test_celos_weights_are_described_truthfully():
    file = read_foreign(CELO)
    assert file.container == "flax msgpack"
    found = recognise(file.arrays)
    assert (found.architecture, len(file.arrays)) == ("velo", 33)
    assert found.sizes == {"hidden_size": 4, "lstm_size": 64, "bank_size": 1}
    (complaint,) = found.complaints
    assert "relative of VeLO" in complaint
    assert "18" in complaint


# --- Which architecture ---------------------------------------------------------------------------


def changed(name: str, array: np.ndarray | None, theta=SMALL) -> tuple[str, ...]:
    arrays = {**named_leaves(theta)}
    if array is None:
        arrays.pop(name)
    else:
        arrays[name] = array
    return recognise(arrays).complaints


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("nn/w0", None, "'nn/w0' is missing"),
        ("nn/w0", np.zeros((38, 5), np.float32), "has shape (38, 5)"),
        ("nn/w1", np.zeros((5, 6), np.float32), "has (5, 5)"),
        ("nn/w3", np.zeros(3, np.float32), "'nn/w3' is one too many"),
        ("nn/b1", np.full(5, np.nan, np.float32), "not finite"),
        ("nn/b1", np.full(5, np.inf, np.float32), "not finite"),
        ("nn/b1", np.zeros(5, np.int32), "type int32"),
        ("nn/b1", np.zeros(5, bool), "type bool"),
        ("nn/b1", np.full(5, 0.1), "do not fit into float32"),
        ("nn/b1", np.full(5, 1e300), "do not fit into float32"),
        ("nn/b0", np.zeros(0, np.float32), "zero or absurd"),
    ],
)
def test_what_is_wrong_is_named_with_both_shapes(name, array, said):
    assert any(said in text for text in changed(name, array)), changed(name, array)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_taken_where_nothing_is_rounded(dtype):
    arrays = {name: np.round(leaf, 1).astype(np.float16).astype(dtype)
              for name, leaf in named_leaves(SMALL).items()}  # fmt: skip
    found = recognise(arrays)
    assert found.complaints == ()
    theta = to_theta("small_fc_lopt", found.sizes, arrays)
    for name, leaf in named_leaves(theta).items():
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, arrays[name])


def test_a_bag_of_anything_is_no_architecture():
    found = recognise({"layer/kernel": np.zeros((3, 3), np.float32)})
    assert found.architecture is None
    assert found.complaints


def test_a_very_large_velo_is_recognised_by_shapes_alone():
    shapes = expected_shapes("velo", {"hidden_size": 4, "lstm_size": 512, "bank_size": 256})
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    found = recognise(arrays)
    assert found.complaints == ()
    assert found.sizes == {"hidden_size": 4, "lstm_size": 512, "bank_size": 256}


# --- Malice ---------------------------------------------------------------------------------------

MARK = "executed"


class Evil:
    """Whatever it is made of is what loading it would call."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        *parts, last = self.parts
        return (*parts, iter(last)) if len(parts) == 4 else self.parts


def evil_calls(marker: Path) -> dict[str, object]:
    """Return objects whose loading by Python itself would leave a mark."""
    touch = f"touch {marker}"
    write = f"open({str(marker)!r}, 'w')"
    return {
        "posix.system": Evil(os.system, (touch,)),
        "builtins.eval": Evil(eval, (write,)),
        "builtins.exec": Evil(exec, (write,)),
        "io.open": Evil(open, (str(marker), "w")),
        "builtins.getattr": Evil(getattr, ("", "join")),
        "subprocess.Popen": Evil(subprocess.Popen, (["touch", str(marker)],)),
        "builtins.compile": Evil(dict, (), None, None, [(1, Evil(compile, ("1", "f", "eval")))]),
        "numpy.load": Evil(np.load, (str(marker),)),
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", evil_calls(Path("x")))
def test_a_pickle_that_calls_something_is_refused_and_named(tmp_path, name, protocol):
    marker = tmp_path.parent / f"{MARK}-{tmp_path.name}"
    evil = evil_calls(marker)[name]
    for tree in (evil, {"nn": {"w0": [1, (evil,)]}}, {"a": np.array([evil], object)}):
        (tmp_path / "file").unlink(missing_ok=True)
        try:
            content = pickle.dumps(tree, protocol)
        except pickle.PicklingError:
            pytest.skip("this protocol cannot spell it")
        message = refused(tmp_path, content).message
        old = {"builtins": "__builtin__", "subprocess": "commands"} if protocol < 3 else {}
        module, _, what = name.partition(".")
        spelled = f"{old.get(module, module)}.{what}"
        assert spelled in message or "'O8'" in message
        assert "nothing was executed" in message or "'O8'" in message
        assert not marker.exists()


def test_the_marks_would_be_left_by_pythons_own_unpickler(tmp_path):
    marker = tmp_path / MARK
    pickle.loads(pickle.dumps(evil_calls(marker)["posix.system"]))
    assert marker.exists(), "the test above must be able to fail"


HAND_WRITTEN = {
    "inst": b"(S'touch x'\niposix\nsystem\n.",
    "obj": b"(cposix\nsystem\nS'touch x'\no.",
    "newobj": b"\x80\x02cposix\nsystem\n)\x81.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02}q\x00X\x01\x00\x00\x00aX\x01\x00\x00\x00bQs.",
    "persistent text": b"Pfile\n.",
    "builds a class": b"\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.",
    "builds slots": b"\x80\x02cnumpy\ndtype\nN}X\x05\x00\x00\x00_callNs\x86b.",
    "builds a dtype": b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85RK\x01b.",
    "an array of a class": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\ndtype\n"
    b"K\x00\x85C\x01b\x87R.",
    "an unfinished array": b"\x80\x02}X\x01\x00\x00\x00acnumpy._core.multiarray\n_reconstruct\n"
    b"cnumpy\nndarray\nK\x00\x85C\x01b\x87Rs.",
    "a class as a leaf": b"\x80\x02}X\x01\x00\x00\x00acnumpy\nndarray\ns.",
    "attribute of an allowed one": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__class__\x93.",
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "memo text": b"}p99999999999\n.",
    "declares 4 GiB": b"\x80\x04\x8e\x00\x00\x00\x00\x01\x00\x00\x00abc.",
    "declares 2^63": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "a frame of 2^60": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x10}.",
    "no end": b"\x80\x02}",
    "two pickles": b"\x80\x02}.\x80\x02}.",
    "text keys only": b"\x80\x02}K\x01K\x02s.",
    "absurd number": b"\x80\x02}X\x01\x00\x00\x00a\x8b\x10\x00\x00\x00" + b"\x7f" * 16 + b"s.",
    "many digits": b"}S'a'\nL" + b"9" * 10_000 + b"L\ns.",
    "nothing": b"\x80\x04.",
    "codecs": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
    "unhashable": b"\x80\x02}]K\x01s.",
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_pickles_written_by_hand_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, HAND_WRITTEN[name])


@pytest.mark.parametrize("name", ["inst", "obj", "newobj"])
def test_old_ways_of_calling_are_named_too(tmp_path, name):
    assert "posix.system" in refused(tmp_path, HAND_WRITTEN[name]).message


def test_an_absurd_name_is_shown_without_its_controls(tmp_path):
    content = b"\x80\x02cposix\nsys\x1b[31mtem" + b"x" * 5_000 + b"\n."
    message = refused(tmp_path, content).message
    assert "\x1b" not in message


def test_stand_ins_are_the_same_after_a_hostile_file(tmp_path):
    refused(tmp_path, HAND_WRITTEN["builds slots"])
    assert read(tmp_path, mulo_pickle(SMALL)).arrays


def array_pickle(shape: tuple, content: bytes, code: str = "f4") -> bytes:
    """Return a pickle of an array that declares what it likes."""
    honest = pickle.dumps({"a": np.zeros(0, np.float32)}, protocol=2)
    state = pickle.dumps((1, shape, None, False, content), protocol=2)
    del honest, state
    parts = [b"\x80\x02}X\x01\x00\x00\x00acnumpy._core.multiarray\n_reconstruct\n"]
    parts += [b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01("]
    parts += [b"\x8a\x09" + n.to_bytes(9, "little", signed=True) for n in shape]
    text = code.encode()
    parts += [b"tcnumpy\ndtype\nX" + struct.pack("<I", len(text)) + text + b"\x89\x88\x87R"]
    parts += [b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"]
    parts += [b"\x89B" + struct.pack("<I", len(content)) + content + b"tbs."]
    return b"".join(parts)


HUGE = [((2**40,), b""), ((2**62, 2**62), b""), ((0, 2**62, 2**62), b""), ((-1,), b"1234"),
        ((1,) * 70, b"1234"), ((2,), b"1234"), ((), b"")]  # fmt: skip


def test_an_array_written_by_hand_is_read(tmp_path):
    file = read(tmp_path, array_pickle((1,), np.float32(2).tobytes()))
    np.testing.assert_array_equal(file.arrays["a"], np.array([2], np.float32))


@pytest.mark.parametrize(("shape", "content"), HUGE, ids=str)
def test_arrays_that_declare_more_than_they_have(tmp_path, shape, content):
    refused(tmp_path, array_pickle(shape, content))
    array = msgpack.ExtType(1, msgpack.packb((list(map(clamped, shape)), "float32", content)))
    refused(tmp_path, msgpack.packb({"a": array}))
    header = {"a": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, len(content)]}}
    refused(tmp_path, safetensors_of(header, content))


def clamped(number: int) -> int:
    """Msgpack has no larger numbers."""
    return min(number, 2**64 - 1)


def safetensors_of(header: object, content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


@pytest.mark.parametrize(
    "code", ["O8", "V4", "S4", "U1", "M8", "c8", "f16", "f2,f2", "", "x" * 999]
)
def test_arrays_of_anything_but_plain_numbers(tmp_path, code):
    refused(tmp_path, array_pickle((1,), b"12345678", code))
    for name in (code, "object", "bfloat16", "complex64", "longdouble"):
        array = msgpack.ExtType(1, msgpack.packb(([1], name, b"12345678")))
        refused(tmp_path, msgpack.packb({"a": array}))


TEXT_SHAPE = msgpack.ExtType(1, msgpack.packb(("1", "float32", b"1234")))
MSGPACKS = {
    "another extension": msgpack.packb({"a": msgpack.ExtType(9, b"")}),
    "a complex number": msgpack.packb({"a": msgpack.ExtType(2, msgpack.packb((1.0, 2.0)))}),
    "an array of nothing": msgpack.packb({"a": msgpack.ExtType(1, b"")}),
    "an array of a list": msgpack.packb({"a": msgpack.ExtType(1, b"\x90")}),
    "a shape that is text": msgpack.packb({"a": TEXT_SHAPE}),
    "numbers as names": msgpack.packb({1: 2}),
    "twice the same name": b"\x82\xa1a\x01\xa1a\x02",
    "the same leaf in two spellings": flax.serialization.msgpack_serialize(
        {"nn/w0": np.zeros(1), "nn": {"~": {"w0": np.ones(1)}}}
    ),
    "declares 2^32 entries": b"\x81\xa1a\xdf\xff\xff\xff\xff",
    "declares 2^32 items": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "declares 4 GiB of bytes": b"\x81\xa1a\xc6\xff\xff\xff\xff",
    "declares a 4 GiB extension": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    "too deep": b"\x81\xa1a" * 100 + b"\x80",
    "far too deep": b"\x81\xa1a" * 100_000 + b"\x80",
    "too many": msgpack.packb({str(i): [0] * 9_000 for i in range(9_000 // 3)}),
    "goes on": msgpack.packb({"a": 1}) + b"\x00",
    "names with controls": msgpack.packb({"a\x1b[2J": 1}),
    "an endless name": msgpack.packb({"a" * 100_000: 1}),
    "no text": b"\x81\xa1\xff\x01",
}  # fmt: skip


@pytest.mark.parametrize("name", MSGPACKS)
def test_msgpack_of_strangers_is_refused(tmp_path, name):
    begun = time.monotonic()
    refused(tmp_path, MSGPACKS[name])
    assert time.monotonic() - begun < 5


def one(dtype: str, begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": [1], "data_offsets": [begin, end]}


SAFETENSORS = {
    "declares a header of 2^31": struct.pack("<Q", 2**31) + b"{}",
    "declares a header of 900": struct.pack("<Q", 900) + b"{}",
    "overlapping": safetensors_of(
        {"a": one("F32", 0, 4), "b": one("F32", 0, 4)}, b"1234"
    ),
    "a hole": safetensors_of({"a": one("F32", 4, 8)}, b"12345678"),
    "goes on": pylo_file(SMALL) + b"\x00",
    "bfloat16": safetensors_of({"a": one("BF16", 0, 2)}, b"12"),
    "too deep": struct.pack("<Q", 100_001) + b"{" + b'"a":{' * 20_000,
    "a layer under two names": safetensors.numpy.save(
        {**pylo_tensors(SMALL), "nn/w0": SMALL["nn"]["w0"]}
    ),
    "our note is not ours": pylo_file(SMALL, mulo="{}"),
    "our note is no JSON": pylo_file(SMALL, mulo="{"),
    "our note is deep": pylo_file(SMALL, mulo="[" * 50_000),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_of_strangers_are_refused(tmp_path, name):
    refused(tmp_path, SAFETENSORS[name])


def test_shared_branches_cannot_multiply(tmp_path):
    """A 'billion laughs' of 30 levels that all hold the one below twice."""
    tree: object = np.zeros(1, np.float32)
    for _ in range(30):
        tree = {"a": tree, "b": tree}
    assert "more than" in refused(tmp_path, pickle.dumps(tree)).message
    wide = np.zeros(2**20, np.float32)
    many = {str(i): wide for i in range(200)}
    assert "MiB" in refused(tmp_path, pickle.dumps(many)).message


def test_a_tree_that_holds_itself_is_refused(tmp_path):
    tree: dict = {}
    tree["a"] = tree
    assert "holds itself" in refused(tmp_path, pickle.dumps(tree)).message
    nested: object = ()
    for _ in range(900):
        nested = (nested,)
    refused(tmp_path, pickle.dumps({nested: 1}))


def test_a_program_of_too_many_instructions_is_refused(tmp_path):
    assert "instructions" in refused(tmp_path, pickle.dumps(list(range(20_000)))).message
    refused(tmp_path, b"\x80\x02" + b"]" * 9_000 + b"\x85" * 900 + b".")


# --- Bombs and other files ------------------------------------------------------------------------


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(2**26))
    return file.getvalue()


def tar_file() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil"))
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


ARCHIVES = {
    "zip archive": zip_bomb(),
    "NumPy .npz": npz(),
    "PyTorch .pt": npz(),
    "gzip": gzip.compress(bytes(2**24)),
    "bzip2": bz2.compress(bytes(2**20)),
    "xz": lzma.compress(bytes(2**20)),
    "tar": tar_file(),
    ".npy": npy(),
    "zstandard": b"\x28\xb5\x2f\xfd" + bytes(100),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_are_recognised_and_not_unpacked(tmp_path, name):
    message = refused(tmp_path, ARCHIVES[name]).message
    assert name in message
    assert "not unpacked" in message


@pytest.mark.parametrize("content", [b"", b"\x00", b"# notes\n", b"{}", b"\x93NUM", bytes(10_000)])
def test_anything_else_is_said_to_be_none_of_them(tmp_path, content):
    message = refused(tmp_path, content).message
    assert "none of the files" in message or "is empty" in message


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 2**20)
    with (tmp_path / "file").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ArtefactError, match="more than 1 MiB"):
        read_foreign(tmp_path / "file")


def test_a_pipe_or_a_device_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ArtefactError, match="is not a file"):
            read_foreign(path)
    with pytest.raises(ArtefactError, match="cannot read"):
        read_foreign(tmp_path / "nowhere")


# --- Chance ---------------------------------------------------------------------------------------


def judge(path: Path) -> None:
    """Read a file and say what it is, or why not in one sentence; anything else is a defect."""
    try:
        recognise(read_foreign(path).arrays)
        said = ""
    except MuloError as error:
        said = error.message
    assert "\n" not in said


TINY = theta_of("small_fc_lopt", hidden_size=1)
WHOLE = {
    "msgpack": msgpack_of(TINY),
    "container": velo_container(TINY),
    "pickle": mulo_pickle(TINY),
    "pickle of jax": mulo_pickle(TINY, 2, jnp.asarray),
    "pickle of text": mulo_pickle(TINY, 0),
    "safetensors": pylo_file(TINY),
}


@pytest.mark.parametrize("container", WHOLE)
def test_a_file_cut_anywhere_is_refused(tmp_path, container):
    whole = WHOLE[container]
    step = max(1, len(whole) // 150)
    for end in (*range(0, len(whole), step), len(whole) - 1):
        refused(tmp_path, whole[:end])


@pytest.mark.parametrize("container", WHOLE)
@settings(
    max_examples=120, deadline=2_000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_turned_bytes_never_end_in_anything_but_a_sentence(tmp_path, container, data):
    """What still reads as a file is a bag of arrays, which recognition then judges."""
    content = bytearray(WHOLE[container])
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)
    ):
        content[place] = value
    (tmp_path / "file").write_bytes(content)
    judge(tmp_path / "file")


@settings(
    max_examples=300, deadline=2_000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(start=st.sampled_from([b"\x80\x04", b"\x80\x02}", b"(", b"\x82\xa1a", b"\xde\x00", b""]),
       rest=st.binary(max_size=60))  # fmt: skip
def test_random_bytes_never_end_in_anything_but_a_sentence(tmp_path, start, rest):
    (tmp_path / "file").write_bytes(start + rest)
    judge(tmp_path / "file")


def test_reading_needs_no_pickle_of_ours():
    """No other module of the package knows pickle."""
    package = Path(files.__file__).parents[2]
    knowing = [path for path in package.rglob("*.py") if "import pickle" in path.read_text("utf-8")]
    assert [path.name for path in knowing] == ["pickle_file.py"]
    assert sys.modules.get("haiku") is None
    assert jax.tree.leaves(SMALL)
