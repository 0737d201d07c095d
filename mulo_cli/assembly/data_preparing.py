"""`mulo data prepare`: from archives, tfds' records or a user's files to a prepared set."""

import re
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mulo_cli.datasets import lm1b
from mulo_cli.datasets.catalogue import DATASETS, entry_at
from mulo_cli.datasets.files.reading import read_images
from mulo_cli.datasets.options import NO_OPTIONS, Unit
from mulo_cli.datasets.prepared import data_folder
from mulo_cli.datasets.preparing import (
    ImageBlock,
    ImageStream,
    Origin,
    Progress,
    draft_of,
    stream_of,
    write_images,
    write_text,
)
from mulo_cli.datasets.text import tokenise
from mulo_cli.datasets.text_files import read_text
from mulo_cli.datasets.tfds import (
    BENCHMARKS,
    Benchmark,
    Opened,
    Record,
    archive_names,
    archives_hint,
    open_records,
    opened_archives,
)
from mulo_cli.errors import DataError, UsageError, shortened, shortened_path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Preparation:
    """What a user asked for; None is what he left open.

    Attributes:
        name: of the set.
        source: a file or folder; None: what tfds has prepared, else a download.
        resize: side of images in pixels; 0 leaves them as they are.
        tokens: of text.
        vocabulary: of text.
        unit: of text.
        licence: of a set of the user's own.
        overwrite: whether a former set of that name is replaced.
    """

    name: str
    source: Path | None = None
    resize: int | None = None
    tokens: str | None = None
    vocabulary: int | None = None
    unit: Unit | None = None
    licence: str | None = None
    overwrite: bool = False


def prepare(asked: Preparation) -> Generator[Progress, None, None]:
    """Prepare a data set, telling how far it is; when the iterator has ended, it is in its place.

    Raises:
        UsageError: the name cannot be used, or an option does not fit what is prepared.
        DataError: the source is missing, damaged, or another data set.
        OutputError: it cannot be written.
    """
    if asked.source is not None and not asked.source.exists():
        raise UsageError(
            f"--from {shortened_path(asked.source)} does not exist", "give a file or a folder"
        )
    if asked.name in BENCHMARKS:
        yield from _prepare_benchmark(asked, BENCHMARKS[asked.name])
    else:
        yield from _prepare_files(asked)


def _prepare_benchmark(asked: Preparation, benchmark: Benchmark) -> Iterator[Progress]:
    _refuse_strangers(asked, benchmark)
    origin = Origin(asked.name, benchmark.source, benchmark.licence)
    with (
        draft_of(data_folder() / asked.name, overwrite=asked.overwrite) as draft,
        ExitStack() as on,
    ):
        yield Progress(0, sum(benchmark.sizes.values()), "opening")
        folder = None if asked.source is None else _folder_of(asked.source, benchmark)
        if folder is not None and not _has_archives(folder, benchmark):
            yield from write_images(draft, _official_files(asked, benchmark), origin)
            return
        opened = open_records(benchmark) if folder is None else None
        if opened is None:
            scratch = on.enter_context(tempfile.TemporaryDirectory(dir=draft))
            source = opened_archives(benchmark, folder, Path(scratch))
            opened = on.enter_context(source)
        if benchmark.kind == "images":
            yield from write_images(draft, _stream(opened, benchmark), origin)
        else:
            options = replace(lm1b.OPTIONS, **_said(asked))
            tokens = yield from lm1b.tokenise_sentences(opened, benchmark.sizes, options)
            yield from write_text(draft, tokens, origin)


def _refuse_strangers(asked: Preparation, benchmark: Benchmark) -> None:
    """Refuse what would make another data set of one that has a name in papers.

    A language model's task depends on the vocabulary: it is the papers', or another project's
    SentencePiece model, which the card names.
    """
    strange = ["--resize"] if asked.resize else []
    strange += ["--licence"] if asked.licence else []
    strange += ["--unit"] if asked.unit not in (None, "line") else []
    other = "prepare the files under a name of your own"
    if benchmark.kind == "images":
        strange += [f"--{option}" for option in _said(asked)]
    else:
        other = (
            "give --tokens a SentencePiece model, or unpack the archive and prepare a part of its "
            "files under a name of your own: `mulo data prepare NAME --from FOLDER`"
        )
        strange += [f"--tokens {asked.tokens}"] if asked.tokens in ("chars", "bytes") else []
        strange += ["--vocabulary"] if asked.vocabulary not in (None, benchmark.num_classes) else []
    if strange:
        raise UsageError(
            f"{strange[0]} would make another data set of {asked.name}",
            f"leave it away, or {other}",
        )


