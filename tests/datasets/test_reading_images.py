"""The door to image files: formats are told by content, archives are safe, errors name the file."""

import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

from mulo_cli.datasets.files.archives import opened
from mulo_cli.datasets.files.reading import looks_like_images, read_images
from mulo_cli.datasets.stored import StoredImages
from mulo_cli.datasets.text_files import looks_like_text
from tests.datasets.image_files import (
    cats_and_dogs,
    image_bytes,
    mnist_files,
    pixels,
    refusal,
    write_tree,
    write_zip,
)


def write_tar(path, files: dict[str, bytes], *links: tuple[str, str]):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def assert_sound(stored: StoredImages) -> None:
    """Hold what every reader promises."""
    shapes = set()
    for part in stored.splits.values():
        assert part["inputs"].dtype == np.uint8
        assert part["targets"].dtype == np.int32
        assert len(part["inputs"]) == len(part["targets"]) > 0
        assert part["targets"].min() >= 0
        assert part["targets"].max() < stored.num_classes
        shapes.add(part["inputs"].shape[1:])
    assert set(stored.splits) == {"train", "test"}
    assert len(shapes) == 1
    assert len(stored.classes) in (0, stored.num_classes)


FORMATS = {
    "idx": mnist_files(),
    "folders": cats_and_dogs(20),
    "cifar": {"data_batch_1.bin": b"".join(bytes([i % 5]) * 3_073 for i in range(10))},
}


@pytest.mark.parametrize("files", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("pack", [write_tree, write_zip, write_tar])
def test_every_format_is_told_and_read_in_every_container(tmp_path, files, pack):
    path = tmp_path / "anything"
    pack(path, {f"some/where/{name}": content for name, content in files.items()})
    assert looks_like_images(path)
    assert_sound(read_images(path))
    assert read_images(path, 6).splits["test"]["inputs"].shape[1:3] == (6, 6)


def test_reading_twice_gives_the_same(tmp_path):
    folder = write_tree(tmp_path, cats_and_dogs(30))
    first, second = read_images(folder), read_images(folder)
    for split in ("train", "test"):
        assert first.splits[split]["inputs"].tobytes() == second.splits[split]["inputs"].tobytes()


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"pos/1.txt": b"fine film\n", "neg/1.txt": b"not so\n"},
        {"pos/1.png": b"fine film\n", "neg/1.png": b"not so\n"},
        {"logo.png": image_bytes(pixels(4, 4)), "a/1.txt": b"x", "b/1.txt": b"x"},
        {"only.png": image_bytes(pixels(4, 4))},
    ],
)
def test_what_is_not_images_is_not_taken_for_them(tmp_path, files):
    folder = write_tree(tmp_path / "folder", files)
    folder.mkdir(exist_ok=True)
    assert not looks_like_images(folder)
    assert "'" in refusal(read_images, folder).message


@pytest.mark.parametrize("content", [b"", b"once upon a time\n" * 100, bytes(10_000), b"PK\3\4"])
def test_a_file_of_something_else_is_not_taken_for_images(tmp_path, content):
    path = tmp_path / "story.bin"
    path.write_bytes(content[:3_000])
    assert not looks_like_images(path)
    assert "story.bin" in refusal(read_images, path).message


def test_a_missing_path_is_told(tmp_path):
    assert not looks_like_images(tmp_path / "nothing")
    error = refusal(read_images, tmp_path / "nothing")
    assert error.message.endswith("nothing' cannot be read: No such file or directory")


def test_a_folder_around_an_archive_says_so(tmp_path):
    write_zip(tmp_path / "my.zip", cats_and_dogs(20))
    assert "'my.zip'" in refusal(read_images, tmp_path).message


@pytest.mark.parametrize("side", [-1, 100_000])
def test_an_absurd_side_is_refused(tmp_path, side):
    folder = write_tree(tmp_path, cats_and_dogs(20))
    assert str(side) in refusal(read_images, folder, side).message


