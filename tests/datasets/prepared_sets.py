"""Small prepared data sets for tests, and a folder of data of a test's own."""

from pathlib import Path

import numpy as np

from mulo_cli.datasets.options import DatasetOptions
from mulo_cli.datasets.preparing import Origin, draft_of, stream_of, write_images, write_text
from mulo_cli.datasets.stored import StoredImages
from mulo_cli.datasets.text import tokenise
from mulo_cli.datasets.text_files import StoredText

CLASSES = ("cat", "dog", "\x1b[31mred")
"""The last one is what a hostile archive might call a class."""

TEXT = StoredText("the cat sat\non the mat\n\nand so on\n" * 20, "a dog ran\nfar away\n", ("Cut.",))


def some_images(
    train: int = 60, test: int = 12, shape: tuple[int, ...] = (8, 8, 3)
) -> StoredImages:
    """Return random images whose number is written into their first pixel."""
    generator = np.random.default_rng(0)

    def split(size: int) -> dict[str, np.ndarray]:
        inputs = generator.integers(0, 256, (size, *shape), np.uint8)
        return {"inputs": inputs, "targets": np.arange(size, dtype=np.int32) % len(CLASSES)}

    return StoredImages(
        {"train": split(train), "test": split(test)}, len(CLASSES), CLASSES, ("Made up.",)
    )


def prepare_images(folder: Path, name: str = "mine", stored: StoredImages | None = None) -> Path:
    """Prepare images in a folder of data."""
    place = folder / name
    with draft_of(place, overwrite=True) as draft:
        list(write_images(draft, stream_of(stored or some_images()), _origin(name)))
    return place


def prepare_text(folder: Path, name: str = "words", **options: str) -> Path:
    """Prepare a text in a folder of data."""
    place = folder / name
    with draft_of(place, overwrite=True) as draft:
        list(write_text(draft, tokenise(TEXT, DatasetOptions(**options)), _origin(name)))
    return place


def _origin(name: str) -> Origin:
    return Origin(name, "a test", "none")
