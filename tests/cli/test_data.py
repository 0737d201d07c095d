"""`mulo data` as its users see it: what there is, preparing, looking, and what goes wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mulo_cli.datasets.catalogue import DATASETS
from mulo_cli.datasets.prepared import read_card
from mulo_cli.datasets.tfds import BENCHMARKS, archive_names
from tests.cli.programs import inside, mulo, start
from tests.datasets.prepared_sets import prepare_images, prepare_text, some_images

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Return a folder of data of this test's own."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("MULO_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def place(tmp_path):
    """Return a folder with files of a user's own."""
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for split, number in (("train", 9), ("test", 4)):
            for name in ("cat", "dog"):
                for i in range(number):
                    pixels = np.full((10, 12, 3), 20 * i, np.uint8)
                    with archive.open(f"{split}/{name}/{i}.png", "w") as file:
                        Image.fromarray(pixels).save(file, "png")
    (tmp_path / "poem.txt").write_text("the rose is red\nthe violet is blue\n" * 30)
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)) * 9)
    stored = some_images(50_000, 10_000, (1, 1, 3)).splits
    np.savez(tmp_path / "other.npz", **{
        f"{split}_{name}": array for split, of in stored.items() for name, array in of.items()
    })  # fmt: skip
    return tmp_path


def lines(done: subprocess.CompletedProcess[str]) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_pipe_gets_a_line_for_every_data_set_that_has_a_name(place, folder):
    prepare_images(folder, "mine")
    rows = {row["name"]: row for row in lines(inside("data", "list", cwd=place))}
    assert list(rows) == [*DATASETS, "mine"]
    assert {row["kind"] for row in rows.values()} == {"data"}
    for row in rows.values():
        assert row["source"]
        assert row["licence"]
        assert row["examples"] in ("images", "text")
        assert min(row["train"], row["test"], row["num_classes"]) > 0
        assert (row["shape"] is None) == (row["examples"] == "text")
    assert [name for name, row in rows.items() if not row["present"]] == list(BENCHMARKS)
    assert rows["cifar10"]["shape"] == [32, 32, 3]
    assert rows["cifar10"]["options"] == ["augment", "feed"]
    assert rows["cifar10"]["place"] == str(folder / "cifar10")
    assert not rows["synthetic/lm1b"]["real"]


def test_a_screen_gets_a_table_and_what_to_do_about_absent_ones(place, folder):
    prepare_images(folder, "mine")
    shown = inside("data", "list", cwd=place, watched=True).stdout
    for text in ("digits", "synthetic/fashion_mnist", "mine", "1281167", "32x32x3", "there"):
        assert text in shown
    assert "mulo data prepare NAME` for imagenet32" in shown


def test_a_wide_screen_has_room_for_licences_and_sources(place):
    narrow, wide = (
        inside("data", "list", cwd=place, watched=True, COLUMNS=columns, TERM="xterm").stdout
        for columns in ("119", "120")
    )
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", shown) for shown in (narrow, wide)]
    tables = [shown.partition("not there yet")[0] for shown in plain]
    for text in ("licence", "source", "CC BY 4.0", "MIT", "PSF-2.0", "H. Xiao et al."):
        assert [text in table for table in tables] == [False, True]
    assert max(map(len, tables[1].splitlines())) <= 120


def test_of_an_absent_set_is_shown_what_is_known_and_how_to_get_it(place):
    done = inside("data", "show", "cifar10", cwd=place, watched=True)
    assert done.returncode == 0, done.stderr
    for text in ("A. Krizhevsky", "none stated", "augment, feed", "50000", "32x32x3"):
        assert text in done.stdout
    assert re.search(r"(?m)^there +no +$", done.stdout)
    assert "mulo data prepare cifar10" in done.stderr
    (report,) = lines(inside("data", "show", "lm1b", cwd=place))
    assert (report["row"]["present"], report["row"]["num_classes"]) == (False, 32_000)
    assert (report["images"], report["text"], report["verified"]) == (None, None, None)


def test_an_archive_can_be_named_instead_of_its_folder(place):
    name = "1-billion-word-language-modeling-benchmark-r13output.tar.gz"
    (place / name).write_bytes(b"not it")
    (place / "Imagenet32_train_npz.zip").write_bytes(b"not it")
    done = inside("data", "prepare", "lm1b", "--from", name, cwd=place)
    assert done.returncode == 1
    assert "wrong checksum" in done.stderr
    alone = inside("data", "prepare", "imagenet32", "--from", "Imagenet32_train_npz.zip", cwd=place)
    assert alone.returncode == 1
    assert "'.' lacks Imagenet32_val_npz.zip" in alone.stderr


@pytest.mark.parametrize("name", ["cifar10", "imagenet32", "fashion_mnist"])
def test_a_folder_without_anything_gets_the_names_of_the_archives(place, name):
    (place / "empty").mkdir()
    done = inside("data", "prepare", name, "--from", "empty", cwd=place)
    assert done.returncode == 1
    assert "hint: fetch " in done.stderr
    for archive in archive_names(BENCHMARKS[name]):
        assert archive in done.stderr


