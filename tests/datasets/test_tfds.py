"""tensorflow-datasets: its builders read archives, its records are read, TensorFlow never is."""

import gzip
import io
import struct
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums, resource

from mulo_cli.datasets.tfds import (
    BENCHMARKS,
    archive_names,
    open_records,
    opened_archives,
    prepared_place,
)
from mulo_cli.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZES = {"train": 20, "test": 10}
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (30, 32, 32, 3), np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 10


@pytest.fixture(autouse=True)
def no_records(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    yield
    assert "tensorflow" not in sys.modules


def fashion_archives(folder, monkeypatch):
    from tensorflow_datasets.image_classification import mnist

    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", SIZES["train"])
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", SIZES["test"])
    pixels = IMAGES[:, :28, :28, 0]
    for name, rows in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        header = struct.pack(">4i", 2051, len(pixels[rows]), 28, 28)
        images = gzip.compress(header + pixels[rows].tobytes())
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(images)
        labels = struct.pack(">2i", 2049, len(LABELS[rows])) + LABELS[rows].tobytes()
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return pixels[..., None]


def cifar_archives(folder, monkeypatch):
    del monkeypatch
    planes = IMAGES.transpose(0, 3, 1, 2).reshape(30, -1)
    records = np.concatenate([LABELS[:, None], planes], axis=1)
    files = {f"data_batch_{i + 1}.bin": records[4 * i : 4 * i + 4].tobytes() for i in range(5)}
    files |= {
        "test_batch.bin": records[20:].tobytes(),
        "batches.meta.txt": "\n".join(f"class {i}" for i in range(10)).encode() + b"\n\n",
    }
    _tar(folder / "cifar-10-binary.tar.gz", files, "cifar-10-batches-bin")
    return IMAGES


def imagenet_archives(folder, monkeypatch):
    del monkeypatch
    planes = IMAGES.transpose(0, 3, 1, 2).reshape(30, -1)
    for name, rows in (("train", slice(0, 20)), ("val", slice(20, 30))):
        content = io.BytesIO()
        np.savez(content, data=planes[rows], labels=LABELS[rows].astype(np.int64) + 1)
        with zipfile.ZipFile(folder / f"Imagenet32_{name}_npz.zip", "w") as archive:
            archive.writestr(f"Imagenet32_{name}.npz", content.getvalue())
    return IMAGES


def lm1b_archives(folder, monkeypatch):
    del monkeypatch
    training = "training-monolingual.tokenized.shuffled/news.en-0000{}-of-00100"
    heldout = "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050"
    files = {training.format(i): b"The cat sat .\nSo \xc3\xa9 .\n" * 5 for i in (1, 2)}
    files |= {heldout: b"It is held out .\n" * 10}
    top = "1-billion-word-language-modeling-benchmark-r13output"
    _tar(folder / f"{top}.tar.gz", files, top)


def _tar(path, files, top):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


MAKE = {
    "fashion_mnist": fashion_archives,
    "cifar10": cifar_archives,
    "imagenet32": imagenet_archives,
    "lm1b": lm1b_archives,
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a function: name -> (benchmark, folder of small archives, what is in them)."""

    def make(name):
        folder = tmp_path / "archives"
        folder.mkdir()
        content = MAKE[name](folder, monkeypatch)
        publish(name, folder, monkeypatch)
        return replace(BENCHMARKS[name], sizes=SIZES), folder, content

    return make


def publish(name, folder, monkeypatch):
    """Let tfds take these archives for the published ones."""
    builder = tfds.builder_cls(BENCHMARKS[name].builder.partition("/")[0])
    known = builder.url_infos
    infos = {
        url: checksums.compute_url_info(folder / info.filename)
        for url, info in known.items()
        if (folder / info.filename).exists()
    }
    monkeypatch.setattr(builder, "url_infos", known | infos)


def read(benchmark, folder, scratch):
    scratch.mkdir()
    with opened_archives(benchmark, folder, scratch) as opened:
        records = {
            split: [record for block in blocks for record in block]
            for split, blocks in opened.blocks.items()
        }
    return opened, records


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "imagenet32"])
def test_the_builders_of_tfds_read_published_archives_without_tensorflow(place, tmp_path, name):
    benchmark, folder, images = place(name)
    assert all((folder / archive).exists() for archive in archive_names(benchmark))
    opened, records = read(benchmark, folder, tmp_path / "scratch")
    assert {split: len(of) for split, of in records.items()} == SIZES
    together = [*records["train"], *records["test"]]
    np.testing.assert_array_equal(np.stack([record["image"] for record in together]), images)
    assert [int(np.asarray(r["label"]).item()) for r in together] == list(LABELS)
    names = {"fashion_mnist": "T-shirt/top", "cifar10": "class 0", "imagenet32": "n02119789"}
    assert not opened.classes or opened.classes[0] == names[name]
    assert "checksums" in opened.note


def test_the_builder_of_lm1b_reads_its_sentences(place, tmp_path):
    benchmark, folder, _ = place("lm1b")
    _, records = read(benchmark, folder, tmp_path / "scratch")
    texts = {split: [record["text"] for record in of] for split, of in records.items()}
    assert texts == {"train": ["The cat sat .", "So é ."] * 10, "test": ["It is held out ."] * 10}


def test_tensorflow_is_as_absent_afterwards_as_before(place, tmp_path):
    from tensorflow_datasets.core.download import extractor

    before = extractor.tf
    read(*place("cifar10")[:2], tmp_path / "scratch")
    assert extractor.tf is before


@pytest.mark.parametrize("name", ["fashion_mnist", "imagenet32"])
def test_archives_that_are_not_the_published_ones_are_refused_by_name(place, tmp_path, name):
    benchmark, folder, _ = place(name)
    archive = sorted(folder.iterdir())[0]
    content = bytearray(archive.read_bytes())
    content[-9] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(benchmark, folder, tmp_path / "scratch")
    assert "wrong checksum" in caught.value.message
    assert archive.name in caught.value.message
    assert f"mulo data prepare {name} --from" in caught.value.hint or name in caught.value.hint


def test_a_broken_archive_with_the_right_checksum_is_one_clear_error(place, tmp_path, monkeypatch):
    benchmark, folder, _ = place("imagenet32")
    archive = folder / "Imagenet32_train_npz.zip"
    archive.write_bytes(archive.read_bytes()[:200])
    publish("imagenet32", folder, monkeypatch)
    with pytest.raises(DataError, match="cannot read imagenet_resized/32x32: BadZipFile"):
        read(benchmark, folder, tmp_path / "scratch")


@pytest.fixture
def offline(monkeypatch):
    """Let no host be found."""

    def no_network(*arguments):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    monkeypatch.setattr("urllib.request.getproxies", dict)


def keep(name, folder, root):
    """Put archives where tfds keeps what it has downloaded; return their places."""
    builder = tfds.builder(BENCHMARKS[name].builder, data_dir=root)
    manager = tfds.download.DownloadManager(
        download_dir=Path(builder.data_dir_root) / "downloads",
        url_infos=builder.url_infos,
        dataset_name=builder.name,
    )
    kept = []
    for url, info in builder.url_infos.items():
        if (folder / info.filename).exists():
            path = Path(manager._get_dl_path(resource.Resource(url=url), info.checksum))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((folder / info.filename).read_bytes())
            resource.write_info_file(
                url=url, path=path, dataset_name=builder.name, original_fname=info.filename,
                url_info=info,
            )  # fmt: skip
            kept.append(path)
    return kept


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "imagenet32"])
def test_archives_that_tfds_has_kept_are_read_without_any_network(place, tmp_path, name):
    benchmark, folder, images = place(name)
    kept = keep(name, folder, tmp_path / "tfds")
    assert len(kept) == len(archive_names(benchmark))
    _, records = read(benchmark, None, tmp_path / "scratch")
    np.testing.assert_array_equal(
        np.stack([record["image"] for of in records.values() for record in of]), images
    )
    kept[-1].unlink()
    with pytest.raises(DataError, match="nor all archives among its downloads") as caught:
        read(benchmark, None, tmp_path / "again")
    assert f"mulo data prepare {name} --from FOLDER" in caught.value.hint


@pytest.mark.usefixtures("offline")
def test_what_cannot_be_downloaded_is_told_at_once_with_what_to_do(tmp_path):
    for name, benchmark in BENCHMARKS.items():
        with pytest.raises(DataError) as caught, opened_archives(benchmark, None, tmp_path):
            pass
        assert str(prepared_place(benchmark)) in caught.value.message
        assert ("login" if name.startswith("imagenet") else "reached") in caught.value.message
        assert f"mulo data prepare {name} --from FOLDER" in caught.value.hint
        for archive in archive_names(benchmark):
            assert archive in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_nothing_prepared_is_no_error(tmp_path):
    assert open_records(BENCHMARKS["cifar10"]) is None
    assert str(prepared_place(BENCHMARKS["cifar10"])).startswith(str(tmp_path / "tfds"))


def write_records(benchmark, images, root):
    """Write records as tfds does where it has TensorFlow."""
    from array_record.python import array_record_module

    builder = tfds.builder(benchmark.builder, file_format="array_record", data_dir=root)
    folder = Path(builder.data_dir)
    folder.mkdir(parents=True)
    features = builder.info.features
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    splits = []
    for name, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=builder.name, split=name, filetype_suffix="array_record"
        )
        path = template.sharded_filepath(shard_index=0, num_shards=1)
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for image, label in zip(images[rows], LABELS[rows], strict=True):
            content = io.BytesIO()
            Image.fromarray(image[..., 0]).save(content, "png")
            example = {"image": content.getvalue(), "label": int(label)}
            writer.write(serializer.serialize_example(example))
        writer.close()
        size = len(images[rows])
        splits.append(
            tfds.core.SplitInfo(
                name=name, shard_lengths=[size], num_bytes=1, filename_template=template
            )
        )
    builder.info.set_splits(tfds.core.splits.SplitDict(splits))
    builder.info.write_to_directory(folder)


def test_what_tfds_has_prepared_is_read(tmp_path):
    benchmark, images = BENCHMARKS["fashion_mnist"], IMAGES[:, :28, :28, :1]
    folder = Path(prepared_place(benchmark))
    write_records(benchmark, images, tmp_path / "tfds")
    assert (folder / "dataset_info.json").exists()
    opened = open_records(benchmark)
    assert opened is not None
    assert opened.classes[:2] == ("T-shirt/top", "Trouser")
    together = [r for split in ("train", "test") for block in opened.blocks[split] for r in block]
    np.testing.assert_array_equal(np.stack([record["image"] for record in together]), images)
    assert [record["label"] for record in together] == list(LABELS)
    shard = next(folder.glob("*train.array_record*"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot read fashion_mnist"):
        list(open_records(benchmark).blocks["train"])


@pytest.mark.skipif(
    not (SHARED / "fashion_mnist").exists(), reason="needs ../shared/data, no part of this"
)
def test_the_real_archives_of_fashion_mnist_are_read(tmp_path):
    benchmark = BENCHMARKS["fashion_mnist"]
    _, records = read(benchmark, SHARED / "fashion_mnist", tmp_path / "scratch")
    assert {split: len(of) for split, of in records.items()} == benchmark.sizes
    images = np.stack([record["image"] for record in records["train"]])
    assert images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert images.std() / 255 == pytest.approx(0.3530, abs=5e-5)
