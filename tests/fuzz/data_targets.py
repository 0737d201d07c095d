"""Targets that are data: idx, CIFAR, npz, folders and archives of images, text, prepared sets.

Archives are made anew from members with hostile names and contents, as well as changed as bytes.
"""

import bz2
import gzip
import io
import json
import lzma
import shutil
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from mulo_cli.datasets.catalogue import entry_at
from mulo_cli.datasets.files.archives import opened
from mulo_cli.datasets.files.reading import looks_like_images, read_images
from mulo_cli.datasets.files.streams import read_small
from mulo_cli.datasets.options import NO_OPTIONS
from mulo_cli.datasets.prepared import CARD, describe_prepared, load_prepared, read_card, verify
from mulo_cli.datasets.preparing import Origin, draft_of, stream_of, write_images
from mulo_cli.datasets.sentencepiece_models import load_model, train_model
from mulo_cli.datasets.text import tokenise
from mulo_cli.datasets.text_files import looks_like_text, read_text
from tests.datasets.image_files import cats_and_dogs, idx_bytes, image_bytes, mnist_files, pixels
from tests.datasets.prepared_sets import prepare_images, prepare_text
from tests.fuzz.harness import Target
from tests.fuzz.mutations import mutated_bytes, mutated_json

Files = Sequence[tuple[str, bytes]]
"""Names with their contents; a name may come twice."""

NAMES = (
    "../evil.png",
    "../../evil",
    "/tmp/evil",
    "a/../../evil.png",
    "cat/../../../evil.png",
    "C:\\evil",
    "..\\evil",
    "cat/a.png",
    "dog/b.png",
    "train/cat/1.png",
    "test/dog/2.png",
    "train",
    "",
    "/",
    ".",
    "..",
    "cat//x.png",
    "cat/" + "x" * 300 + ".png",
    "/".join("abcdefghijklmnop"),
    "cat/\udcff.png",
    "мю/я.png",
    "\x1b[2J/x.png",
    "words.txt",
    "cat/\0.png",
    ".hidden/x.png",
    "__MACOSX/x",
    "x_train.npy",
    "train_inputs.npy",
    "data_batch_1.bin",
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte.gz",
    "a.txt",
    "train.txt",
    "val_annotations.txt",
    "x.npy",
)

CONTENTS = (
    b"",
    b"x",
    b"text\nwith lines\n" * 30,
    image_bytes(pixels(4, 4, 3)),
    image_bytes(pixels(4, 4), "GIF"),
    image_bytes(pixels(4, 4, 3), "BMP"),
    image_bytes(pixels(5, 4, 3), "JPEG"),
    image_bytes(pixels(4, 4, 3), "WEBP"),
    b"\x89PNG\r\n\x1a\n" + bytes(40),
    gzip.compress(b"x" * 1_000),
    lzma.compress(b"x" * 1_000),
    gzip.compress(bytes(2**24)),
    gzip.compress(b"text\n" * 2**22),
    "мю\n".encode("utf-16"),
    b"\xff\xfe",
    b"a\0b",
    b"n01\tcat\n" * 5,
    b"x.png\tcat\n\t\n",
    idx_bytes(pixels(4, 2, 2)),
)


@cache
def huge_picture() -> bytes:
    """A png of 5000 x 5000 pixels, all alike: 75 MB out of a few kilobytes."""
    return image_bytes(np.zeros((5_000, 5_000, 3), np.uint8))


files = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), st.text(max_size=8)),
        st.one_of(st.sampled_from(CONTENTS), mutated_bytes(CONTENTS)),
    ),
    max_size=6,
)


