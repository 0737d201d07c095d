"""Files of the MNIST family are read as they were written, or refused by name."""

import gzip

import numpy as np
import pytest

from mulo_cli.datasets.files.reading import looks_like_images, read_images
from tests.datasets.image_files import (
    idx_bytes,
    mnist_files,
    pixels,
    real,
    refusal,
    write_tree,
    write_zip,
)

IMAGES = "train-images-idx3-ubyte.gz"
LABELS = "train-labels-idx1-ubyte.gz"


def test_pixels_and_labels_come_back_as_they_were_written(tmp_path):
    stored = read_images(write_tree(tmp_path, mnist_files(20, 10)))
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], pixels(20, 4, 3))
    np.testing.assert_array_equal(stored.splits["test"]["inputs"], pixels(10, 4, 3))
    np.testing.assert_array_equal(stored.splits["test"]["targets"], np.arange(10) % 2)
    assert stored.splits["train"]["targets"].dtype == np.int32
    assert (stored.num_classes, stored.classes, stored.notes) == (2, (), ())


@pytest.mark.parametrize("spelling", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte"])
def test_plain_files_of_both_spellings_are_known(tmp_path, spelling):
    files = {}
    for name, content in mnist_files().items():
        split, what = name.split("-")[:2]
        axes = 3 if what == "images" else 1
        files[spelling.format(split, what, axes)] = gzip.decompress(content)
    folder = write_tree(tmp_path / "plain", files)
    assert looks_like_images(folder)
    packed = write_zip(tmp_path / "packed.zip", {f"MNIST/raw/{n}": c for n, c in files.items()})
    for path in (folder, packed):
        np.testing.assert_array_equal(read_images(path).splits["train"]["inputs"], pixels(20, 4, 3))


def test_without_test_files_a_tenth_is_held_out_and_told(tmp_path):
    files = {name: content for name, content in mnist_files().items() if "train" in name}
    stored = read_images(write_tree(tmp_path, files))
    both = [stored.splits[split]["inputs"] for split in ("train", "test")]
    assert [len(part) for part in both] == [18, 2]
    assert {image.tobytes() for image in np.concatenate(both)} == {
        image.tobytes() for image in pixels(20, 4, 3)
    }
    assert stored.notes == (
        "2 of 20 images (10%), drawn within each class with a fixed seed, are the test split",
    )


def test_resizing_keeps_an_even_picture_even(tmp_path):
    files = mnist_files()
    files[IMAGES] = gzip.compress(idx_bytes(np.full((20, 4, 3), 77, np.uint8)))
    stored = read_images(write_tree(tmp_path, files), 8)
    assert stored.splits["train"]["inputs"].shape == (20, 8, 8)
    assert (stored.splits["train"]["inputs"] == 77).all()
    assert stored.notes == ("images of 4x3 pixels were brought to 8x8",)


def damaged(name: str, change) -> dict[str, bytes]:
    files = mnist_files()
    files[name] = change(files[name])
    return files


def repacked(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (IMAGES, lambda content: content[:-40], "cannot be read"),
        (IMAGES, lambda content: content[:9], "cannot be read"),
        (IMAGES, lambda content: content + b"junk", "cannot be read"),
        (IMAGES, lambda content: b"", "does not begin as a file of images: nothing"),
        (IMAGES, repacked(lambda raw: b"\0\0\x0d\x03" + raw[4:]), "00 00 0d 03 instead of"),
        (IMAGES, repacked(lambda raw: raw[:-1]), "promises 240 bytes, 239 are there"),
        (IMAGES, repacked(lambda raw: raw + b"\0"), "goes on after the 240 bytes"),
        (IMAGES, repacked(lambda raw: raw[:4] + b"\xff" * 12 + raw[16:]), "79,228,162,"),
        (IMAGES, repacked(lambda raw: raw[:4] + b"\0\1\0\0" * 2 + raw[12:]), "12,884,901,888"),
        (LABELS, repacked(lambda raw: idx_bytes(pixels(19))), "20 images and 19 labels"),
        (LABELS, repacked(lambda raw: raw[:8] + b"\0\2" * 10), "labels of"),
        (LABELS, repacked(lambda raw: raw[:8] + b"\0" * 20), "test labels"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, change, told):
    error = refusal(read_images, write_tree(tmp_path, damaged(name, change)))
    assert told in error.message
    assert name in error.message or str(tmp_path) in error.message


def test_images_in_place_of_labels_are_refused(tmp_path):
    files = mnist_files()
    files[LABELS] = files[IMAGES]
    assert LABELS in refusal(read_images, write_tree(tmp_path, files)).message


def test_a_missing_file_is_named_with_what_is_wanted(tmp_path):
    files = mnist_files()
    del files[LABELS]
    error = refusal(read_images, write_tree(tmp_path, files))
    assert "no labels of the train split" in error.message
    assert "train-labels-idx1-ubyte" in error.hint


def test_two_sets_in_one_folder_are_refused(tmp_path):
    files = {f"emnist-{kind}-{IMAGES}": b"" for kind in ("letters", "digits")}
    error = refusal(read_images, write_tree(tmp_path, files))
    assert "'emnist-digits', 'emnist-letters'" in error.message


def test_files_of_several_folders_are_never_put_together(tmp_path):
    files = {f"mnist/{name}": content for name, content in mnist_files().items()}
    files[f"fashion/{IMAGES}"] = files[f"mnist/{IMAGES}"]
    error = refusal(read_images, write_tree(tmp_path, files))
    assert f"2 folders: 'fashion/{IMAGES}' and 'mnist/" in error.message


def test_one_class_is_no_task(tmp_path):
    files = {
        "train-images-idx3-ubyte": idx_bytes(pixels(4, 2, 2)),
        "train-labels-idx1-ubyte": idx_bytes(np.zeros(4, np.uint8)),
    }
    assert "one class only" in refusal(read_images, write_tree(tmp_path, files)).message


def test_fashion_mnist_has_the_statistics_it_is_known_for():
    stored = read_images(real("fashion_mnist"))
    train = stored.splits["train"]["inputs"]
    assert train.shape == (60_000, 28, 28)
    assert stored.splits["test"]["inputs"].shape == (10_000, 28, 28)
    assert np.bincount(stored.splits["train"]["targets"]).tolist() == [6_000] * 10
    # the published digits
    assert train.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert train.std() / 255 == pytest.approx(0.3530, abs=5e-5)