def test_a_damaged_set_is_listed_with_its_damage(place, folder):
    (prepare_images(folder, "mine") / "train_inputs.npy").unlink()
    row = {row["name"]: row for row in lines(inside("data", "list", cwd=place))}["mine"]
    assert not row["present"]
    assert "train_inputs.npy" in row["complaint"]
    shown = inside("data", "list", cwd=place, watched=True).stdout
    assert "damaged" in shown
    assert "train_inputs.npy" in shown


def test_images_are_prepared_once_and_used_by_name_from_then_on(place, folder):
    done = inside("data", "prepare", "pets", "--from", "pets.zip", "--resize", "8", cwd=place)
    (row,) = lines(done)
    assert (row["train"], row["test"], row["shape"]) == (18, 8, [8, 8, 3])
    assert f"saved in {folder / 'pets'}" in done.stderr
    assert "next: mulo data show pets" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["pets"]
    assert read_card(folder / "pets").classes == ("cat", "dog")
    (place / "pets.zip").unlink()
    (row,) = lines(
        inside(
            "evaluate", "--dataset", "pets:augment=crop-flip", "--widths", "4", "--steps", "2",
            "--window", "1", "--seeds", "1", "--batch-size", "4",
            "--optimizer", "muadam:learning_rate=0.1", cwd=place,
        )
    )  # fmt: skip
    assert (row["dataset"], row["real"]) == ("pets:augment=crop-flip", True)


