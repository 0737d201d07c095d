"""The door to image files: tells the format by what is there, and reads it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mulo_cli.datasets.files.archives import opened
from mulo_cli.datasets.files.cifar_binary import is_cifar_binary, read_cifar_binary
from mulo_cli.datasets.files.idx import is_idx, read_idx
from mulo_cli.datasets.files.image_folders import is_image_folder, read_image_folders
from mulo_cli.datasets.files.members import Member
from mulo_cli.datasets.files.npz import is_arrays, read_arrays
from mulo_cli.datasets.files.streams import unpacked
from mulo_cli.datasets.stored import StoredImages
from mulo_cli.errors import DataError, shortened_path

LOOKED_AT = 20_000
"""Files after which no more are looked for to tell a format."""

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")

RESIZE_LIMIT = 1_024
"""Largest side in pixels that images are brought to."""


@dataclass(frozen=True)
class Format:
    """One format of image files.

    Attributes:
        fits: tells it by its files.
        read: (files, name for errors, side in pixels or 0) -> images.
    """

    fits: Callable[[Sequence[Member]], bool]
    read: Callable[[Sequence[Member], str, int], StoredImages]


FORMATS = (
    Format(is_idx, read_idx),
    Format(is_arrays, read_arrays),
    Format(is_cifar_binary, read_cifar_binary),
    Format(is_image_folder, read_image_folders),
)
"""In the order of asking: what is told by fewer bytes first."""


def looks_like_images(path: Path) -> bool:
    """Tell whether a file or a folder can be read as images, by what is in it."""
    try:
        with opened(path) as members:
            return _format_of(list(itertools.islice(members, LOOKED_AT))) is not None
    except DataError:
        return False


def read_images(path: Path, resize: int = 0) -> StoredImages:
    """Read classified images.

    Args:
        path: a folder, a zip, a tar or a file of a known format.
        resize: side in pixels that rows and columns are both brought to; 0 keeps them.

    Returns:
        the images, and what was done to get them.

    Raises:
        DataError: it is missing, damaged, of no known format, or not of one size.
    """
    shown = shortened_path(path)
    if not 0 <= resize <= RESIZE_LIMIT:
        raise DataError(
            f"images cannot be brought to {resize} pixels",
            f"give a side of 1 to {RESIZE_LIMIT} pixels, or 0 to keep images as they are",
        )
    with opened(path) as found:
        members = list(found)
        known = _format_of(members[:LOOKED_AT])
        if known is None:
            raise _unknown(members, shown)
        return known.read(members, shown, resize)


def _unknown(members: Sequence[Member], shown: str) -> DataError:
    """Say that no format fits, and what may have been meant.

    Raises:
        DataError: the first file cannot even be read, which is the better reason.
    """
    for member in members[:1]:
        with unpacked(member) as stream:
            stream.read(1)
    archives = [member.shown for member in members if member.name.endswith(ARCHIVES)]
    if archives:
        return DataError(
            f"{shown} has no images but an archive: {archives[0]}",
            "archives within folders or archives are not opened: give the path of the archive",
        )
    return DataError(
        f"{shown} {'is of no known format of images' if members else 'holds nothing'}",
        "known are folders of images (one for each class), the idx files of MNIST, the binary "
        "version of CIFAR, and .npz with x_train, y_train, x_test and y_test; all also as archives",
    )


def _format_of(members: Sequence[Member]) -> Format | None:
    return next((one for one in FORMATS if one.fits(members)), None)