def zip_of(members: Files, *, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip; names that cannot be written are left out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that comes twice
        for name, content in members:
            try:
                archive.writestr(zipfile.ZipInfo(name or "-"), content, kind)
            except (UnicodeEncodeError, ValueError):
                continue
    return buffer.getvalue()


LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Draw a tar: hostile names, links that lead outside, devices, strange extended headers."""
    buffer = io.BytesIO()
    packing = draw(st.sampled_from(("", "gz", "xz", "bz2")))
    with tarfile.open(fileobj=buffer, mode=f"w:{packing}", format=tarfile.PAX_FORMAT) as archive:
        for name, content in draw(files):
            info = tarfile.TarInfo(name.replace("\0", ""))
            info.size = len(content)
            if draw(st.integers(0, 4)) == 0:
                info.type, info.size = draw(st.sampled_from(LINKS)), 0
                info.linkname = draw(st.sampled_from(("../evil", "/etc/passwd", "cat/a.png", ".")))
            if draw(st.integers(0, 4)) == 0:
                info.pax_headers = draw(st.sampled_from(EXTENDED))
            try:
                archive.addfile(info, io.BytesIO(content))
            except (UnicodeError, ValueError, OSError):
                continue
    content = buffer.getvalue()
    return draw(mutated_bytes([content])) if draw(st.booleans()) else content


EXTENDED = (
    {"size": "-1536"},
    {"size": "-512"},
    {"size": "-1024"},
    {"size": "1e9"},
    {"size": "99999999999999"},
    {"path": "../evil"},
    {"GNU.sparse.map": "0,1,5"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    {"mtime": "nan"},
    {"GNU.sparse.size": "9" * 20, "GNU.sparse.map": "0,1"},
    {"uid": "x"},
    {"hdrcharset": "BINARY"},
    {"GNU.sparse.realsize": "-5", "GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
)


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Return a file of numpy's with this header."""
    text = header.encode("latin-1", "replace") + b"\n"
    width = "<H" if version == b"\x01\x00" else "<I"
    return b"\x93NUMPY" + version + struct.pack(width, len(text)) + text + body


HEADERS = (
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 2, 2), }",
    "{'descr': '<i4', 'fortran_order': True, 'shape': (4,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 99999999999999999999999), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999, 0), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 4), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 4, 4), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': (",
    "{'descr': '",
    "{1: 2, 'a': 3}",
    "{}",
    "[]",
    "1",
    "",
    "{'descr': '|u1', 1: 2, (): 3}",
    "-" * 9_000 + "1",
    "(" * 150 + ")" * 150,
    "[" * 9_000,
    "{'shape': " + "9" * 9_000 + "}",
    "\\",
    "'''",
    "{'descr': None, 'fortran_order': False, 'shape': (4,), }",
    "__import__('os').system('touch canary')",
    "{'descr': 3, 'fortran_order': False, 'shape': (4,)}",
    "{'descr': '|u1', 'fortran_order': 0, 'shape': 4}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4L, 2L, 2L)}",
    "{[]: 1}",
    "{'a': {[]}}",
    "1 + 1j",
    "\t\n  x\n y",
)

ARRAYS = tuple(
    npy(header, bytes(16), version) for header in HEADERS for version in (b"\x01\x00", b"\x02\x00")
)


@st.composite
def npzs(draw: st.DrawFn) -> bytes:
    """Draw an .npz, of which some arrays are not sound."""
    sound = {
        "x_train": pixels(8, 2, 2),
        "y_train": np.arange(8) % 2,
        "x_test": pixels(4, 2, 2),
        "y_test": np.arange(4) % 2,
    }
    members = []
    for name, array in sound.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        odd = st.one_of(st.sampled_from(ARRAYS), mutated_bytes([buffer.getvalue()]), _other_arrays)
        members.append((f"{name}.npy", draw(odd) if draw(st.booleans()) else buffer.getvalue()))
    content = zip_of(members, kind=zipfile.ZIP_STORED)
    return draw(mutated_bytes([content])) if draw(st.integers(0, 5)) == 0 else content


def _saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