@pytest.mark.parametrize("start", ["/", "../../", "./", "C:\\"])
def test_names_that_lead_elsewhere_are_read_and_write_nothing(tmp_path, start):
    files = {f"{start}cat/{i}.png": image_bytes(pixels(4, 4, seed=i)) for i in range(5)}
    files |= {f"{start}dog/{i}.png": image_bytes(pixels(4, 4, seed=i)) for i in range(5)}
    inside = tmp_path / "inside"
    inside.mkdir()
    for path in (write_zip(inside / "evil.zip", files), write_tar(inside / "evil.tar.gz", files)):
        if start != "C:\\" or path.suffix == ".zip":
            assert read_images(path).classes == ("cat", "dog")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.tar.gz", "evil.zip", "inside"]


def test_links_in_a_tar_are_not_followed(tmp_path):
    secret = write_tree(tmp_path, {"secret.png": image_bytes(pixels(9, 9))}) / "secret.png"
    path = write_tar(tmp_path / "my.tar.gz", cats_and_dogs(20), ("cat/link.png", str(secret)))
    stored = read_images(path)
    assert sum(len(part["targets"]) for part in stored.splits.values()) == 20


def test_a_link_in_a_folder_is_followed_but_not_in_circles(tmp_path):
    write_tree(tmp_path / "elsewhere", cats_and_dogs(20))
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("cat", "dog"):
        (folder / name).symlink_to(tmp_path / "elsewhere" / name)
    assert read_images(folder).classes == ("cat", "dog")
    (tmp_path / "elsewhere" / "cat" / "again").symlink_to(folder)
    error = refusal(read_images, folder)
    assert "again" in error.message
    assert "leads back into itself" in error.message


@pytest.mark.parametrize("target", ["nowhere", "link.png"])
def test_a_link_to_nothing_is_named(tmp_path, target):
    folder = write_tree(tmp_path, cats_and_dogs(20))
    (folder / "cat" / "link.png").symlink_to(target)
    assert "link.png" in refusal(read_images, folder).message


def test_a_pipe_is_not_waited_for(tmp_path):
    folder = write_tree(tmp_path, cats_and_dogs(20))
    os.mkfifo(folder / "cat" / "pipe.png")
    assert "pipe.png" in refusal(read_images, folder).message


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    folder = write_tree(tmp_path, cats_and_dogs(20))
    real_open = type(folder).open

    def locked(path, *arguments, **options):
        if path.name == "001.png":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(type(folder), "open", locked)  # root may read everything
    error = refusal(read_images, folder)
    assert error.message == "'cat/001.png' cannot be read: Permission denied"


def test_a_zip_cut_short_or_with_wrong_bytes_is_an_error(tmp_path):
    path = write_zip(tmp_path / "my.zip", cats_and_dogs(20))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "my.zip" in refusal(read_images, path).message
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        info = archive.infolist()[3]
    place = info.header_offset + 30 + len(info.filename) + 5
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    assert info.filename in refusal(read_images, path).message


