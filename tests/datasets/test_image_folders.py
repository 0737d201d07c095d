"""Folders of image files become arrays with the class of their folder, and say what was done."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from mulo_cli.datasets.files.reading import looks_like_images, read_images
from tests.datasets.image_files import (
    cats_and_dogs,
    image_bytes,
    pixels,
    real,
    refusal,
    write_tree,
    write_zip,
)

ANIMALS = ("cat", "dog")


def with_splits(**counts: int) -> dict[str, bytes]:
    """Cats and dogs in one folder per split, of other images each."""
    files = {}
    for number, (split, count) in enumerate(counts.items()):
        for i in range(count):
            image = image_bytes(pixels(4, 4, 3, seed=100 * number + i))
            files[f"{split}/{ANIMALS[i % 2]}/{i:02d}.png"] = image
    return files


def one_folder(tmp_path, *images: bytes, suffix: str = "png"):
    """Images as cats, and one dog that makes the set a task."""
    files = {f"train/cat/{i}.{suffix}": image for i, image in enumerate(images)}
    grey = image_bytes(np.zeros((4, 4), np.uint8))
    return write_tree(tmp_path, {**files, "train/dog/0.png": grey, "test/cat/0.png": grey})


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation", "Val"])
def test_folders_tell_split_and_class(tmp_path, test):
    folder = write_tree(tmp_path, with_splits(train=6, **{test: 4}))
    assert looks_like_images(folder)
    stored = read_images(folder)
    assert stored.classes == ANIMALS
    # sorted by class and name: cats are even
    train = np.stack([pixels(4, 4, 3, seed=i) for i in (0, 2, 4, 1, 3, 5)])
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], train)
    np.testing.assert_array_equal(stored.splits["train"]["targets"], [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(stored.splits["test"]["targets"], [0, 0, 1, 1])
    np.testing.assert_array_equal(stored.splits["test"]["inputs"][0], pixels(4, 4, 3, seed=100))
    assert stored.notes == ()


def test_zip_tar_and_folder_are_one_set(tmp_path):
    files = {f"my-images/{name}": content for name, content in cats_and_dogs(20).items()}
    folder = write_tree(tmp_path / "folder", files)
    shuffled = dict(sorted(files.items(), key=lambda item: zlib.crc32(item[0].encode())))
    zipped = write_zip(tmp_path / "my.zip", shuffled)
    first, second = read_images(folder), read_images(zipped)
    assert (first.classes, first.notes) == (second.classes, second.notes)
    for split in ("train", "test"):
        for name in ("inputs", "targets"):
            np.testing.assert_array_equal(first.splits[split][name], second.splits[split][name])


def test_a_test_split_goes_before_validation_and_that_is_told(tmp_path):
    stored = read_images(write_tree(tmp_path, with_splits(train=6, val=4, test=2)))
    assert len(stored.splits["test"]["targets"]) == 2
    assert stored.notes == ("val/ was passed over: test/ is the test split",)


def test_classes_called_by_numbers_keep_their_order(tmp_path):
    image = image_bytes(pixels(4, 4))
    stored = read_images(write_tree(tmp_path, {f"{i // 2}/{i}.png": image for i in range(24)}))
    assert stored.classes == tuple(str(i) for i in range(12))


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    litter = {
        ".DS_Store": b"x",
        "cat/.DS_Store": b"x",
        "cat/Thumbs.db": b"x",
        "dog/desktop.ini": b"x",
        "__MACOSX/cat/._000.png": b"x",
        ".git/config": b"x",
        "README.txt": b"hello",
    }
    files = cats_and_dogs(20)
    clean = read_images(write_zip(tmp_path / "clean.zip", files))
    stored = read_images(write_zip(tmp_path / "littered.zip", {**litter, **files}))
    assert stored.classes == ANIMALS
    assert stored.notes == clean.notes
    np.testing.assert_array_equal(stored.splits["test"]["inputs"], clean.splits["test"]["inputs"])


def test_images_outside_class_folders_are_passed_over_and_told(tmp_path):
    files = {**cats_and_dogs(20), "logo.png": image_bytes(pixels(9, 9))}
    assert read_images(write_tree(tmp_path, files)).notes[0] == (
        "1 image was in no class folder and passed over"
    )


TINY_WORDS = "n01\tgoldfish, Carassius auratus\nn02\tcrane\nn03\tcrane, bird\nn04\tnot here\n"


def tiny_imagenet() -> dict[str, bytes]:
    files = {"words.txt": TINY_WORDS.encode(), "wnids.txt": b"n03\nn01\nn02\n"}
    for number, name in enumerate(("n01", "n02", "n03")):
        files[f"train/{name}/{name}_boxes.txt"] = b"0\t0\t3\t3\n"
        for i in range(2):
            image = image_bytes(pixels(4, 4, 3, seed=10 * number + i))
            files[f"train/{name}/images/{name}_{i}.JPEG"] = image
        files[f"val/images/val_{number}.JPEG"] = image_bytes(pixels(4, 4, 3, seed=50 + number))
        files[f"test/images/test_{number}.JPEG"] = image
    files["val/val_annotations.txt"] = (
        b"val_0.JPEG\tn03\t0\t0\t3\t3\nval_1.JPEG\tn01\t0\t0\t3\t3\nval_2.JPEG\tn03\t0\t0\t3\t3\n"
    )
    return {f"tiny-imagenet-200/{name}": content for name, content in files.items()}


def test_tiny_imagenet_is_read_as_published(tmp_path):
    stored = read_images(write_zip(tmp_path / "tiny.zip", tiny_imagenet()))
    assert stored.classes == ("goldfish", "crane (n02)", "crane (n03)")
    np.testing.assert_array_equal(stored.splits["train"]["targets"], [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(stored.splits["test"]["targets"], [0, 2, 2])
    of_goldfish = pixels(4, 4, 3, seed=51)
    np.testing.assert_array_equal(stored.splits["test"]["inputs"][0], of_goldfish)
    assert stored.notes == ("test/ has no labels and was passed over",)


def test_an_image_that_the_list_does_not_have_is_named(tmp_path):
    files = tiny_imagenet()
    files["tiny-imagenet-200/val/images/val_9.JPEG"] = image_bytes(pixels(4, 4, 3))
    assert "val_9.JPEG" in refusal(read_images, write_tree(tmp_path, files)).message


def test_words_that_are_no_list_of_names_change_nothing(tmp_path):
    files = {**cats_and_dogs(20), "words.txt": b"these are my cats\nand my dogs\n"}
    assert read_images(write_tree(tmp_path, files)).classes == ANIMALS


def test_no_terminal_obeys_the_name_of_a_class(tmp_path):
    files = {("a\x1b[31m" * (i % 2)) + f"b/{i}.png": image_bytes(pixels(4, 4)) for i in range(9)}
    assert read_images(write_zip(tmp_path / "evil.zip", files)).classes == ("a\ufffd[31mb", "b")


def test_greyscale_stays_so_where_all_images_are(tmp_path):
    stored = read_images(write_tree(tmp_path, cats_and_dogs(20, 5, 4)))
    assert stored.splits["train"]["inputs"].shape == (18, 5, 4)


def test_greyscale_beside_colour_becomes_colour_and_is_told(tmp_path):
    grey, colour = pixels(4, 4), pixels(4, 4, 3)
    folder = one_folder(tmp_path, image_bytes(grey), image_bytes(colour), image_bytes(grey))
    stored = read_images(folder)
    cats = stored.splits["train"]["inputs"][:3]
    np.testing.assert_array_equal(cats[0], np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(cats[2], cats[0])
    np.testing.assert_array_equal(cats[1], colour)
    assert stored.notes == ("4 greyscale images were read as RGB",)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "JPEG"])
def test_every_kind_of_file_is_read_whatever_it_is_called(tmp_path, kind):
    even = np.full((4, 4, 3), (200, 100, 50), np.uint8)
    save = {"lossless": True} if kind == "WEBP" else {}
    stored = read_images(one_folder(tmp_path, image_bytes(even, kind, **save), suffix="img"))
    error = np.abs(stored.splits["train"]["inputs"][0].astype(int) - even).max()
    assert error <= (2 if kind == "JPEG" else 0)  # jpeg rounds colours


def test_only_the_first_frame_counts(tmp_path):
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    stored = read_images(one_folder(tmp_path, buffer.getvalue(), suffix="gif"))
    assert (stored.splits["train"]["inputs"][0] == 10).all()


def test_transparency_lies_on_white_and_is_told(tmp_path):
    clear = np.zeros((4, 4, 4), np.uint8)
    half = np.full((4, 4, 4), (0, 0, 0, 128), np.uint8)
    stored = read_images(one_folder(tmp_path, image_bytes(clear), image_bytes(half)))
    cats = stored.splits["train"]["inputs"][:2]
    assert (cats[0] == 255).all()
    assert (np.abs(cats[1].astype(int) - 127) <= 1).all()
    assert "2 transparent images were laid on white" in stored.notes


@pytest.mark.parametrize(
    ("mode", "kind", "told"),
    [
        ("P", "PNG", "1 image of kind P was read as RGB"),
        ("CMYK", "JPEG", "1 image of kind CMYK was read as RGB"),
        ("1", "PNG", "1 black-and-white image was read as greyscale"),
        ("LA", "PNG", "1 transparent image was laid on white"),
    ],
)
def test_unusual_kinds_of_pixels_are_converted_and_told(tmp_path, mode, kind, told):
    red_or_white = np.full((4, 4, 3), 255, np.uint8)
    stored = read_images(one_folder(tmp_path, image_bytes(red_or_white, kind, mode)))
    assert (stored.splits["train"]["inputs"][0] == 255).all()
    assert told in stored.notes


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    deep = (np.arange(16, dtype=np.uint16) * 4_000).reshape(4, 4)
    stored = read_images(one_folder(tmp_path, image_bytes(deep)))
    np.testing.assert_array_equal(stored.splits["train"]["inputs"][0], deep // 256)
    assert "1 greyscale image of 16 bits was read with 8 bits" in stored.notes


def test_several_sizes_are_an_error_that_names_two_and_the_option(tmp_path):
    folder = one_folder(tmp_path, image_bytes(pixels(4, 4)), image_bytes(pixels(5, 7)))
    error = refusal(read_images, folder)
    assert "0.png' has 4x4 pixels, 'train/cat/1.png' has 7x5" in error.message
    assert ":resize=32" in error.hint


def test_resizing_brings_several_sizes_to_one_and_is_told(tmp_path):
    even, oblong = np.full((8, 8), 9, np.uint8), np.full((16, 4), 90, np.uint8)
    folder = one_folder(tmp_path, image_bytes(even), image_bytes(oblong))
    stored = read_images(folder, 8)
    assert stored.splits["train"]["inputs"].shape == (3, 8, 8)
    np.testing.assert_array_equal(stored.splits["train"]["inputs"][:2, 0, 0], [9, 90])
    assert stored.notes == (
        "3 images were brought to 8x8 pixels",
        "1 oblong image was squeezed into the square, not cut",
    )


def test_shrinking_takes_means_over_boxes(tmp_path):
    image = pixels(8, 8, 3)
    stored = read_images(one_folder(tmp_path, image_bytes(image)), 4)
    boxes = image.reshape(4, 2, 4, 2, 3).mean((1, 3))
    # rounded once per direction
    np.testing.assert_allclose(stored.splits["train"]["inputs"][0], boxes, atol=1)


def test_a_large_jpeg_shrinks_to_nearly_the_same_as_a_png(tmp_path):
    rows, columns = np.mgrid[0:1, 0:1:256j][0], np.mgrid[0:255:256j]
    smooth = np.uint8(np.rint(columns[:, None] * 0.5 + columns[None] * 0.5 + 0 * rows))
    images = (image_bytes(smooth), image_bytes(smooth, "JPEG", quality=95))
    cats = read_images(one_folder(tmp_path, *images), 16).splits["train"]["inputs"][:2]
    # jpeg at this quality is off by a level or two; its decoder shrinks in frequency space
    np.testing.assert_allclose(cats[0].astype(int), cats[1].astype(int), atol=3)


def changed(name: str, content: bytes) -> dict[str, bytes]:
    return {**cats_and_dogs(20), name: content}


GOOD = image_bytes(pixels(4, 4, 3))
HUGE = (
    b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I", 13)
    + (header := b"IHDR" + struct.pack(">IIBBBBB", 90_000, 90_000, 8, 2, 0, 0, 0))
    + struct.pack(">I", zlib.crc32(header))
)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("cat/notes.txt", b"my cats", "is no image: it begins with b'my cats'"),
        ("cat/empty.png", b"", "is no image"),
        ("cat/short.png", GOOD[:-30], "cannot be decoded"),
        ("cat/short.jpg", image_bytes(pixels(64, 64, 3), "JPEG")[:700], "cannot be decoded"),
        ("cat/header.png", GOOD[:8], "cannot be decoded"),
        ("cat/junk.png", GOOD[:20] + bytes(200), "cannot be decoded"),
        ("cat/huge.png", HUGE, "cannot be decoded"),
        ("cat/old/x.png", GOOD, "lies deeper than CLASS/FILE"),
        ("cat/x.tiff", image_bytes(pixels(4, 4), "TIFF"), "is no image"),
    ],
)
def test_a_bad_file_in_a_class_folder_is_an_error_that_names_it(tmp_path, name, content, told):
    error = refusal(read_images, write_tree(tmp_path, changed(name, content)))
    assert name in error.message
    assert told in error.message


def test_a_class_without_training_images_is_named(tmp_path):
    files = {**with_splits(train=4, val=4), "val/horse/1.png": GOOD}
    error = refusal(read_images, write_tree(tmp_path, files))
    assert "val/ has images of 'horse'" in error.message


def test_one_class_is_no_task(tmp_path):
    cats = {f"animals/cat/{i}.png": GOOD for i in range(3)}
    assert "one class only" in refusal(read_images, write_tree(tmp_path, cats)).message


def test_more_pixels_than_memory_is_an_error_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("mulo_cli.datasets.files.streams.ARRAY_LIMIT", 20 * 4 * 4 * 3 - 1)
    error = refusal(read_images, write_tree(tmp_path, cats_and_dogs(20)))
    assert "960 bytes when decoded" in error.message
    assert "resize" in error.hint


def test_a_member_that_declares_to_be_huge_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mulo_cli.datasets.files.image_folders.FILE_LIMIT", 2**16)
    path = write_zip(tmp_path / "bomb.zip", changed("cat/bomb.png", GOOD + bytes(2**20)))
    error = refusal(read_images, path)
    assert "'cat/bomb.png' is said to have" in error.message


def test_a_part_of_real_tiny_imagenet_is_read(tmp_path):
    """Four classes of the publisher's JPEGs, some of them greyscale, and every labelled image."""
    path = real("tiny-imagenet-200") / "tiny-imagenet-200_100pc.zip"
    part = tmp_path / "part.zip"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(part, "w") as few:
        listed = whole.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()
        wanted = whole.read("tiny-imagenet-200/wnids.txt").decode().split()[:8]
        validation = {row.split("\t")[0] for row in listed if row.split("\t")[1] in wanted}
        for name in whole.namelist():
            parts = name.split("/")
            if parts[-1].endswith(".txt") or parts[2] in wanted or parts[-1] in validation:
                few.writestr(name, whole.read(name))
    stored = read_images(part)
    assert stored.num_classes == 8
    assert np.bincount(stored.splits["train"]["targets"]).tolist() == [100] * 8
    assert np.bincount(stored.splits["test"]["targets"]).tolist() == [25] * 8
    assert stored.splits["train"]["inputs"].shape == (800, 64, 64, 3)
    assert not any(name.startswith("n0") for name in stored.classes)


@pytest.mark.slow
def test_real_tiny_imagenet_has_the_statistics_it_is_known_for():
    stored = read_images(real("tiny-imagenet-200") / "tiny-imagenet-200_100pc.zip")
    images = stored.splits["train"]["inputs"]
    assert images.shape == (20_000, 64, 64, 3)
    assert stored.splits["test"]["inputs"].shape == (5_000, 64, 64, 3)
    mean = images.mean((0, 1, 2), dtype=np.float64) / 255
    std = images.std((0, 1, 2), dtype=np.float64) / 255
    # known for all 100 000 training images: the mean of a fifth differs by 0.14 / sqrt(20 000)
    np.testing.assert_allclose(mean, (0.4804, 0.4482, 0.3976), atol=0.003)
    np.testing.assert_allclose(std, (0.2764, 0.2689, 0.2817), atol=0.003)
