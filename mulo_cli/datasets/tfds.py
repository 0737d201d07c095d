"""Data sets from tensorflow-datasets; the only file that imports it, when one is asked for.

TensorFlow is never imported. What tfds has prepared in the array_record format is read
through `tfds.data_source`. Where nothing is prepared, tfds' own builder reads the publisher's
archives - downloaded by tfds or placed by hand, compared with the checksums that tfds knows - and
its examples are taken as they come, without the records that only TensorFlow could write.
"""

import contextlib
import glob
import itertools
import os
import socket
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

from mulo_cli.datasets.base import Kind
from mulo_cli.errors import DataError

BLOCK = 4_096
"""Records decoded at a time."""

FOLDER_VARIABLE = "TFDS_DATA_DIR"
"""Names tfds' folder; without it, it is what tfds takes: `~/tensorflow_datasets`."""

Record: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """A published data set that tfds knows.

    Attributes:
        builder: what tfds calls it.
        kind: images, or text.
        shape: of one image as we store it: greyscale images have no axis of channels.
        num_classes: number of classes; of text the vocabulary's usual size.
        sizes: split -> number of examples.
        source: in words.
        licence: its terms.
        advice: how its archives are come by.
        test: what tfds calls the test split.
        host: where tfds downloads it from; None: it cannot, there is a login before it.
    """

    builder: str
    kind: Kind
    shape: tuple[int, ...]
    num_classes: int
    sizes: Mapping[str, int] = field(repr=False)
    source: str
    licence: str
    advice: str
    test: str = "test"
    host: str | None = None


IMAGENET_LICENCE = "ImageNet's terms: non-commercial research only"
IMAGENET_ADVICE = "image-net.org gives them out after a login (download, downsampled image data)"
IMAGENET_SIZES = {"train": 1_281_167, "test": 50_000}

BENCHMARKS: Mapping[str, Benchmark] = {
    "imagenet32": Benchmark(
        "imagenet_resized/32x32",
        "images",
        (32, 32, 3),
        1_000,
        IMAGENET_SIZES,
        "P. Chrabaszcz et al., A downsampled variant of ImageNet (2017)",
        IMAGENET_LICENCE,
        IMAGENET_ADVICE,
        "validation",
    ),
    "imagenet64": Benchmark(
        "imagenet_resized/64x64",
        "images",
        (64, 64, 3),
        1_000,
        IMAGENET_SIZES,
        "P. Chrabaszcz et al., A downsampled variant of ImageNet (2017)",
        IMAGENET_LICENCE,
        IMAGENET_ADVICE,
        "validation",
    ),
    "cifar10": Benchmark(
        "cifar10",
        "images",
        (32, 32, 3),
        10,
        {"train": 50_000, "test": 10_000},
        "A. Krizhevsky, Learning multiple layers of features from tiny images (2009)",
        "none stated by its authors",
        "it is the binary version at cs.toronto.edu/~kriz/cifar.html",
        host="www.cs.toronto.edu",
    ),
    "fashion_mnist": Benchmark(
        "fashion_mnist",
        "images",
        (28, 28),
        10,
        {"train": 60_000, "test": 10_000},
        "H. Xiao et al., Fashion-MNIST (2017)",
        "MIT",
        "they are in data/fashion of github.com/zalandoresearch/fashion-mnist",
        host="fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    "lm1b": Benchmark(
        "lm1b",
        "text",
        (),
        32_000,
        {"train": 30_301_028, "test": 306_688},
        "C. Chelba et al., One billion word benchmark (2013)",
        "none stated by its authors; news texts of WMT 2011",
        "it is at statmt.org/lm-benchmark",
        host="www.statmt.org",
    ),
}


@dataclass(frozen=True)
class Opened:
    """A benchmark that can be read, once.

    Attributes:
        classes: what classes are called; () where tfds knows numbers only.
        blocks: split of ours -> its records, some at a time.
        note: what is read, in a sentence.
    """

    classes: tuple[str, ...]
    blocks: Mapping[str, Iterator[list[Record]]]
    note: str


def open_records(benchmark: Benchmark) -> Opened | None:
    """Open what tfds has prepared; None where there is nothing.

    Raises:
        DataError: it is damaged, or in a format that cannot be read without TensorFlow.
    """
    with _explained(benchmark, RECORDS_HINT):
        builder = _builder(benchmark, file_format=READABLE)
        if not builder.info.splits:
            return None
        train = builder.as_data_source(split="train")
        test = builder.as_data_source(split=benchmark.test)
    blocks = {
        split: _blocks(_read_in_blocks(source), benchmark, RECORDS_HINT)
        for split, source in (("train", train), ("test", test))
    }
    note = f"Read from what tensorflow-datasets had prepared, {benchmark.builder}."
    return Opened(_classes(builder), blocks, note)


def prepared_place(benchmark: Benchmark) -> Path:
    """Return where tfds would have its records."""
    return Path(_builder(benchmark).data_dir)


def _read_in_blocks(source: Any) -> Iterator[Record]:
    for start in range(0, len(source), BLOCK):
        yield from source.__getitems__(list(range(start, min(start + BLOCK, len(source)))))


