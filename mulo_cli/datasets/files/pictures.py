"""What an image file is known by, and what it becomes; no imaging library is needed for either."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

MAGICS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
BMP_MAGIC = (b"BM", bytes(4))
WEBP_MAGIC = (b"RIFF", b"WEBP")
MAGIC_SIZE = 12
"""Bytes that tell what an image file is."""


@dataclass(frozen=True)
class Picture:
    """One decoded image.

    Attributes:
        pixels: uint8[r, c] if it is greyscale, else uint8[r, c, 3].
        conversion: what kind of image was read in what other way; None: it was read as it is.
        original: its size before it was resized: (columns, rows).
    """

    pixels: UInt8[np.ndarray, "r c *ch"]
    conversion: tuple[str, str] | None
    original: tuple[int, int]


def is_image(beginning: bytes) -> bool:
    """Tell an image file by its first bytes."""
    riff = beginning.startswith(WEBP_MAGIC[0]) and beginning[8:12] == WEBP_MAGIC[1]
    bmp = beginning.startswith(BMP_MAGIC[0]) and beginning[6:10] == BMP_MAGIC[1]
    return riff or bmp or beginning.startswith(MAGICS)
