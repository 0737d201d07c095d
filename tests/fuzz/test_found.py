"""What fuzzing has found, each with the smallest input that showed it."""

import bz2
import gc
import gzip
import os
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mulo_cli.artefacts.card import read_card
from mulo_cli.artefacts.foreign.files import read_foreign
from mulo_cli.assembly.datasets import find_dataset
from mulo_cli.assembly.weight_settings import small_text
from mulo_cli.datasets import text_files
from mulo_cli.datasets.files import decoding, image_folders, streams
from mulo_cli.datasets.files.archives import opened
from mulo_cli.datasets.files.decoding import decode
from mulo_cli.datasets.files.reading import read_images
from mulo_cli.datasets.prepared import data_folder
from mulo_cli.datasets.sentencepiece_models import load_model
from mulo_cli.datasets.text_files import read_text
from mulo_cli.errors import (
    ArtefactError,
    DataError,
    MuloError,
    RecipeError,
    UsageError,
    shortened,
)
from mulo_cli.recipes.grids import load_grid
from mulo_cli.recipes.loading import load_recipe
from mulo_cli.recipes.references import parse_named
from mulo_cli.recipes.suites import load_suite
from mulo_cli.recipes.toml_files import parse_toml
from mulo_cli.results.row_file import RowFile
from mulo_cli.results.store import append_record, read_lines
from mulo_cli.results.tuned import read_tuned
from tests.datasets.image_files import image_bytes, pixels, write_zip
from tests.fuzz.data_targets import npy
from tests.fuzz.harness import alarm, attempt
from tests.fuzz.mutations import deep
from tests.fuzz.targets import TARGETS
from tests.fuzz.weight_targets import BOMBS, SHIPPED, THETA, TOWERS
from tests.results.evaluation_rows import rows_of


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """A defect that comes back fails, and does not hang."""
    with alarm():
        yield


LONG_HEX = "0x" + "f" * 5_000
"""A number that TOML's reader takes, and that Python refuses to spell."""