@contextlib.contextmanager
def opened_archives(benchmark: Benchmark, folder: Path | None, scratch: Path) -> Iterator[Opened]:
    """Let tfds' builder read archives, for as long as the context lasts.

    Args:
        benchmark: which set.
        folder: where all its archives are, under their publishers' names; None: tfds downloads
            them, into the folder of its own where it keeps downloads.
        scratch: a directory for what has to be unpacked.

    Raises:
        DataError: archives cannot be downloaded, or are not the published ones.
    """
    import tensorflow_datasets as tfds

    hint = archives_hint(benchmark)
    builder = _builder(benchmark)
    downloads = scratch if folder else Path(builder.data_dir_root).expanduser() / "downloads"
    if not downloads.is_dir():  # tfds would make it before it finds out
        _refuse_without_host(benchmark, hint)

    class Manager(tfds.download.DownloadManager):
        def _download(self, resource: Any) -> Any:  # of what is neither placed nor kept
            _refuse_without_host(benchmark, hint)
            return super()._download(resource)

    tfds.disable_progress_bar()
    with _without_tensorflow():
        with _explained(benchmark, hint):
            manager = Manager(
                download_dir=downloads,
                extract_dir=scratch,
                manual_dir=folder,
                url_infos=builder.url_infos,
                dataset_name=builder.name,
            )
            of_split = _examples(builder, builder._split_generators(manager))
        blocks = {
            "train": _blocks(of_split["train"], benchmark, hint),
            "test": _blocks(of_split[benchmark.test], benchmark, hint),
        }
        note = (
            "Read from the published archives by tensorflow-datasets' builder of "
            f"{benchmark.builder}, which compared their checksums."
        )
        yield Opened(_classes(builder), blocks, note)


def _refuse_without_host(benchmark: Benchmark, hint: str) -> None:
    """Find out at once what tfds would find out after minutes of trying."""
    place = prepared_place(benchmark)
    absent = f"tensorflow-datasets has neither {place} nor all archives among its downloads"
    if benchmark.host is None:
        raise DataError(
            f"{absent}, and {benchmark.builder} cannot be downloaded without a login", hint
        )
    if urllib.request.getproxies():
        return  # names are looked up elsewhere
    try:
        socket.getaddrinfo(benchmark.host, None)
    except OSError as error:
        raise DataError(
            f"{absent}, and {benchmark.host} cannot be reached: {error.strerror or error}", hint
        ) from error


def archive_names(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the archives that tfds' builder asks for, by their publishers' names."""
    names = sorted(str(one.filename) for one in _builder(benchmark).url_infos.values())
    side = benchmark.builder.partition("/")[2].partition("x")[0]  # one list for all sizes
    return tuple(name for name in names if not side or f"net{side}_" in name)


def archives_hint(benchmark: Benchmark) -> str:
    """Say how archives are placed by hand."""
    name = next(n for n, one in BENCHMARKS.items() if one.builder == benchmark.builder)
    return (
        f"fetch {', '.join(archive_names(benchmark))} yourself - {benchmark.advice} - and run "
        f"`mulo data prepare {name} --from FOLDER`"
    )


RECORDS_HINT = (
    "move it away and prepare it again in the format array_record, or give --from with a folder "
    "of the published archives"
)

READABLE = "array_record"
"""The format of records that tfds reads without TensorFlow."""


def _builder(benchmark: Benchmark, file_format: str | None = None) -> Any:
    import tensorflow_datasets as tfds

    folder = os.environ.get(FOLDER_VARIABLE)
    return tfds.builder(benchmark.builder, file_format=file_format, data_dir=folder)


def _classes(builder: Any) -> tuple[str, ...]:
    """Return the names of classes, where they are more than numbers."""
    features = builder.info.features
    names = tuple(features["label"].names or ()) if "label" in features else ()
    return () if names == tuple(map(str, range(len(names)))) else names


def _examples(builder: Any, generators: Any) -> Mapping[str, Iterable[tuple[Any, Record]]]:
    """Return split -> (key, example): builders hand them out in one of two forms."""
    if isinstance(generators, Mapping):
        return {str(split): examples for split, examples in generators.items()}
    return {str(one.name): builder._generate_examples(**one.gen_kwargs) for one in generators}


def _blocks(records: Iterable[Any], benchmark: Benchmark, hint: str) -> Iterator[list[Record]]:
    """Yield records some at a time; what goes wrong while reading them is one clear error."""
    left = iter(records)
    while True:
        with _explained(benchmark, hint):
            block = list(itertools.islice(left, BLOCK))
        if not block:
            return
        yield [record[1] if isinstance(record, tuple) else record for record in block]


@contextlib.contextmanager
def _explained(benchmark: Benchmark, hint: str) -> Iterator[None]:
    """Turn whatever a foreign library raises into an error of ours."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # requests, zipfile, tfds and etils have many kinds
        lines = str(error).strip().splitlines() or [""]
        told = " ".join(line.strip() for line in lines[:SHOWN_LINES])
        raise DataError(
            f"tensorflow-datasets cannot read {benchmark.builder}: {type(error).__name__}: "
            f"{told[:SHOWN_CHARACTERS]}",
            hint,
        ) from error


SHOWN_LINES = 3
SHOWN_CHARACTERS = 400
"""Of a foreign error."""


def _sorted_glob(pattern: str | os.PathLike[str]) -> list[str]:
    return sorted(glob.glob(os.fspath(pattern)))


FILES_ONLY = SimpleNamespace(
    compat=SimpleNamespace(as_text=os.fsdecode),
    io=SimpleNamespace(gfile=SimpleNamespace(GFile=open, glob=_sorted_glob)),
    errors=SimpleNamespace(UnimplementedError=NotImplementedError),
)
"""All that tfds' builders and its unpacking need of TensorFlow: opening and finding files."""


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    """Give tfds' modules plain file functions where they would import TensorFlow.

    TensorFlow is large, may be absent, and takes a whole GPU for itself. Anything else that is
    asked of it is an AttributeError, and so a clear one of ours.
    """
    from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow

    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("tensorflow_datasets.") and vars(module).get("tf") is tensorflow
    ]
    for module in modules:
        vars(module)["tf"] = FILES_ONLY
    try:
        yield
    finally:
        for module in modules:
            vars(module)["tf"] = tensorflow
