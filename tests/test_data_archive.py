"""Archives are read in place, regular files only; sizes and paths in them are not trusted."""

import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from jointsearch.data import archive as archives
from jointsearch.data.archive import list_archive
from jointsearch.data.files import ZipMember
from jointsearch.data.load import load_splits
from search_spaces.errors import InputError
from tests.folders_bench import classes, gray, settings, write_tar, write_zip


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


BAD_MEMBERS = {
    "up_and_out": (member("../a/x.png"), "points out of the archive"),
    "up_and_out_inside": (member("a/../../x.png"), "points out of the archive"),
    "up_but_inside": (member("a/b/../x.png"), "points out of the archive"),
    "absolute": (member("/etc/x.png"), "points out of the archive"),
    "symbolic_link": (member("a/x.png", tarfile.SYMTYPE, "/etc/passwd"), "is a link to /etc/passwd"),
    "link_inside": (member("a/x.png", tarfile.SYMTYPE, "0.png"), "is a link to 0.png"),
    "hard_link": (member("a/x.png", tarfile.LNKTYPE, "a/0.png"), "is a link to a/0.png"),
    "character_device": (member("a/x.png", tarfile.CHRTYPE), "is a device, a pipe or a sparse file"),
    "block_device": (member("a/x.png", tarfile.BLKTYPE), "is a device, a pipe or a sparse file"),
    "pipe": (member("a/x.png", tarfile.FIFOTYPE), "is a device, a pipe or a sparse file"),
    "twice": (member("a/0.png"), "is in the archive twice"),
    "twice_in_other_words": (member("./a//0.png"), "is in the archive twice"),
}


@pytest.mark.parametrize("name", BAD_MEMBERS)
def test_a_tar_with_such_a_member_is_refused(name: str, tmp_path: Path) -> None:
    info, words = BAD_MEMBERS[name]
    path = write_tar(tmp_path / "set.tar", classes())
    with tarfile.open(path, "a") as archive:
        archive.addfile(info)
    with pytest.raises(InputError) as caught:
        load_splits(settings(path), 0)
    assert str(caught.value).startswith(f"{path}/{info.name} {words}")
    assert str(caught.value).count("; ") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["set.tar"]


def zip_info(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


BAD_ZIP_MEMBERS = {
    "up_and_out": (zip_info("../a/x.png"), "points out of the archive"),
    "absolute": (zip_info("/etc/x.png"), "points out of the archive"),
    "link": (zip_info("a/x.png", 0o120777), "is a link"),
    "device": (zip_info("a/x.png", 0o020666), "is a device or a pipe"),
    "pipe": (zip_info("a/x.png", 0o010666), "is a device or a pipe"),
}


@pytest.mark.parametrize("name", BAD_ZIP_MEMBERS)
def test_a_zip_with_such_a_member_is_refused(name: str, tmp_path: Path) -> None:
    info, words = BAD_ZIP_MEMBERS[name]
    path = write_zip(tmp_path / "set.zip", classes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, b"x")
    with pytest.raises(InputError) as caught:
        load_splits(settings(path), 0)
    assert str(caught.value).startswith(f"{path}/{info.filename} {words}")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_zip_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", classes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/0.png", gray(9))
    with pytest.raises(InputError, match=r"a/0\.png is in the archive twice"):
        load_splits(settings(path), 0)


def changed(path: Path, *changes: tuple[int, bytes]) -> Path:
    data = bytearray(path.read_bytes())
    for position, new in changes:
        data[position : position + len(new)] = new
    path.write_bytes(data)
    return path


def test_an_encrypted_or_strangely_packed_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", classes())
    directory = path.read_bytes().index(b"PK\x01\x02")
    with pytest.raises(InputError, match="is encrypted"):
        load_splits(settings(changed(path, (directory + 8, b"\1"))), 0)
    with pytest.raises(InputError, match="is packed in an unusual way"):
        load_splits(settings(changed(path, (directory + 8, b"\0"), (directory + 10, b"\x0c"))), 0)