def test_a_tar_cut_short_is_an_error(tmp_path):
    path = write_tar(tmp_path / "my.tar.gz", cats_and_dogs(20))
    path.write_bytes(path.read_bytes()[:-200])
    assert "my.tar.gz" in refusal(read_images, path).message


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("ahead", [0, 5])
def test_a_header_of_a_tar_that_wants_all_memory_is_refused(tmp_path, form, ahead):
    path = tmp_path / "my.tar.gz"
    with tarfile.open(path, "w:gz", format=form) as archive:
        for number, content in enumerate(cats_and_dogs(ahead).values()):
            info = tarfile.TarInfo(f"cat/{number}.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        archive.addfile(tarfile.TarInfo("dog/" + "x" * 2**21))
    assert "a header of this tar is said to have 2,097," in refusal(read_images, path).message
    assert not looks_like_images(path)
    assert not looks_like_text(path)


def test_a_header_of_a_tar_that_leads_backwards_is_refused(tmp_path):
    path = tmp_path / "my.tar"
    info = tarfile.TarInfo("cat/1.png")
    info.size = -512
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "to have -512 bytes" in refusal(read_images, path).message


def test_a_long_name_in_a_tar_is_read(tmp_path):
    files = {f"{'deep' * 50}/{name}": content for name, content in cats_and_dogs(20).items()}
    assert read_images(write_tar(tmp_path / "my.tar.gz", files)).classes == ("cat", "dog")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_told_by_its_content_however_it_is_packed(tmp_path, mode):
    path = tmp_path / "anything"
    with tarfile.open(path, mode) as archive:
        archive.add(write_tree(tmp_path / "mine", cats_and_dogs(20)), "mine")
    assert read_images(path).classes == ("cat", "dog")


def test_free_memory_is_a_bound_as_well(tmp_path, monkeypatch):
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:       99 kB\nMemAvailable:       1 kB\n")
    monkeypatch.setattr("mulo_cli.datasets.files.memory.MEMINFO", told)
    folder = write_tree(tmp_path / "many", cats_and_dogs(30))
    assert "at most 1,024 are read" in refusal(read_images, folder).hint
    told.unlink()
    assert len(read_images(folder).classes) == 2


def test_a_tar_that_unpacks_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("mulo_cli.datasets.files.archives.TAR_LIMIT", 2**20)
    path = write_tar(tmp_path / "bomb.tar.gz", {"cat/1.png": bytes(2**21)})
    assert "unpack to 2,097,152 bytes" in refusal(read_images, path).message


def test_a_protected_zip_is_an_error(tmp_path):
    path = write_zip(tmp_path / "my.zip", cats_and_dogs(20))
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(magic)
        while at >= 0:
            content[at + place] |= 1  # the bit that says: encrypted
            at = content.find(magic, at + 1)
    path.write_bytes(content)
    assert not looks_like_images(path)
    assert "is encrypted" in refusal(read_images, path).message


def test_a_zip_whose_name_is_not_the_utf8_it_claims_is_an_error(tmp_path):
    path = write_zip(tmp_path / "my.zip", {"é/1.png": b"x", **cats_and_dogs(6)})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    assert "'utf-8' codec" in refusal(read_images, path).message
    assert not looks_like_images(path)
    assert not looks_like_text(path)


def test_a_zip_whose_member_has_another_name_before_its_bytes_is_an_error(tmp_path):
    path = write_zip(tmp_path / "my.zip", {"é/1.png": b"x", **cats_and_dogs(6)})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff", 1))
    assert "é/1.png" in refusal(read_images, path).message


def test_a_zip_with_a_member_without_a_name_is_nothing_worse_than_an_error(tmp_path):
    path = write_zip(tmp_path / "my.zip", {"x": b"y"})
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\3\4", 26), (b"PK\1\2", 28)):
        at = content.find(magic) + place
        content[at : at + 4] = bytes((0, 0, 1, 0))  # no name, and as much of something else
    path.write_bytes(content)
    assert not looks_like_images(path)
    assert not looks_like_text(path)
    refusal(read_images, path)


@pytest.mark.parametrize(
    ("raw", "name"),
    [("Größe".encode(), "Größe"), ("Größe".encode("cp437"), "Größe"), ("鸟".encode(), "鸟")],
)
def test_names_in_other_encodings_become_class_names(tmp_path, raw, name):
    """A zip whose names are not declared to be UTF-8, as Windows and macOS write them."""
    path = write_zip(
        tmp_path / "names.zip",
        {f"{'x' * len(raw)}/{key.split('/')[1]}": c for key, c in cats_and_dogs(9).items()}
        | cats_and_dogs(4),
    )
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw) + b"/", raw + b"/"))
    stored = read_images(path)
    assert name in stored.classes
    stored.classes[-1].encode("utf-8")


def test_names_that_are_no_text_stay_apart_and_can_be_printed(tmp_path):
    image = image_bytes(pixels(4, 4))
    for raw in (b"Gr\xf6", b"Gr\xe4"):
        folder = os.path.join(os.fsencode(tmp_path), raw)
        os.mkdir(folder)
        for name in (b"1.png", b"2.png"):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(image)
    assert sorted(read_images(tmp_path).classes) == ["Grä", "Grö"]


def test_members_are_numbered_in_the_order_in_which_they_lie(tmp_path):
    path = write_zip(tmp_path / "my.zip", dict(reversed(cats_and_dogs(6).items())))
    with opened(path) as members:
        assert [member.name for member in members] == [f"{i:03d}.png" for i in range(5, -1, -1)]
