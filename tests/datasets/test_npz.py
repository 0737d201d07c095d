"""Arrays saved by numpy are read without a loss and without opening pickles, or refused by name."""

import io
import pickle

import numpy as np
import pytest

from mulo_cli.datasets.files.reading import looks_like_images, read_images
from tests.datasets.image_files import pixels, refusal, write_tree, write_zip


def keras(**changed: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {
        "x_train": pixels(20, 4, 3),
        "y_train": np.arange(20) % 3,
        "x_test": pixels(10, 4, 3, seed=1),
        "y_test": np.arange(10) % 3,
    }
    return {**arrays, **changed}


def saved(tmp_path, **arrays):
    path = tmp_path / "my.npz"
    np.savez_compressed(path, **arrays)
    return path


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


OURS = {
    "x_train": "train_inputs",
    "y_train": "train_targets",
    "x_test": "test_inputs",
    "y_test": "test_targets",
}


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 3)])
@pytest.mark.parametrize("names", [OURS, {name: name for name in OURS}])
def test_arrays_come_back_as_they_were_saved(tmp_path, names, shape):
    arrays = keras(x_train=pixels(20, *shape), x_test=pixels(10, *shape, seed=1))
    path = saved(tmp_path, **{names[name]: array for name, array in arrays.items()})
    assert looks_like_images(path)
    stored = read_images(path)
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], arrays["x_train"])
    np.testing.assert_array_equal(stored.splits["test"]["targets"], arrays["y_test"])
    assert stored.splits["train"]["targets"].dtype == np.int32
    assert (stored.num_classes, stored.notes) == (3, ())


def test_a_folder_of_npy_files_is_the_same(tmp_path):
    folder = write_tree(tmp_path, {f"{name}.npy": npy_bytes(a) for name, a in keras().items()})
    np.testing.assert_array_equal(read_images(folder).splits["test"]["inputs"], keras()["x_test"])


def test_arrays_of_several_folders_are_never_put_together(tmp_path):
    files = {f"a/{name}.npy": npy_bytes(array) for name, array in keras().items()}
    files["b/x_train.npy"] = files["a/x_train.npy"]
    error = refusal(read_images, write_tree(tmp_path, files))
    assert "lie in 2 folders" in error.message
    assert "'b/x_train.npy'" in error.message


def test_other_arrays_may_lie_anywhere(tmp_path):
    files = {f"a/{name}.npy": npy_bytes(array) for name, array in keras().items()}
    files["b/weights.npy"] = files["a/x_train.npy"]
    assert len(read_images(write_tree(tmp_path, files)).splits["train"]["targets"]) == 20


def test_a_header_of_version_2_is_read(tmp_path):
    files = {f"{name}.npy": npy_bytes(array) for name, array in keras().items()}
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, keras()["x_train"], version=(2, 0))
    files["x_train.npy"] = buffer.getvalue()
    stored = read_images(write_zip(tmp_path / "my.npz", files))
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], keras()["x_train"])


def test_arrays_stored_by_columns_are_the_same(tmp_path):
    images = np.asfortranarray(pixels(20, 4, 3))
    stored = read_images(saved(tmp_path, **keras(x_train=images)))
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], images)
    assert stored.splits["train"]["inputs"].flags.c_contiguous


def test_labels_of_one_column_are_flattened(tmp_path):
    stored = read_images(saved(tmp_path, **keras(y_train=np.arange(20)[:, None] % 3)))
    assert stored.splits["train"]["targets"].shape == (20,)


def test_without_a_test_split_a_tenth_is_held_out_and_told(tmp_path):
    arrays = {name: array for name, array in keras().items() if "train" in name}
    stored = read_images(saved(tmp_path, **arrays))
    assert [len(stored.splits[split]["targets"]) for split in ("train", "test")] == [18, 2]
    assert len(stored.notes) == 1


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float32, np.float64])
def test_whole_numbers_of_other_types_are_taken_and_told(tmp_path, dtype):
    images = pixels(20, 4, 3)
    stored = read_images(saved(tmp_path, **keras(x_train=images.astype(dtype))))
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], images)
    assert stored.splits["train"]["inputs"].dtype == np.uint8
    assert stored.notes == (f"x_train was {np.dtype(dtype)} and became uint8, without a loss",)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_of_255_are_taken_and_told(tmp_path, dtype):
    images = pixels(20, 4, 3)
    stored = read_images(saved(tmp_path, **keras(x_train=images.astype(dtype) / dtype(255))))
    np.testing.assert_array_equal(stored.splits["train"]["inputs"], images)
    assert "times 255" in stored.notes[0]


