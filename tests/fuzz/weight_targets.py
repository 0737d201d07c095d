"""Targets that are weights: pickles, msgpack, safetensors, cards, directories of theta.

Pickles are programs: some are other projects' files with bytes changed, some are written here by
chance of whole instructions, among them all that would start another program.
"""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mulo_cli.artefacts.card import read_card
from mulo_cli.artefacts.store import CARD
from mulo_cli.assembly.learned import load_learned_optimizer, shipped_artefacts
from mulo_cli.assembly.weight_inspection import inspect_weights
from mulo_cli.assembly.weight_settings import Given, settle, with_decays
from tests.artefacts.foreign_files import (
    SMALL,
    VELO,
    msgpack_of,
    mulo_pickle,
    pylo_file,
    velo_container,
)
from tests.fuzz.harness import Finding, Target
from tests.fuzz.mutations import TEXTS, TOML_VALUES, mutated_bytes, mutated_json, mutated_toml

CANARY = "canary"

PICKLES = [
    *(mulo_pickle(SMALL, protocol=protocol) for protocol in range(6)),
    mulo_pickle(VELO, protocol=4),
]


class _Runs:
    """What a hostile pickle says that it is: a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def _hostile() -> list[bytes]:
    """Programs that would leave a canary in the folder they are run in."""
    touch = f"touch {CANARY}"
    python = f"open({CANARY!r}, 'w').close()"
    calls = [
        _Runs(os.system, touch),
        _Runs(os.popen, touch),
        _Runs(eval, python),
        _Runs(exec, python),
        _Runs(open, CANARY, "w"),
        _Runs(__import__, "this"),
    ]
    nested = [{"nn": {"w0": call}} for call in calls]
    made = [pickle.dumps(tree, protocol) for tree in (*calls, *nested) for protocol in (0, 2, 4)]
    by_hand = [
        f"cos\nsystem\n(S'{touch}'\ntR.".encode(),
        f"(S'{touch}'\nios\nsystem\n.".encode(),
        f"cposix\nsystem\n(V{touch}\ntR.".encode(),
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0c" + touch.encode() + b"\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x12os.system.__self__\x93.",
        b"\x80\x02cnumpy\nndarray\n(K\x01tR}(X\x04\x00\x00\x00nameK\x01ub.",
        b"\x82\x01.", b"Pos.system\n.", b"\x80\x05\x97.",
    ]  # fmt: skip
    return made + by_hand


OPERATIONS = (
    b"(",
    b")",
    b"]",
    b"}",
    b"l",
    b"d",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"a",
    b"e",
    b"s",
    b"u",
    b"0",
    b"1",
    b"2",
    b"R",
    b"b",
    b"\x81",
    b"\x92",
    b"o",
    b"\x93",
    b"\x94",
    b"N",
    b"\x88",
    b"K\x05",
    b"J\xff\xff\xff\x7f",
    b"h\x00",
    b"h\x01",
    b"h\x02",
    b"q\x00",
    b"q\x01",
    b"j\x00\x00\x00\x00",
    b"r\xff\xff\xff\x7f",
    b"\x8a\x09" + b"\xff" * 9,
    b"\x8c\x02f4",
    b"\x8c\x01<",
    b"\x8c\x06latin1",
    b"\x8c\x02os",
    b"\x8c\x06system",
    b"\x8c\x08builtins",
    b"\x8c\x04eval",
    b"C\x04\0\0\0\0",
    b"B\xff\xff\xff\x7f",
    b"\x8e" + b"\xff" * 8,
    b"\x95" + b"\x10" + b"\0" * 7,
    b"X\xff\xff\xff\xff",
    b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"cnumpy.core.numeric\n_frombuffer\n",
    b"ccollections\nOrderedDict\n",
    b"c_codecs\nencode\n",
    b"cbuiltins\ndict\n",
    b"cbuiltins\nbytes\n",
    b"chaiku._src.data_structures\nFlatMapping\n",
    b"cjax._src.array\n_reconstruct_array\n",
    b"cos\nsystem\n",
    b"cbuiltins\n__import__\n",
    b"ccopyreg\n_reconstructor\n",
    b"V" + b"touch canary\n",
    b"S'x'\n",
    b"F1e400\n",
    b"I" + b"9" * 5_000 + b"\n",
    b"L1L\n",
    b".",
)
"""Whole instructions of a pickle."""

_CALL = b"c_codecs\nencode\n" + b"h\x00" + b"\x8c\x06latin1" + b"\x86R"
_COPY = b"ccollections\nOrderedDict\n" + b"h\x00" + b"\x85R"
_ARRAY = (
    b"cnumpy.core.numeric\n_frombuffer\n(h\x00cnumpy\ndtype\n\x8c\x02u1\x85R"
    b"J\x00\x00\x40\x00\x85\x8c\x01CtR"
)
_ITEMS = b"".join(b"\x8c\x04%04dN" % number for number in range(4_000))
BOMBS = (
    b"\x80\x04X\x00\x00\x40\x00" + b"x" * 2**22 + b"q\x00(" + _CALL * 1_990 + b"l.",
    b"\x80\x04}q\x00(" + _ITEMS + b"u(" + _COPY * 490 + b"l.",
    b"\x80\x04B\x00\x00\x40\x00" + bytes(2**22) + b"q\x00(" + _ARRAY * 600 + b"l.",
)
"""Small programs that copy one thing very often."""

_TOWER = b")" + b"2\x86" * 45
"""Tuples, each of which holds the one before it twice: whoever hashes or shows it never ends."""

TOWERS = tuple(
    b"\x80\x04" + program.replace(b"TOWER", _TOWER) + b"."
    for program in (
        b"}TOWERNs",
        b"}(TOWERNu",
        b"(TOWERNd",
        b"\x8f(TOWER\x90",
        b"(TOWER\x91",
        b"ccollections\nOrderedDict\n](TOWERN\x86e\x85R",
        b"cnumpy\ndtype\nTOWER\x85R",
        b"cnumpy\ndtype\n(TOWERltR",
        b"TOWER",
    )
)

PICKLE = st.one_of(
    mutated_bytes(PICKLES),
    st.sampled_from(_hostile()),
    mutated_bytes(_hostile()),
    st.sampled_from(TOWERS),
    mutated_bytes(TOWERS),
    st.lists(st.sampled_from(OPERATIONS), max_size=40).map(
        lambda parts: b"\x80\x04" + b"".join(parts)
    ),
    st.lists(st.sampled_from(OPERATIONS), max_size=40).map(
        lambda parts: b"\x80\x04" + b"".join(parts) + b"."
    ),
)

FILES = [msgpack_of(SMALL), msgpack_of(VELO), velo_container(VELO)]
SAFETENSORS = [
    pylo_file(SMALL),
    pylo_file(SMALL, mulo="{}"),
    pylo_file(SMALL, mulo='{"decays": 1}'),
]

ODD_MSGPACK = (
    b"\x81" * 5_000,
    b"\x91" * 100_000,
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\x81\xa1a\xc6\xff\xff\xff\xff",
    b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    b"\x81\xc0\xc0",
    b"\x81\x90\x01",
    b"\x81\xa1a\xd4\x01\x93",
    b"\x82\xa1a\x01\xa1a\x02",
    b"\x81\xa1a\xc7\x0c\x01\x93\x91\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa2f4",
)


def _header(text: str, body: bytes = b"") -> bytes:
    """Return a file of safetensors with this header."""
    return len(text.encode()).to_bytes(8, "little") + text.encode() + body


ODD_SAFETENSORS = tuple(
    _header(text, bytes(16))
    for text in (
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
        '{"a": {"dtype": "F32", "shape": [0, 18446744073709551615], "data_offsets": [0, 0]}}',
        '{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 16]}}',
        '{"a": {"dtype": "F8_E5M2", "shape": [16], "data_offsets": [0, 16]}}',
        '{"__metadata__": {"mulo": "[["}, "a": {"dtype": "U8", "shape": [], "data_offsets":[0,1]}}',
        '{"\\ud800": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
        "{" * 5_000,
        "{" + '"a":' * 5_000,
    )
)


def _weights(content: bytes, folder: Path) -> None:
    """What `inspect` does, and `import` up to where it would compute."""
    from mulo_cli.artefacts.foreign.files import read_foreign
    from mulo_cli.assembly.weight_inspection import recognise_file

    path = folder / "theta.state"
    path.write_bytes(content)
    here = Path.cwd()
    os.chdir(folder)
    try:
        inspect_weights(path)
        file = read_foreign(path)
        found = recognise_file(file)
        if found.architecture is not None and not found.complaints:
            with_decays(file, None)
            settle(file, found, Given())
    finally:
        os.chdir(here)
        if (folder / CANARY).exists():
            raise Finding("a pickle was obeyed")


def _settings(said: tuple[list[str], bytes], folder: Path) -> None:
    from mulo_cli.artefacts.foreign.files import read_foreign
    from mulo_cli.assembly.weight_inspection import recognise_file

    path = folder / "theta.state"
    path.write_bytes(FILES[0])
    (folder / "decays.toml").write_bytes(said[1])
    file = read_foreign(path)
    settle(file, recognise_file(file), Given(settings=said[0]))
    path.write_bytes(SAFETENSORS[0])
    with_decays(read_foreign(path), str(folder / "decays.toml"))


SHIPPED = shipped_artefacts()["mulo-m-desk"]


def _card_alone(content: bytes, folder: Path) -> None:
    (folder / CARD).write_bytes(content)
    read_card(folder / CARD)


def _artefact(content: bytes, folder: Path) -> None:
    place = folder / "artefact"
    shutil.copytree(SHIPPED, place)
    (place / CARD).write_bytes(content)
    load_learned_optimizer(place)


THETA = sorted(path for path in (SHIPPED / "theta").rglob("*") if path.is_file())


@st.composite
def _damaged_theta(draw: st.DrawFn) -> tuple[Path, bytes | None]:
    """Draw a file of an artefact, and what is there instead; None: nothing."""
    path = draw(st.sampled_from(THETA))
    relative = path.relative_to(SHIPPED)
    return relative, draw(st.one_of(st.none(), mutated_bytes([path.read_bytes()])))


def _theta(damage: tuple[Path, bytes | None], folder: Path) -> None:
    place = folder / "artefact"
    shutil.copytree(SHIPPED, place)
    path, content = damage
    (place / path).unlink()
    if content is not None:
        (place / path).write_bytes(content)
    load_learned_optimizer(place)


def _cards() -> st.SearchStrategy[bytes]:
    import json

    return mutated_json([json.loads((SHIPPED / CARD).read_text("utf-8"))])


DECAYS = "momentum_decays = [0, 0, 0.5]\nrms_decays = [0]\nadafactor_decays = [0, 0, 0]"

SETTINGS = st.sampled_from(
    ("step_size", "clip_gradients", "time_feature", "base_fan_in", "hidden_size", "")
)

TARGETS = (
    Target("pickle", PICKLE, _weights, 0.006),
    Target("pickle that copies", st.sampled_from(BOMBS), _weights, 0.5),
    Target(
        "msgpack", st.one_of(mutated_bytes(FILES), st.sampled_from(ODD_MSGPACK)), _weights, 0.006
    ),
    Target(
        "safetensors",
        st.one_of(mutated_bytes(SAFETENSORS), st.sampled_from(ODD_SAFETENSORS)),
        _weights,
        0.006,
    ),
    Target(
        "weights --set, --decays",
        st.tuples(
            st.lists(
                st.tuples(SETTINGS, st.sampled_from((*TOML_VALUES, *TEXTS))).map("=".join),
                max_size=2,
            ),
            mutated_toml([DECAYS]),
        ),
        _settings,
        0.01,
    ),
    Target("card.json", _cards(), _card_alone, 0.004),
    Target("artefact with another card", _cards(), _artefact, 0.3),
    Target("directory of theta", _damaged_theta(), _theta, 0.3),
)