def test_a_damaged_zip_member_is_an_error_of_that_file(tmp_path: Path) -> None:
    for number, position in enumerate((40, 45)):
        path = write_zip(tmp_path / f"{number}.zip", classes())
        start = path.read_bytes().index(b"a/0.png")
        with pytest.raises(InputError, match=r"a/0\.png is damaged inside its zip archive"):
            load_splits(settings(changed(path, (start + position - 30, b"\xff\xff\xff"))), 0)


def test_a_zip_member_never_unpacks_to_more_than_it_declares(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {**classes(), "a/00.png": bytes(10**6)})
    data = path.read_bytes()
    entry = data.index(b"a/00.png", data.index(b"PK\x01\x02")) - 46
    (found,) = (
        entry for entry in list_archive(changed(path, (entry + 24, b"\x10\0\0\0"))).entries if "00" in entry.name
    )
    assert isinstance(found.read, ZipMember)
    packed = zlib.compress(bytes(10**6), wbits=-zlib.MAX_WBITS)
    assert len(found.read._inflated(packed)) == 17  # one more than the declared 16, so that the wrong size is noticed
    with pytest.raises(InputError, match="is damaged inside its zip archive"):
        found.read()


@pytest.mark.parametrize("share", [10, 50, 90, 99])
@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.zip"])
def test_a_cut_off_archive_is_an_error_and_not_a_smaller_set(name: str, share: int, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "set.zip":
        write_zip(path, classes())
    else:
        write_tar(path, classes(), "w:gz" if name.endswith("gz") else "w")
    data = path.read_bytes()
    # The last 10,240 bytes block of a tar is mostly padding; 99 % of its content is meant here.
    end = data.rindex(b"IEND") + 1024 if name == "set.tar" else len(data)
    path.write_bytes(data[: end * share // 100])
    with pytest.raises(InputError, match=r"cannot be read as an archive .*; make or download the archive again"):
        load_splits(settings(path), 0)


def test_a_damaged_header_in_the_middle_does_not_hide_the_images_behind_it(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", classes())
    header = path.read_bytes().index(b"a/5.png")
    with pytest.raises(InputError, match="it is damaged or cut off at byte"):
        load_splits(settings(changed(path, (header + 150, b"99999999"))), 0)


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.zip", "set.tgz"])
@pytest.mark.parametrize("data", [b"", b"text", bytes(2000)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_archive_is_an_error(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=r"set\.\S+ (cannot be read as an archive|has 0 class folders)"):
        load_splits(settings(tmp_path / name), 0)


@pytest.mark.parametrize("name", ["set.rar", "set.tar.xz", "photo.jpg"])
def test_another_kind_of_file_is_an_error_that_lists_the_kinds(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"is not an archive that can be read; give a \.tar, \.tar\.gz, \.tgz, \.zip"):
        load_splits(settings(tmp_path / name), 0)


def test_a_gzip_bomb_stops_at_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(2**24)))
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 2**23)
    with pytest.raises(InputError, match=r"unpacks to more than 8,388,608 bytes; turn it into a plain \.tar"):
        list_archive(path)


def test_too_many_members_and_too_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "set.tar", classes())
    monkeypatch.setattr(archives, "most_bytes", lambda name: 50)
    texts = [problem.text for problem in list_archive(path).problems]
    assert len(texts) == 20
    assert all("bytes, but an image file may have 50; remove it" in text for text in texts)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 19)
    with pytest.raises(InputError, match="more than 19 members; split it"):
        list_archive(path)


def test_an_archive_from_a_pipe_of_tar_with_folders_and_long_names_is_read(tmp_path: Path) -> None:
    long = "x" * 150
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member("a", tarfile.DIRTYPE))
        for name in ("a/1.png", f"a/{long}é.png", "b/1.png", "b/2.png"):
            info = member(name)
            info.size = len(gray(1))
            archive.addfile(info, io.BytesIO(gray(1)))
    (tmp_path / "set.tar").write_bytes(buffer.getvalue())
    splits = load_splits(settings(tmp_path / "set.tar", test_share=0.5, validation=None), 0)
    assert [len(splits.train), len(splits.test)] == [2, 2]