@pytest.mark.parametrize(
    "images",
    [
        pixels(20, 4, 3) / 300,
        pixels(20, 4, 3) / 127.5 - 1,
        (pixels(20, 4, 3) / 255).astype(np.float16),
        pixels(20, 4, 3) / 7,
        np.int32(pixels(20, 4, 3)) - 1,
        np.int32(pixels(20, 4, 3)) + 100,
        np.full((20, 4, 3), np.nan),
        np.full((20, 4, 3), np.inf),
    ],
)
def test_pixels_that_would_lose_something_are_refused(tmp_path, images):
    error = refusal(read_images, saved(tmp_path, **keras(x_train=images)))
    assert str(images.dtype) in error.message
    assert "uint8" in error.hint


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"y_train": np.arange(20) % 3 + 1}, "1, 2, 3: they have to be 0, 1,"),
        ({"y_train": np.arange(20) % 3 * 2}, "0, 2, 4: they have to be 0, 1,"),
        ({"y_train": np.arange(20) % 3 - 1}, "labels from -1 to 1"),
        ({"y_test": np.arange(10) % 5}, "also 3, 4"),
        ({"y_train": np.zeros(20, int)}, "test labels"),
        ({"y_train": np.eye(20, 3)}, "float64 of 20x3"),
        ({"y_train": np.eye(20, 3, dtype=int)}, "int64 of 20x3"),
        ({"y_train": np.arange(19) % 3}, "20 images and 19 labels"),
        ({"x_test": pixels(10, 5, 3)}, "train images are 4x3, test images are 5x3"),
        ({"x_train": pixels(20, 12)}, "x_train is 20x12"),
        ({"x_train": pixels(20, 3, 32, 32)}, "x_train is 20x3x32x32"),
        ({"x_train": pixels(0, 4, 3), "y_train": np.zeros(0, int)}, "holds no images"),
        ({"x_train": np.array(["a"] * 20)}, "not numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changed, told):
    assert told in refusal(read_images, saved(tmp_path, **keras(**changed))).message


def test_a_missing_array_is_named(tmp_path):
    arrays = {name: array for name, array in keras().items() if name != "y_test"}
    error = refusal(read_images, saved(tmp_path, **arrays))
    assert "'y_test'" in error.message
    assert "x_train" in error.message


class Trap:
    """Unpickled, it would be heard."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_objects_are_refused_and_not_opened(tmp_path):
    header = npy_bytes(np.zeros((), np.int8)).replace(b"'|i1'", b"'|O' ")[:-1]
    files = {f"{name}.npy": npy_bytes(array) for name, array in keras().items()}
    files["x_train.npy"] = header + pickle.dumps(Trap())
    error = refusal(read_images, write_zip(tmp_path / "trap.npz", files))
    assert "not numbers" in error.message
    assert "x_train.npy" in error.message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda raw: raw[:-1], "promises 240 bytes, 239 are there"),
        (lambda raw: raw + b"\0", "goes on after"),
        (lambda raw: raw.replace(b"(20, 4, 3)", b"(9" + b"9" * 14 + b", 9)"), "says that it holds"),
        (lambda raw: raw.replace(b"(20, 4, 3)", b"(-2,-4, 3)"), "no array of numbers"),
        (lambda raw: raw[:20], "no array of numbers"),
        (lambda raw: raw[:6] + b"\2\0" + b"\xff" * 4 + raw[10:], "have 4,294,967,295 bytes"),
        (lambda raw: b"nothing of the kind", "no array of numbers"),
        (lambda raw: raw[:6] + b"\x07" + raw[7:], "no array of numbers"),
    ],
)
def test_a_damaged_array_is_an_error_that_names_it(tmp_path, change, told):
    files = {f"{name}.npy": npy_bytes(array) for name, array in keras().items()}
    files["x_train.npy"] = change(files["x_train.npy"])
    error = refusal(read_images, write_zip(tmp_path / "damaged.npz", files))
    assert told in error.message
    assert "x_train.npy" in error.message


def test_a_file_cut_short_is_an_error(tmp_path):
    path = saved(tmp_path, **keras())
    path.write_bytes(path.read_bytes()[:-60])
    assert "my.npz" in refusal(read_images, path).message
    assert not looks_like_images(path)


def test_a_picture_may_have_few_channels_of_any_number(tmp_path):
    arrays = keras(x_train=pixels(20, 4, 4, 2), x_test=pixels(10, 4, 4, 2))
    stored = read_images(saved(tmp_path, **arrays), 2)
    boxes = arrays["x_train"].reshape(20, 2, 2, 2, 2, 2).mean((2, 4))
    # means over boxes of 2x2, rounded once per direction
    np.testing.assert_allclose(stored.splits["train"]["inputs"], boxes, atol=1)