def test_a_prepared_text_is_used_by_name(place):
    done = inside(
        "data", "prepare", "poem", "--from", "poem.txt", "--unit", "line", "--tokens", "bytes",
        "--licence", "CC0", cwd=place, watched=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "training and" in done.stdout
    assert "a vocabulary of 256" in done.stdout
    shown = inside("data", "show", "poem", cwd=place, watched=True).stdout
    for text in ("CC0", "'the rose is red\\n'", "vocabulary", "' ' 1"):
        assert text in shown, shown


def test_a_path_is_shown_without_being_prepared(place):
    (report,) = lines(inside("data", "show", "pets.zip:resize=6", cwd=place))
    assert report["kind"] == "data-report"
    assert report["row"]["shape"] == [6, 6, 3]
    assert report["row"]["notes"]
    assert report["images"]["balance"] == {"names": ["cat", "dog"], "counts": [9, 9]}
    assert report["images"]["mean"] == pytest.approx([80.0] * 3)
    (report,) = lines(inside("data", "show", "poem.txt", cwd=place))
    assert report["row"]["num_classes"] == len(set((place / "poem.txt").read_text()))
    assert report["text"]["examples"][0].startswith("the rose")
    assert sum(report["text"]["counts"]) == report["text"]["tokens"]["train"]
    assert report["text"]["frequent"][0][0] == " "


def test_sets_of_thousands_of_classes_have_a_short_table(place, folder):
    stored = some_images(2_000, 2_000)
    targets = np.arange(2_000, dtype=np.int32)
    many = {split: {**arrays, "targets": targets} for split, arrays in stored.splits.items()}
    prepare_images(folder, "many", type(stored)(many, 2_000, ()))
    shown = inside("data", "show", "many", cwd=place, watched=True).stdout
    assert len(shown.splitlines()) < 40
    assert "2000 classes of 1 to 1 training images" in shown


def test_no_terminal_obeys_what_a_class_is_called(place, folder):
    prepare_images(folder)
    shown = inside("data", "show", "mine", cwd=place, watched=True).stdout
    assert "red" in shown
    assert "\x1b[31m" not in shown


def test_checksums_are_compared_when_it_is_asked_for(place, folder):
    path = prepare_images(folder) / "train_inputs.npy"
    assert (
        "4 files are as"
        in inside("data", "show", "mine", "--verify", cwd=place, watched=True).stdout
    )
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = inside("data", "show", "mine", "--verify", cwd=place)
    assert done.returncode == 1
    assert "train_inputs.npy: its checksum" in done.stderr


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("mine", "png"), ("words", "svg"), ("digits", "svg"), ("synthetic/cifar10", "png")],
)
def test_a_picture_is_drawn(place, folder, name, suffix):
    prepare_images(folder)
    prepare_text(folder)
    done = inside("data", "show", name, "--plot", f"sheet.{suffix}", cwd=place)
    assert done.returncode == 0, done.stderr
    start = (place / f"sheet.{suffix}").read_bytes()[:5]
    assert start == (b"\x89PNG\r" if suffix == "png" else b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "cifer10"], 2, "did you mean 'cifar10'?"),
        (["show", "nowhere.zip"], 2, "no file or folder of that name"),
        (["show", "cifar10", "--verify"], 1, "mulo data prepare cifar10"),
        (["show", "lm1b", "--plot", "x.png"], 1, "mulo data prepare lm1b"),
        (["show", "noise.bin"], 1, "neither images nor text"),
        (["show", "pets.zip:feed=always"], 2, "has no option 'feed'"),
        (["show", "digits:feed=never"], 2, "has no option 'feed'"),
        (["show", "digits", "--verify"], 1, "only prepared data sets have checksums"),
        (["show", "digits", "--plot", "x.pdf"], 2, ".png or .svg"),
        (["show", "synthetic/lm1b", "--plot", "x.png"], 2, "no stored text"),
        (["prepare", "mine"], 2, "--from PATH"),
        (["prepare", "mine", "--from", "nowhere"], 2, "does not exist"),
        (["prepare", "mine", "--from", "noise.bin"], 1, "neither images nor text"),
        (["prepare", "../mine", "--from", "pets.zip"], 2, "is no name for a data set"),
        (["prepare", ".mine", "--from", "pets.zip"], 2, "is no name for a data set"),
        (["prepare", "digits", "--from", "pets.zip"], 2, "is always there"),
        (["prepare", "mine", "--from", "pets.zip", "--tokens", "x"], 2, "--tokens does not fit"),
        (["prepare", "mine", "--from", "poem.txt", "--resize", "8"], 2, "--resize does not fit"),
        (["prepare", "mine", "--from", "poem.txt", "--unit", "page"], 2, "page"),
        (["prepare", "cifar10", "--resize", "8"], 2, "another data set of cifar10"),
        (["prepare", "cifar10", "--from", "other.npz"], 1, "1x1x3, 3, 50000 + 10000 instead of"),
        (["prepare", "lm1b", "--unit", "stream"], 2, "another data set of lm1b"),
        (["prepare", "lm1b", "--tokens", "chars"], 2, "--tokens chars would make another data"),
        (["prepare", "lm1b", "--tokens", "bytes"], 2, "--tokens bytes would make another data"),
        (["prepare", "lm1b", "--vocabulary", "8000"], 2, "--vocabulary would make another data"),
        (["prepare", "lm1b", "--from", "."], 1, "lacks 1-billion-word"),
        (["prepare", "imagenet64"], 1, "mulo data prepare imagenet64 --from FOLDER"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_what_goes_wrong_ends_in_a_sentence_and_leaves_nothing(place, arguments, code, said):
    before = sorted(path.name for path in place.iterdir())
    done = inside("data", *arguments, cwd=place)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "error: " in done.stderr
    assert "hint: " in done.stderr
    assert done.stdout == "" or arguments[0] == "show"
    left = {path.name for path in place.iterdir()} - {"data"}
    assert sorted(left) == before
    assert not (place / "data").exists() or not list((place / "data").iterdir())


def test_a_set_is_not_replaced_unless_it_is_asked_for(place, folder):
    prepare_images(folder, "pets")
    card = (folder / "pets" / "dataset.json").read_bytes()
    command = ("data", "prepare", "pets", "--from", "pets.zip")
    refused = inside(*command, cwd=place)
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    assert (folder / "pets" / "dataset.json").read_bytes() == card
    (row,) = lines(inside(*command, "--overwrite", cwd=place))
    assert row["num_classes"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_preparation_and_nothing_is_left(place, folder, monkeypatch, number, code):
    from mulo_cli.datasets import preparing

    def interrupted(path):
        os.kill(os.getpid(), number)
        return "never reached"

    monkeypatch.setattr(preparing, "checksum", interrupted)
    done = inside("data", "prepare", "pets", "--from", "pets.zip", cwd=place)
    assert done.returncode == code
    assert done.stdout == ""
    assert not list(folder.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_process_that_is_told_to_end_ends_so(place, folder):
    """The same in a process of its own, which reads a text for longer than we wait."""
    (place / "long.txt").write_text("".join(f"line number {i}\n" for i in range(2_000_000)))
    command = ("prepare", "long", "--from", "long.txt", "--tokens", "sentencepiece")
    process = start("data", *command, cwd=place)
    assert "reading text" in process.stderr.readline()
    assert list(folder.iterdir()), "it has begun"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    assert not list(folder.iterdir())


def test_help_does_not_import_the_engine(tmp_path):
    assert "prepare" in mulo("data", "--help", cwd=tmp_path).stdout
    script = (
        "import sys, mulo_cli.cli.commands.data, mulo_cli.cli.data_tables\n"
        "sys.exit(str({'jax', 'numpy', 'tensorflow_datasets', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == "set()", done.stderr


@pytest.mark.skipif(
    not (SHARED / "fashion_mnist").exists(), reason="needs ../shared/data, no part of this"
)
def test_the_real_fashion_mnist_is_prepared_from_its_archives(tmp_path, folder):
    source = str(SHARED / "fashion_mnist")
    done = inside("data", "prepare", "fashion_mnist", "--from", source, cwd=tmp_path)
    (row,) = lines(done)
    assert (row["train"], row["test"], row["shape"]) == (60_000, 10_000, [28, 28])
    (report,) = lines(inside("data", "show", "fashion_mnist", "--verify", cwd=tmp_path))
    assert report["images"]["balance"]["counts"] == [6_000] * 10
    assert report["images"]["mean"][0] / 255 == pytest.approx(0.2860, abs=5e-5)
    assert report["images"]["std"][0] / 255 == pytest.approx(0.3530, abs=5e-5)
    assert len(report["verified"]) == 4
    assert re.search("checksums", report["row"]["notes"][0])
