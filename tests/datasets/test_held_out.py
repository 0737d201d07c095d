"""A test split that has to be drawn takes its share of every class, and no class as a whole."""

import numpy as np
import pytest

from mulo_cli.datasets.files.reading import read_images
from tests.datasets.image_files import (
    cats_and_dogs,
    image_bytes,
    pixels,
    refusal,
    write_tree,
    write_zip,
)


def test_without_a_test_split_a_tenth_is_held_out_and_told(tmp_path):
    stored = read_images(write_tree(tmp_path, cats_and_dogs(40)))
    assert len(stored.splits["train"]["targets"]) == 36
    both = np.concatenate([stored.splits[split]["inputs"] for split in ("train", "test")])
    assert len({image.tobytes() for image in both}) == 40
    assert stored.notes == (
        "4 of 40 images (10%), drawn within each class with a fixed seed, are the test split",
    )
    assert np.bincount(stored.splits["test"]["targets"]).tolist() == [2, 2]


@pytest.mark.parametrize("counts", [(1, 1, 2), (2,) * 30, (1,) * 40 + (60, 3), (5, 5), (9, 100)])
def test_every_class_keeps_an_image_to_train_on(tmp_path, counts):
    image = image_bytes(pixels(2, 2))
    files = {f"{label}/{i}.png": image for label, count in enumerate(counts) for i in range(count)}
    stored = read_images(write_zip(tmp_path / "my.zip", files))
    train, test = (
        np.bincount(stored.splits[split]["targets"], minlength=len(counts))
        for split in ("train", "test")
    )
    assert (train > 0).all()
    np.testing.assert_array_equal(train + test, counts)
    spare = np.array([count if count > 1 else 0 for count in counts])
    assert test.sum() == max(1, spare.sum() // 10)
    assert (np.abs(test - spare * test.sum() / spare.sum()) < 1).all()


def test_classes_of_one_image_each_leave_nothing_to_test_with(tmp_path):
    image = image_bytes(pixels(4, 4))
    folder = write_tree(tmp_path, {f"{i}/x.png": image for i in range(12)})
    assert "each class has one image only" in refusal(read_images, folder).message
