"""Small image files of all formats, made on the spot, and the real ones where they are."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mulo_cli.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
"""Real data of the developers, beside the repository."""


def real(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this repository")
    return path


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def image_bytes(array: np.ndarray, kind: str = "PNG", mode: str | None = None, **save) -> bytes:
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **save)
    return buffer.getvalue()


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def mnist_files(train: int = 20, test: int = 10) -> dict[str, bytes]:
    """Four files of a set with two classes and images of 4x3 pixels, gzip."""
    files = {}
    for split, count in (("train", train), ("t10k", test)):
        labels = np.arange(count, dtype=np.uint8) % 2
        files[f"{split}-images-idx3-ubyte.gz"] = gzip.compress(idx_bytes(pixels(count, 4, 3)))
        files[f"{split}-labels-idx1-ubyte.gz"] = gzip.compress(idx_bytes(labels))
    return files


def cats_and_dogs(count: int = 20, *shape: int) -> dict[str, bytes]:
    """Half cats, half dogs, as png files in two folders."""
    return {
        f"{'cat' if i % 2 else 'dog'}/{i:03d}.png": image_bytes(
            pixels(*(shape or (4, 4, 3)), seed=i)
        )
        for i in range(count)
    }


def refusal(read, *arguments) -> DataError:
    """Return the error that reading ends in."""
    with pytest.raises(DataError) as caught:
        read(*arguments)
    assert caught.value.hint
    return caught.value
