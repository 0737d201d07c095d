"""What a user may say about a data set: `NAME:key=value,...`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Augment: TypeAlias = Literal["none", "crop-flip"]
Unit: TypeAlias = Literal["stream", "line"]
Feed: TypeAlias = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class DatasetOptions:
    """Everything that can be said about some data set; a set has the options of its kind.

    Attributes:
        augment: of images: `crop-flip` shifts and mirrors them at random; the papers use none.
        resize: of image files: side in pixels they are brought to; 0 leaves them as they are.
        feed: of prepared images: whether a batch's pixels are read from their file while training
            runs; `auto` does so above `mapped.RESIDENT_LIMIT`.
        tokens: of text: `chars`, `bytes`, `sentencepiece` (a model trained on the training text),
            or the path of a SentencePiece model.
        vocabulary: of text: size of a SentencePiece model that is to be trained.
        unit: of text: an example is a window anywhere in the text (`stream`), or a line from its
            beginning, padded (`line`).
    """

    augment: Augment = "none"
    resize: int = 0
    feed: Feed = "auto"
    tokens: str = "chars"
    vocabulary: int = 8_000
    unit: Unit = "stream"


IMAGE_OPTIONS = ("augment",)
IMAGE_FILE_OPTIONS = (*IMAGE_OPTIONS, "resize")
PREPARED_IMAGE_OPTIONS = (*IMAGE_OPTIONS, "feed")
TEXT_OPTIONS = ("tokens", "vocabulary", "unit")

NO_OPTIONS = DatasetOptions()
"""What a data set is when nothing is said about it."""
