"""CIFAR's records come back as colour images with their classes, or are refused by name."""

import gzip
import io
import lzma
import tarfile

import numpy as np
import pytest

from mulo_cli.datasets.files.cifar_binary import CIFAR10, CIFAR100
from mulo_cli.datasets.files.reading import looks_like_images, read_images
from tests.datasets.image_files import pixels, real, refusal, write_tree

NAMES = "\n".join(f"thing {i}" for i in range(10)) + "\n\n"


def records(labels: np.ndarray, seed: int = 0) -> bytes:
    """Records with one row of label bytes each."""
    images = pixels(len(labels), 32, 32, 3, seed=seed).transpose(0, 3, 1, 2)
    return np.concatenate([labels.astype(np.uint8), images.reshape(len(labels), -1)], 1).tobytes()


def ten(count: int, seed: int = 0) -> bytes:
    return records(np.arange(count)[:, None] % 10, seed)


def test_planes_become_colours_of_pixels(tmp_path):
    files = {
        "data_batch_1.bin": ten(20, 1),
        "data_batch_2.bin.gz": gzip.compress(ten(10, 2)),
        "test_batch.bin.xz": lzma.compress(ten(10, 3)),
        "batches.meta.txt": NAMES.encode(),
    }
    folder = write_tree(tmp_path, files)
    assert looks_like_images(folder)
    stored = read_images(folder)
    want = np.concatenate([pixels(20, 32, 32, 3, seed=1), pixels(10, 32, 32, 3, seed=2)])
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], want)
    np.testing.assert_array_equal(stored.splits["test"]["inputs"], pixels(10, 32, 32, 3, seed=3))
    np.testing.assert_array_equal(stored.splits["train"]["targets"], np.arange(30) % 10)
    assert stored.num_classes == 10
    assert stored.classes[9] == "thing 9"


def test_the_archive_is_read_as_published(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    files = {"data_batch_1.bin": ten(20), "test_batch.bin": ten(10, 1), "readme.html": b"<html>"}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert looks_like_images(path)
    stored = read_images(path)
    assert {split: len(part["targets"]) for split, part in stored.splits.items()} == {
        "train": 20,
        "test": 10,
    }


def test_of_cifar_100_the_fine_label_is_the_class(tmp_path):
    labels = np.stack([np.arange(200) % 20, np.arange(200) % 100], 1)
    files = {"train.bin": records(labels), "test.bin": records(labels[:100])}
    stored = read_images(write_tree(tmp_path, files))
    assert stored.num_classes == 100
    np.testing.assert_array_equal(stored.splits["train"]["targets"], np.arange(200) % 100)
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], pixels(200, 32, 32, 3))


def test_a_length_of_both_records_is_told_by_the_labels(tmp_path):
    """3 074 records of CIFAR-10 are as long as 3 073 of CIFAR-100."""
    assert CIFAR10.size * 3_074 == CIFAR100.size * 3_073
    stored = read_images(write_tree(tmp_path, {"train.bin": ten(3_074)}))
    assert stored.num_classes == 10


def test_what_could_be_both_is_an_error_until_names_tell_it(tmp_path):
    black = {"train.bin": bytes(CIFAR10.size * 3_074)}
    error = refusal(read_images, write_tree(tmp_path, black))
    assert "CIFAR-10 or CIFAR-100" in error.message
    assert "batches.meta.txt" in error.hint
    write_tree(tmp_path, {"batches.meta.txt": NAMES.encode()})
    assert read_images(tmp_path).num_classes == 10


def test_without_test_files_a_tenth_is_held_out_and_told(tmp_path):
    stored = read_images(write_tree(tmp_path, {"data_batch_1.bin": ten(20)}), 16)
    assert stored.splits["test"]["inputs"].shape == (2, 16, 16, 3)
    assert any("10%" in note for note in stored.notes)
    assert "images of 32x32 pixels were brought to 16x16" in stored.notes


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("data_batch_2.bin", ten(5)[:-1], "15,364 bytes: neither whole records"),
        ("data_batch_2.bin", ten(5) + b"\0", "15,366 bytes: neither whole records"),
        ("data_batch_2.bin", b"", "0 bytes"),
        ("data_batch_2.bin", records(np.full((5, 1), 10)), "labels that CIFAR does not have"),
        ("data_batch_2.bin.gz", gzip.compress(ten(5))[:-9], "cannot be read"),
        ("data_batch_2.bin.xz", lzma.compress(ten(5))[:-9], "cannot be read"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, content, told):
    folder = write_tree(tmp_path, {"data_batch_1.bin": ten(5), name: content})
    error = refusal(read_images, folder)
    assert name in error.message
    assert told in error.message


def test_test_files_alone_are_refused(tmp_path):
    folder = write_tree(tmp_path, {"test_batch.bin": ten(5)})
    assert "no file of the train split" in refusal(read_images, folder).message


def test_a_file_that_unpacks_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("mulo_cli.datasets.files.cifar_binary.READ_LIMIT", 2**21)
    bomb = gzip.compress(bytes(2**24))
    folder = write_tree(tmp_path, {"data_batch_1.bin.gz": bomb})
    assert "more than 2,097,152 bytes" in refusal(read_images, folder).message


def test_the_bound_is_one_for_all_files_together(tmp_path, monkeypatch):
    monkeypatch.setattr("mulo_cli.datasets.files.cifar_binary.READ_LIMIT", 25 * CIFAR10.size)
    folder = write_tree(tmp_path, {f"data_batch_{i}.bin": ten(10) for i in range(3)})
    assert "'data_batch_2.bin' makes this set" in refusal(read_images, folder).message


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_a_packed_copy_beside_a_file_is_not_read_again(tmp_path, suffix, pack):
    files = {"data_batch_1.bin": ten(20), f"data_batch_1.bin.{suffix}": pack(ten(20))}
    stored = read_images(write_tree(tmp_path, files))
    assert sum(len(part["targets"]) for part in stored.splits.values()) == 20


def test_a_program_called_bin_is_not_cifar(tmp_path):
    assert not looks_like_images(write_tree(tmp_path, {"program.bin": b"\x7fELF" * 2_000}))


def test_real_cifar_10_has_the_statistics_it_is_known_for(tmp_path):
    folder = real("cifar10")
    for name in ("train_1.bin.xz", "batches.meta.txt"):  # a third: unpacking takes a second each
        (tmp_path / name).symlink_to(folder / name)
    stored = read_images(tmp_path)
    images = np.concatenate([stored.splits[split]["inputs"] for split in ("train", "test")])
    targets = np.concatenate([stored.splits[split]["targets"] for split in ("train", "test")])
    assert np.bincount(targets).tolist() == [500] * 10
    assert stored.classes[:2] == ("airplane", "automobile")
    mean = images.mean((0, 1, 2), dtype=np.float64) / 255
    std = images.std((0, 1, 2), dtype=np.float64) / 255
    # a third of the images: the mean of 5 000 image means, each of a spread of about 0.12
    np.testing.assert_allclose(mean, (0.4919, 0.4828, 0.4470), atol=0.006)
    np.testing.assert_allclose(std, (0.2464, 0.2432, 0.2611), atol=0.006)