def _folder_of(source: Path, benchmark: Benchmark) -> Path:
    """Return where archives are: whoever names one of them means its folder."""
    one_of_them = source.is_file() and source.name in archive_names(benchmark)
    return source.parent if one_of_them else source


def _has_archives(folder: Path, benchmark: Benchmark) -> bool:
    """Whether a folder has all archives of a benchmark.

    Raises:
        DataError: it has some, but not all of them, or none and the set can come in no other form.
    """
    names = archive_names(benchmark)
    missing = [name for name in names if not (folder / name).is_file()]
    readable = benchmark.kind == "images" and len(missing) == len(names)
    if missing and not readable:
        raise DataError(
            f"{shortened_path(folder)} lacks {', '.join(missing)}", archives_hint(benchmark)
        )
    return not missing


def _official_files(asked: Preparation, benchmark: Benchmark) -> ImageStream:
    """Read a benchmark from files in another form than the published archives."""
    assert asked.source is not None  # the caller has seen to it
    try:
        stream = stream_of(read_images(asked.source))
    except DataError as error:
        raise DataError(error.message, archives_hint(benchmark)) from error
    found = (stream.shape, stream.num_classes, dict(stream.sizes))
    wanted = (benchmark.shape, benchmark.num_classes, dict(benchmark.sizes))
    if found != wanted:
        raise DataError(
            f"{shortened_path(asked.source)} is not {asked.name}: shape, classes and sizes are "
            f"{_in_words(*found)} instead of {_in_words(*wanted)}",
            "prepare it under a name of your own",
        )
    return stream


def _in_words(shape: tuple[int, ...], num_classes: int, sizes: dict[str, int]) -> str:
    side = "x".join(map(str, shape))
    return f"{side}, {num_classes}, {sizes['train']} + {sizes['test']}"


def _stream(opened: Opened, benchmark: Benchmark) -> ImageStream:
    """Hand on the records of images as arrays; what is greyscale loses its axis of channels."""

    def arrays(records: list[Record]) -> ImageBlock:
        images = np.stack([record["image"] for record in records])
        labels = np.array([int(np.asarray(record["label"]).item()) for record in records], np.int32)
        return images.reshape(len(records), *benchmark.shape), labels

    return ImageStream(
        shape=benchmark.shape,
        num_classes=benchmark.num_classes,
        classes=opened.classes,
        sizes=benchmark.sizes,
        blocks=lambda split: map(arrays, opened.blocks[split]),
        notes=(opened.note,),
    )


def _prepare_files(asked: Preparation) -> Iterator[Progress]:
    _refuse_name(asked.name)
    if asked.source is None:
        raise UsageError(
            f"{asked.name!r} is none of the published data sets ({', '.join(BENCHMARKS)})",
            "give --from PATH with files of your own",
        )
    kind = entry_at(asked.source).kind
    origin = Origin(asked.name, f"the files of {asked.source.name}", asked.licence or "unknown")
    wrong = [f"--{key}" for key in _said(asked)] if kind == "images" else []
    wrong += ["--resize"] if kind == "text" and asked.resize else []
    if wrong:
        raise UsageError(f"{wrong[0]} does not fit: {asked.source} is {kind}", "leave it away")
    with draft_of(data_folder() / asked.name, overwrite=asked.overwrite) as draft:
        yield Progress(0, 0, f"reading {kind}")
        if kind == "images":
            stored = read_images(asked.source, asked.resize or 0)
            yield from write_images(draft, stream_of(stored), origin)
        else:
            options = replace(NO_OPTIONS, **_said(asked))
            yield from write_text(draft, tokenise(read_text(asked.source), options), origin)


def _said(asked: Preparation) -> dict[str, str | int]:
    """Return the options about tokens that the user has set."""
    options = {"tokens": asked.tokens, "vocabulary": asked.vocabulary, "unit": asked.unit}
    return {key: value for key, value in options.items() if value is not None}


def _refuse_name(name: str) -> None:
    if name in DATASETS:
        raise UsageError(f"{name!r} is always there: it is not prepared", "use it as it is")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{shortened(name)} is no name for a data set",
            "letters, digits, dots, dashes and underscores, a letter or digit first",
        )
