"""Everything that needs Pillow: png, jpeg, gif, bmp and webp to pixels, and pixels to one size.

The only file that imports it; functions import this one when the first image comes.
"""

import io
from contextlib import nullcontext

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mulo_cli.datasets.files.pictures import MAGIC_SIZE, Picture, is_image
from mulo_cli.datasets.files.room import Room
from mulo_cli.errors import DataError, shortened

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
PIXELS_LIMIT = 2**26
"""Pixels of one image; 67 million are more than a camera's, fewer than Pillow warns of."""

SMALL = 2**20
"""Pixels of an image that is decoded though it is not of the size that all have to have."""

DRAFT_GAP = 2
"""A jpeg may be decoded at 1/2, 1/4 or 1/8 of its size, while it stays so many times as large as
what it is resized to: much faster, and hardly seen."""

PLAIN_BYTES = 12
"""Of each pixel while an image is decoded, as measured, and rounded up."""

RICH_BYTES = 24
"""The same of what is transparent, and of webp, whose decoder keeps two frames."""

BACKGROUND = (255, 255, 255, 255)
"""Transparent images are laid on white."""


def decode(
    content: bytes,
    shown: str,
    resize: int = 0,
    expected: tuple[int, int] | None = None,
    room: Room | None = None,
) -> Picture:
    """Decode one image; of several frames the first. An orientation in EXIF is not applied.

    Args:
        content: the file.
        shown: its name, for errors.
        resize: side in pixels that rows and columns are both brought to; 0 keeps them.
        expected: columns and rows that it is to have; of another one that is large nothing but
            the size is read, and its pixels are blank.
        room: memory shared with other threads; an image is decoded when there is enough for it.

    Raises:
        DataError: it is no image, damaged, or absurdly large.
    """
    if not is_image(content[:MAGIC_SIZE]):
        raise DataError(
            f"{shown} is no image: it begins with {shortened(content[:MAGIC_SIZE])}",
            "folders of classes hold png, jpeg, gif, bmp or webp files and nothing else",
        )
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            size = image.size
            if size[0] * size[1] > PIXELS_LIMIT:
                raise Image.DecompressionBombError(f"{size[0]}x{size[1]} pixels are too many")
            if expected not in (None, size) and size[0] * size[1] > SMALL:
                return Picture(np.broadcast_to(np.uint8(0), size[::-1]), None, size)
            if resize:
                image.draft(None, (DRAFT_GAP * resize, DRAFT_GAP * resize))
            with room.taken(_bytes_of(image, size)) if room else nullcontext():
                plain, conversion = _plain(image)
                if resize and plain.size != (resize, resize):
                    plain = plain.resize((resize, resize), resampling(plain.size, resize))
                return Picture(np.asarray(plain), conversion, size)
    except Exception as fault:  # decoders of foreign bytes raise whatever they stumble over
        raise DataError(
            f"{shown} cannot be decoded: {shortened(str(fault))}",
            "the image is cut short or damaged: replace it or take it out",
        ) from fault


def resize_all(
    images: UInt8[np.ndarray, "n r c *ch"], side: int
) -> UInt8[np.ndarray, "n side side *ch"]:
    """Bring images of one size to a square of `side` pixels."""
    filter_ = resampling((images.shape[2], images.shape[1]), side)
    result = np.empty((len(images), side, side, *images.shape[3:]), np.uint8)
    # channel by channel, because Pillow knows no image of two channels, nor an array of one
    planes = images.reshape(*images.shape[:3], -1)
    placed = result.reshape(len(images), side, side, -1)
    for row, image in enumerate(planes):
        for channel in range(planes.shape[-1]):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
            placed[row, ..., channel] = np.asarray(plane.resize((side, side), filter_))
    return result


def resampling(size: tuple[int, int], side: int) -> Image.Resampling:
    """Choose how images are resized: shrunk as means over boxes, enlarged by lines between pixels.

    P. Chrabaszcz, I. Loshchilov and F. Hutter, *A downsampled variant of ImageNet as an alternative
    to the CIFAR datasets* (2017), shrink the whole image in this way and cut nothing off.
    """
    shrinks = min(size) >= side
    return Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR


def _bytes_of(image: Image.Image, size: tuple[int, int]) -> int:
    """Return how much memory an image takes while it is decoded, by its header.

    Args:
        image: not decoded yet; may be drafted.
        size: of the file's image. A progressive jpeg is kept whole, whatever becomes of it.
    """
    columns, rows = size if "progressive" in image.info else image.size
    rich = image.format == "WEBP" or image.has_transparency_data
    return columns * rows * (RICH_BYTES if rich else PLAIN_BYTES)


def _plain(image: Image.Image) -> tuple[Image.Image, tuple[str, str] | None]:
    """Return a greyscale or an RGB image, and what kind was read in what other way."""
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        image.load()
        return image, None
    if image.mode == "1":
        return image.convert("L"), ("black-and-white image", "read as greyscale")
    if image.mode.startswith("I"):
        high = np.asarray(image) >> 8  # of 16 bits or, signed, of 32; in place, for large ones
        plain = Image.fromarray(np.clip(high, 0, 255, out=high).astype(np.uint8))
        return plain, ("greyscale image of 16 bits", "read with 8 bits")
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        laid = Image.alpha_composite(Image.new("RGBA", whole.size, BACKGROUND), whole)
        mode = "L" if image.mode in ("L", "LA", "La") else "RGB"
        return laid.convert(mode), ("transparent image", "laid on white")
    return image.convert("RGB"), (f"image of kind {image.mode}", "read as RGB")