LINES = {
    "number": f"seed = {LONG_HEX}",
    "scale": f"scale = {LONG_HEX}",
    "table": "[" + ".".join(["a"] * 2_000) + "]",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_numbers_and_tables_beyond_all_bounds_are_no_toml_of_a_recipe_or_a_suite(tmp_path, line):
    (tmp_path / "odd.toml").write_text(line)
    for load in (load_recipe, load_suite):
        with pytest.raises(RecipeError, match="is not valid TOML: it "):
            load(str(tmp_path / "odd.toml"))


def test_an_override_beyond_all_bounds_is_refused_with_its_key():
    with pytest.raises(RecipeError, match="seed"):
        load_recipe("multi-width", overrides=[f"seed={LONG_HEX}"])


ABSURD = {
    "400 digits": "9" * 400,
    "5000 digits": "9" * 5_000,
    "hexadecimal": LONG_HEX,
    "open lists": "[" * 5_000,
    "deep lists": "[" * 400 + "]" * 400,
}


@pytest.mark.parametrize("value", ABSURD.values(), ids=ABSURD)
def test_a_grid_of_absurd_numbers_or_lists_is_an_error(tmp_path, value):
    (tmp_path / "odd.toml").write_text(f"learning_rate = {value}")
    with pytest.raises(RecipeError):
        load_grid(str(tmp_path / "odd.toml"), "adamw")


def test_what_cannot_be_spelled_can_be_shown_in_an_error():
    assert shortened(int(LONG_HEX, 16)) == "(int)"
    assert shortened(deep(100_000)) == "(list)"


def test_a_home_that_nobody_has_is_no_crash(monkeypatch):
    name = "~nobody-has-this-name/data"
    with pytest.raises(UsageError):
        find_dataset(name)
    with pytest.raises(UsageError):
        load_model(name)
    monkeypatch.setenv("MULO_DATA_DIR", name)
    assert data_folder() == Path(name)


def test_a_long_run_of_spaces_is_read_at_once():
    attempt(TARGETS["reference"], "a:" + " " * 120_000)
    assert parse_named("a:  b  = c").options == {"b": "c"}


HEADERS = {
    "bracket that is not closed": "{'descr': (",
    "text that is not closed": "'''",
    "indented lines": "\t\n  x\n y",
    "keys that cannot be sorted": "{1: 2, 'a': 3}",
    "key that is a list": "{[]: 1}",
    "nested too deep": "-" * 9_000 + "1",
    "truth as an axis": "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 4, 4)}",
    "more than 64 bits": "{'descr': '|u1', 'fortran_order': False, 'shape': (0, " + "9" * 23 + ")}",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_numpy_stumbles_over_is_an_error_of_the_file(tmp_path, header):
    content = npy(header, bytes(16))
    files = {f"{name}.npy": content for name in ("x_train", "y_train", "x_test", "y_test")}
    with pytest.raises(DataError, match=r"'x_train\.npy' is no array of numbers"):
        read_images(write_zip(tmp_path / "odd.npz", files))
    assert attempt(TARGETS["prepared set"], ("text", "test_tokens.npy", content)) == "refused"


def test_an_empty_array_that_would_be_too_large_otherwise_is_an_error(tmp_path):
    shape = f"(0, {2**62}, 4)"
    content = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}")
    files = {f"{name}.npy": content for name in ("x_train", "y_train", "x_test", "y_test")}
    with pytest.raises(DataError, match=r"x_train\.npy' cannot be read"):
        read_images(write_zip(tmp_path / "odd.npz", files))


def tar_of(path: Path, *members: tuple[str, dict[str, str]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, extended in members:
            info = tarfile.TarInfo(name)
            info.pax_headers = extended
            archive.addfile(info)
    return path


def test_a_tar_whose_header_leads_back_to_itself_ends(tmp_path):
    """Python's reader goes round for ever (CVE-2025-8194) where it has not been mended."""
    path = tar_of(tmp_path / "round.tar", ("cat/1.png", {"size": "-1536"}))
    with pytest.raises(DataError), opened(path) as members:
        list(members)
    assert attempt(TARGETS["tar"], path.read_bytes()) == "refused"


def test_a_packed_tar_of_nothing_but_zeros_is_given_up_before_it_is_unpacked(tmp_path):
    info = tarfile.TarInfo("zeros")
    info.size = 2**33
    path = tmp_path / "zeros.tar.bz2"
    path.write_bytes(bz2.compress(info.tobuf() + bytes(2**20)))
    with pytest.raises(DataError, match="unpack to 8,589,934,592 bytes"), opened(path) as members:
        list(members)


@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_a_small_pickle_that_copies_one_thing_without_end_is_an_error(tmp_path, number):
    (tmp_path / "bomb.pickle").write_bytes(BOMBS[number])
    with pytest.raises(ArtefactError, match=r"copies one thing|more bytes than the file"):
        read_foreign(tmp_path / "bomb.pickle")


@pytest.mark.parametrize("number", range(len(TOWERS)))
def test_a_small_pickle_that_takes_for_ever_to_hash_or_to_show_is_an_error(number):
    assert attempt(TARGETS["pickle"], TOWERS[number]) == "refused"


def test_text_that_unpacks_to_more_than_memory_holds_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "available_memory", lambda: text_files.ROOM * 2**20)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"a\n" * 2**20))
    with pytest.raises(DataError, match="makes this text larger"):
        read_text(tmp_path / "bomb.txt.gz")


def test_of_an_image_that_is_much_too_large_only_the_size_is_read():
    """A picture of one colour takes a few thousand bytes, whatever its size."""
    large = image_bytes(np.zeros((2_000, 2_000, 3), np.uint8))
    assert len(large) < 20_000
    blank = decode(large, "large.png", expected=(4, 4)).pixels
    assert (blank.shape[:2], blank.strides[:2]) == ((2_000, 2_000), (0, 0))
    assert decode(large, "large.png", expected=(2_000, 2_000)).pixels.strides[0] == 6_000


