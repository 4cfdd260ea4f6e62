"""Archives made on the spot, good ones and those that mean harm."""

from __future__ import annotations

import errno
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.download.fetch import unpack

FILES = {"set/images/a.jpg": b"image", "set/masks/a.png": b"mask", "code/read.m": b"code"}
Make = Callable[..., Path]


def tar(path: Path, files: dict[str, bytes] = FILES, *more: tarfile.TarInfo) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid = len(data), 0o4700, 12345
            archive.addfile(member, io.BytesIO(data))
        for member in more:
            archive.addfile(member)
    return path


def zipped(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("set")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def there(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("make", "name"), [(tar, "x.tar"), (tar, "x.tar.gz"), (tar, "x.TGZ"), (zipped, "x.zip")]
)
def test_the_wanted_folder_is_what_stays(tmp_path: Path, make: Make, name: str) -> None:
    path = make(tmp_path / name)
    seen: list[tuple[int, int]] = []
    unpack([(path, "")], "set", tmp_path / "mine", lambda *count: seen.append(count))
    assert there(tmp_path / "mine") == ["images/a.jpg", "masks/a.png"]
    assert (tmp_path / "mine/images/a.jpg").read_bytes() == b"image"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["mine", name])
    assert (tmp_path / "mine/images/a.jpg").stat().st_mode & 0o7000 == 0  # no set-user-id
    assert len(seen) >= len(FILES)
    assert 0 < seen[-1][0] <= seen[-1][1] == path.stat().st_size


def test_several_become_one(tmp_path: Path) -> None:
    one = tar(tmp_path / "one.tar", {"kit/VOC/images/a.jpg": b"a"})
    two = zipped(tmp_path / "two.zip", {"masks/a.png": b"b"})
    names = tmp_path / "labels.txt"
    names.write_text("1: cat")
    unpack([(one, ""), (two, "kit/VOC"), (names, "kit/VOC")], "kit/VOC", tmp_path / "mine")
    assert there(tmp_path / "mine") == ["labels.txt", "masks/a.png", "images/a.jpg"]
    unpack([(two, "x"), (names, "")], ".", tmp_path / "all")
    assert there(tmp_path / "all") == ["labels.txt", "x/masks/a.png"]


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize(
    "name", ["../out.txt", "set/../../out.txt", "/tmp/out.txt", "C:/out.txt", "..\\out.txt"]
)
def test_a_member_that_climbs_out_is_refused(tmp_path: Path, make: Make, name: str) -> None:
    path = make(tmp_path / ("x.tar" if make is tar else "x.zip"), {**FILES, name: b"harm"})
    with pytest.raises(FullconvError) as caught:
        unpack([(path, "")], "set", tmp_path / "mine")
    assert f"{path} holds the member '{name}'".replace("\\", "\\\\") in caught.value.message
    assert "outside the folder that it is unpacked into; nothing was unpacked" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_left_out(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("set/passwords")
    link.type, link.linkname = kind, "/etc/passwd"
    unpack([(tar(tmp_path / "x.tar", FILES, link), "")], "set", tmp_path / "mine")
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["images", "masks"]


def linked(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.LNKTYPE, to
    return member


def test_a_file_that_tar_holds_twice_is_there_twice(tmp_path: Path) -> None:
    """As `tar` writes two names of one file: the second as a hard link."""
    source = tmp_path / "made" / "set" / "images"
    source.mkdir(parents=True)
    (source / "a.jpg").write_bytes(b"image")
    (source / "b.jpg").hardlink_to(source / "a.jpg")
    (source.parent / "more").mkdir()
    (source.parent / "more" / "c.jpg").hardlink_to(source / "a.jpg")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "made" / "set", "set")
        assert sum(member.islnk() for member in archive.getmembers()) == 2
    unpack([(tmp_path / "x.tar", "")], "set", tmp_path / "mine")
    assert there(tmp_path / "mine") == ["images/a.jpg", "images/b.jpg", "more/c.jpg"]
    for path in (tmp_path / "mine").rglob("*.jpg"):
        assert path.read_bytes() == b"image"
        assert path.stat().st_nlink == 1


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("/etc/passwd", "holds the member '/etc/passwd', which would be written outside"),
        ("set/../../x", "which would be written outside the folder"),
        ("set/gone.jpg", "'set/b.jpg' as a link to 'set/gone.jpg', which is not in it"),
    ],
)
def test_a_hard_link_to_what_is_not_there_is_refused(tmp_path: Path, to: str, said: str) -> None:
    path = tar(tmp_path / "x y.tar", FILES, linked("set/b.jpg", to))
    with pytest.raises(FullconvError) as caught:
        unpack([(path, "")], "set", tmp_path / "mine")
    assert said in caught.value.message
    assert caught.value.hint.startswith(f"rm '{path}'   # ")
    assert [p.name for p in tmp_path.iterdir()] == ["x y.tar"]


def test_links_in_a_zip_are_left_out(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("set/passwords")
    link.external_attr = 0o120777 << 16
    path = zipped(tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    unpack([(path, "")], "set", tmp_path / "mine")
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["images", "masks"]


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.zip"])
@pytest.mark.parametrize("part", [0, 0.5, 0.9])
def test_a_broken_archive_leaves_nothing(tmp_path: Path, name: str, part: float) -> None:
    files = {f"set/{k}": bytes(range(256)) * k for k in range(1, 40)}
    whole = (zipped if name.endswith("zip") else tar)(tmp_path / name, files)
    data = whole.read_bytes()
    whole.write_bytes(data[: int(part * len(data))] if part else b"<html>no archive</html>")
    with pytest.raises(FullconvError, match=f"{name} cannot be unpacked: ") as caught:
        unpack([(whole, "")], "set", tmp_path / "mine")
    assert caught.value.hint == f"rm {whole}   # to start anew"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_what_ends_half_way_leaves_nothing(tmp_path: Path, end: BaseException) -> None:
    path = tar(tmp_path / "x.tar")

    def stop(done: int, total: int) -> None:
        if (tmp_path / "mine").exists() or not list(tmp_path.glob("unpacking/tree/set/images/*")):
            pytest.fail("not half way")
        raise end

    with pytest.raises(type(end)):
        unpack([(path, "")], "set", tmp_path / "mine", stop)
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "unpacking" / "tree").mkdir(parents=True)
    (tmp_path / ".mine-abc").mkdir()  # somebody's own
    unpack([(tar(tmp_path / "x.tar"), "")], "set", tmp_path / "mine")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine-abc", "mine", "x.tar"]


def test_an_archive_without_the_folder(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar")
    with pytest.raises(FullconvError) as caught:
        unpack([(path, "")], "VOC2012", tmp_path / "mine")
    assert caught.value.message == (
        "x.tar should hold the folder VOC2012, but what came out is code, set."
    )
    assert caught.value.hint == f"rm -r {tmp_path}   # to download anew"
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


def test_a_zip_file_with_a_password_is_refused_in_words(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"set/a.jpg": b"image"})
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flag that says so, at both places
        start = data.rfind(mark)
        data[start + at] |= 1
    path.write_bytes(data)
    with pytest.raises(FullconvError, match=r"x\.zip cannot be unpacked: .*password"):
        unpack([(path, "")], "set", tmp_path / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]