_other_arrays = st.sampled_from(
    [
        _saved(array)
        for array in (
            np.zeros((8, 0, 2), np.uint8),
            np.zeros((0, 2, 2), np.uint8),
            np.full((8, 2, 2), np.nan),
            np.zeros((8, 2, 2), bool),
            np.full((8, 2, 2), np.inf),
            np.full((8, 2, 2), 1e300),
            np.zeros((8, 2, 2), np.float16),
            np.zeros((8, 2, 2, 9), np.uint8),
            np.full(8, 2**63, np.uint64),
            np.full(8, -1),
            np.arange(8.0),
            np.zeros((8, 1), int),
            np.zeros(8, bool),
            np.array(3),
            np.zeros((2,) * 20, np.uint8),
            np.asfortranarray(pixels(8, 2, 2)),
            np.zeros((8, 2, 2), ">i2"),
            np.zeros((8, 2, 2), np.complex64),
            np.zeros((8, 2, 2), np.longdouble),
            np.full((8, 2, 2), -0.5),
            np.array(["a"] * 8),
        )
    ]
)


def _images(content: bytes, folder: Path, name: str, resize: int = 0) -> None:
    path = folder / name
    path.write_bytes(content)
    looks_like_images(path)
    stored = read_images(path, resize)
    _prepare(stored, folder)


def _prepare(stored, folder: Path) -> None:
    with draft_of(folder / "prepared", overwrite=True) as draft:
        list(write_images(draft, stream_of(stored), Origin("x", "x", "x")))


def _npz(content: bytes, folder: Path) -> None:
    _images(content, folder, "x.npz")


def _zip(content: bytes, folder: Path) -> None:
    """Whatever is in an archive: listed, read, as images and as text."""
    path = folder / "x.zip"
    path.write_bytes(content)
    with opened(path) as members:
        for member in members:
            read_small(member, 2**24)
    entry_at(path).load(NO_OPTIONS)


def _folder(members: Files, folder: Path) -> None:
    """The same without an archive, where names allow it; some are links that lead outside."""
    place = folder / "files"
    place.mkdir()
    for name, content in members:
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        path = place.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.startswith("/"):
                path.symlink_to(name)
            else:
                path.write_bytes(content)
        except (OSError, ValueError):
            continue
    looks_like_text(place)
    entry_at(place).load(NO_OPTIONS)


def _idx(members: dict[str, bytes], folder: Path) -> None:
    place = folder / "files"
    place.mkdir()
    for name, content in members.items():
        (place / name).write_bytes(content)
    looks_like_images(place)
    _prepare(read_images(place), folder)


MNIST = mnist_files(6, 4)
ODD_IDX = tuple(
    struct.pack(">BBBB3I", 0, 0, 8, 3, *shape) + bytes(16)
    for shape in ((2**32 - 1,) * 3, (0, 2**32 - 1, 2**32 - 1), (4, 2, 2), (1, 0, 0), (2**31, 1, 1))
)
mnist = st.fixed_dictionaries(
    {
        name: st.one_of(
            st.just(content),
            mutated_bytes([content]),
            mutated_bytes([gzip.decompress(content)]),
            st.sampled_from(ODD_IDX).map(gzip.compress),
            mutated_bytes([gzip.decompress(content)]).map(gzip.compress),
        )
        for name, content in MNIST.items()
    }
)

CIFAR = (b"\1" + bytes(3_072)) * 3 + (b"\2" + bytes(3_072)) * 3
CIFAR100 = (b"\1\1" + bytes(3_072)) * 3 + (b"\2\2" + bytes(3_072)) * 3


@st.composite
def cifars(draw: st.DrawFn) -> dict[str, bytes]:
    """Draw files of CIFAR's records."""
    content = st.one_of(
        st.sampled_from((CIFAR, CIFAR100)), mutated_bytes([CIFAR, CIFAR100]), st.just(bytes(3_072)),
        st.just(gzip.compress(bytes(2**24))), st.just(lzma.compress(CIFAR)),
    )  # fmt: skip
    names = (
        "data_batch_1.bin",
        "test_batch.bin",
        "train.bin",
        "test.bin.gz",
        "batches.meta.txt",
        "fine_label_names.txt",
    )
    return draw(st.dictionaries(st.sampled_from(names), content, min_size=1, max_size=4))