def test_files_and_images_that_wait_to_be_decoded_have_a_bounded_size(tmp_path, monkeypatch):
    batches: list[int] = []
    decode_batch = image_folders._decode_batch

    def counted(batch, *arguments):
        batches.append(len(batch))
        return decode_batch(batch, *arguments)

    images = {f"{'ab'[i % 2]}/{i}.png": image_bytes(pixels(4, 4, 3, seed=i)) for i in range(40)}
    path = write_zip(tmp_path / "images.zip", images)
    usual = read_images(path)
    monkeypatch.setattr(image_folders, "_decode_batch", counted)
    monkeypatch.setattr(image_folders, "BATCH_BYTES", 150)
    monkeypatch.setattr(image_folders, "AHEAD_BYTES", 1)
    small = read_images(path)
    assert max(batches) <= 3
    np.testing.assert_array_equal(small.splits["train"]["inputs"], usual.splits["train"]["inputs"])


@pytest.mark.parametrize(("side", "together"), [(100, 2), (1_000, 1)])
def test_threads_share_the_memory_that_decoding_takes(tmp_path, monkeypatch, side, together):
    """A few kilobytes of png unpack to hundreds of megabytes, on every core at the same time."""
    now, most = Counter(), []

    def plain(image):
        now["decoding"] += 1
        most.append(now["decoding"])
        time.sleep(0.02)
        now["decoding"] -= 1
        return usual(image)

    usual = decoding._plain
    monkeypatch.setattr(decoding, "_plain", plain)
    monkeypatch.setattr(image_folders, "usable_cores", lambda: 8)
    monkeypatch.setattr(image_folders, "BATCH", 1)
    monkeypatch.setattr(image_folders, "DECODING_BYTES", 2 * decoding.RICH_BYTES * 100**2)
    large = np.zeros((side, side, 4), np.uint8)
    images = {f"{'ab'[i % 2]}/{i}.png": image_bytes(large) for i in range(16)}
    stored = read_images(write_zip(tmp_path / "small.zip", images), resize=4)
    assert stored.splits["train"]["inputs"].shape[1:] == (4, 4, 3)
    assert max(most) <= together


def test_an_image_of_16_bits_is_not_copied_in_64():
    content = image_bytes(np.full((1_000, 1_000), 0x1234, np.uint16))
    decode(content, "x.png", 8)
    tracemalloc.start()
    try:
        pixels = decode(content, "x.png", 8).pixels
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (pixels == 0x12).all()
    assert most < 8 * 1_000**2


def test_a_zip_that_needs_an_absurd_window_is_an_error_of_the_file(tmp_path, monkeypatch):
    """LZMA's header may ask for 4 GiB of memory, which a bounded process does not get."""

    def no_memory(*_, **__):
        raise MemoryError

    path = write_zip(tmp_path / "x.zip", {"cat/a.png": b"x"})
    monkeypatch.setattr(zipfile.ZipExtFile, "read", no_memory)
    with pytest.raises(DataError, match="cannot be read: MemoryError"), opened(path) as members:
        streams.read_small(next(members), 10)


ODD_RUNS = (
    ("metrics", b"0\n"),
    ("metrics", b'{"kind": "meta-step"}\n'),
    ("environment.json", b'{"mulo": "0.1.0", "devices": ["cpu"], "resumed_under": 0}'),
    ("environment.json", b"[" * 100_000),
    ("launcher's variables", {"SLURM_PROCID": "9" * 5_000, "SLURM_STEP_NUM_TASKS": "2"}),
)


@pytest.mark.parametrize(("name", "value"), ODD_RUNS, ids=map(str, range(len(ODD_RUNS))))
def test_odd_files_of_a_run_and_odd_launchers_are_read_or_refused(name, value):
    assert attempt(TARGETS[name], value) in ("read", "refused")


KEYS = {
    "dotted": "a." * 100_000 + "a = 1",
    "spaced": "a . " * 1_000 + "a = 1",
    "quoted": '"a".' * 1_000 + "a = 1",
    "of a table": "[" + "a." * 1_000 + "a]",
    "in a table": "t = {" + "a." * 1_000 + "a = 1}",
    "behind a text with a quote at its end": 't = [""""x"""", {' + "a." * 1_000 + "a = 1}]",
    "behind a comment": "t = 1 # '\n" + "a." * 1_000 + "a = 1",
}


@pytest.mark.parametrize("text", KEYS.values(), ids=KEYS)
def test_a_key_of_very_many_parts_is_refused_at_once(text):
    with pytest.raises(ValueError, match="a key with more than 8 dots"):
        parse_toml(text)


def test_dots_that_are_in_no_key_are_not_counted():
    dots = "." * 50
    text = f"a = '{dots}' # {dots}\nb = [{'1.5, ' * 50}]\nc = '''{dots}\n'{dots}'''\nd.e.f = 1\n"
    told = parse_toml(text)
    assert (told["a"], told["b"][49], told["d"]) == (dots, 1.5, {"e": {"f": 1}})


READERS = {
    "recipe": load_recipe,
    "suite": load_suite,
    "grid": lambda path: load_grid(path, "adamw"),
    "best values": lambda path: read_tuned(Path(path)),
    "decays": lambda path: small_text(Path(path), "--decays"),
    "card": lambda path: read_card(Path(path)),
    "output": lambda path: RowFile(Path(path)),
    "data": find_dataset,
    "images": lambda path: read_images(Path(path)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_pipe_or_a_device_is_neither_waited_for_nor_read_without_end(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "zero.toml"):
        with pytest.raises(MuloError, match="neither a file nor a folder") as refused:
            read(str(tmp_path / name))
        assert refused.value.hint


def test_a_recipe_by_its_bare_name_that_is_a_pipe_is_said_to_be_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(RecipeError, match="it is a pipe"):
        load_recipe("pipe")


def test_metrics_that_are_no_file_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match="it is a pipe"):
        next(read_lines(tmp_path / "metrics.jsonl"))


@pytest.mark.parametrize("load", [load_recipe, load_suite, lambda path: load_grid(path, "adamw")])
def test_toml_of_more_than_a_mebibyte_is_refused(tmp_path, load):
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RecipeError, match="more than 1 MiB"):
        load(str(tmp_path / "large.toml"))
    with pytest.raises(ValueError, match="more than 1 MiB"):
        parse_toml("#" * (2**20 + 1))


def test_a_recipe_may_come_out_of_a_pipe_that_is_open_already():
    reader, writer = os.pipe()
    os.write(writer, b'extends = "multi-width"\nseed = 7\n')
    os.close(writer)
    try:
        assert load_recipe(f"/dev/fd/{reader}").seed == 7
    finally:
        os.close(reader)


RANK = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, ({2**31}, {2**31}))
from mulo_cli.cli.app import main
main()
"""


def ranked(*files: str, **opened: Any) -> tuple[int, str]:
    """Run `mulo rank` in bounded memory; return its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", RANK, "rank", *files], capture_output=True, timeout=60, **opened
    )
    return done.returncode, done.stderr.decode()


ENDLESS = {"/dev/zero": "a line has more than 16 MiB", "/dev/urandom": "is not text"}


@pytest.mark.parametrize(("source", "said"), ENDLESS.items(), ids=ENDLESS)
def test_rank_reads_any_number_of_lines_and_none_of_any_length(source, said):
    code, told = ranked(source)
    assert (code, said in told) == (1, True), told


def test_rank_reads_pipes_that_are_open_already(tmp_path):
    reader, writer = os.pipe()
    for row in rows_of({"adamw": (1.0, 2.0), "muadam": (1.5, 2.5)}):
        append_record(Path(f"/dev/fd/{writer}"), row)
    os.close(writer)
    code, told = ranked(f"/dev/fd/{reader}", pass_fds=(reader,))
    os.close(reader)
    assert code == 0, told


def test_of_a_damaged_theta_nothing_but_the_error_is_told(monkeypatch, caplog):
    """Orbax gives up at the first array; the others found nobody to tell that they had failed."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    (path,) = (path for path in THETA if path.parts[-2:] == ("theta", "manifest.ocdbt"))
    damaged = bytearray(path.read_bytes())
    damaged[23] ^= 0xFF
    for _ in range(5):
        damage = (path.relative_to(SHIPPED), bytes(damaged))
        assert attempt(TARGETS["directory of theta"], damage) == "refused"
        time.sleep(0.1)
        gc.collect()
    assert (told, caplog.records) == ([], [])