TEXT = ("the cat sat\non the mat\n" * 30).encode()
BOMBS = (gzip.compress(b"a\n" * 2**24), lzma.compress(bytes(2**25)), bz2.compress(bytes(2**25)))
texts = st.one_of(
    mutated_bytes(
        [TEXT, "мю\r\n".encode() * 50, b"\xef\xbb\xbf" + TEXT, "a\n".encode("utf-16") * 50]
    ),
    mutated_bytes([gzip.compress(TEXT), lzma.compress(TEXT), bz2.compress(TEXT)]),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass") * 20),
    st.sampled_from(
        (*BOMBS, b"\n" * 100, b" " * 100, b"\r\n", "\u2028".encode() * 40, b"a" * 100_000)
    ),
)


def _text(content: bytes, folder: Path) -> None:
    path = folder / "words.txt"
    path.write_bytes(content)
    looks_like_text(path)
    tokenise(read_text(path), NO_OPTIONS)


def _prepared(kind: str) -> Path:
    """Prepare a small set; it goes when the process ends."""
    import atexit
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="mulo-fuzz-prepared-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return prepare_images(folder) if kind == "images" else prepare_text(folder, unit="line")


PREPARED = {kind: _prepared(kind) for kind in ("images", "text")}


@st.composite
def prepared_sets(draw: st.DrawFn) -> tuple[str, str, bytes | None]:
    """Draw a prepared set's kind, one of its files, and what is there instead."""
    kind = draw(st.sampled_from(("images", "text")))
    path = draw(st.sampled_from(sorted(PREPARED[kind].iterdir())))
    content = path.read_bytes()
    if path.name == CARD or draw(st.booleans()):
        path = PREPARED[kind] / CARD
        return kind, CARD, draw(mutated_json([json.loads(path.read_text("utf-8"))]))
    odd = st.one_of(st.none(), st.just(b""), mutated_bytes([content]), st.sampled_from(ARRAYS))
    return kind, path.name, draw(odd)


def _prepared_set(damage: tuple[str, str, bytes | None], folder: Path) -> None:
    """Read a set in which one file is another one, of the size that the card promises."""
    kind, name, content = damage
    place = folder / "set"
    shutil.copytree(PREPARED[kind], place)
    size = (place / name).stat().st_size
    if content is None:
        (place / name).unlink()
    else:
        padded = content if name == CARD else content[:size].ljust(size, b"\0")
        (place / name).write_bytes(padded)
    describe_prepared(place, NO_OPTIONS)
    load_prepared(place, NO_OPTIONS)
    list(verify(place, read_card(place)))


@cache
def _model() -> bytes:
    return train_model(
        [f"the cat {i} sat on the mat" for i in range(50)], 25
    ).serialized_model_proto()


models = st.deferred(lambda: st.one_of(mutated_bytes([_model()]), st.binary(max_size=64)))


def _sentencepiece(content: bytes, folder: Path) -> None:
    path = folder / "x.model"
    path.write_bytes(content)
    load_model(str(path))


PICTURES = [content for content in CONTENTS if len(content) > 60][1:6]


def _picture(content: bytes, folder: Path) -> None:
    from mulo_cli.datasets.files.decoding import decode

    del folder
    decode(content, "x.png")
    decode(content, "x.png", 8)


TARGETS = (
    Target("idx", mnist, _idx, 0.01),
    Target("CIFAR", cifars(), _idx, 0.03),
    Target("npz", npzs(), _npz, 0.01),
    Target("image file", st.one_of(mutated_bytes(PICTURES), st.sampled_from(CONTENTS)), _picture),
    Target("folder of files", files, _folder, 0.01),
    Target(
        "zip",
        st.one_of(files.map(zip_of), files.map(zip_of).flatmap(lambda z: mutated_bytes([z]))),
        _zip,
        0.01,
    ),
    Target("tar", tars(), _zip, 0.01),
    Target(
        "zip of images",
        mutated_bytes([zip_of(list(cats_and_dogs(8).items()))]),
        lambda content, folder: _images(content, folder, "x.zip", 8),
        0.01,
    ),
    Target("text", texts, _text, 0.01),
    Target("prepared set", prepared_sets(), _prepared_set, 0.02),
    Target("SentencePiece model", models, _sentencepiece),
)
