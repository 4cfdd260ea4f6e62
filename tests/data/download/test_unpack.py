"""Archives are unpacked: good ones, damaged ones, and those that attack."""

import errno
import io
import shutil
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from fullconv.core.errors import FullconvError
from fullconv.data.download.unpack import unpack

FILES = {"set/images/a.jpg": b"image", "set/masks/a.png": b"mask", "code/read.m": b"code"}


def make_tar(path, files=FILES, *more):
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid = len(data), 0o4700, 12345
            archive.addfile(member, io.BytesIO(data))
        for member in more:
            archive.addfile(member)
    return path


def make_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("set")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("make", "name"),
    [(make_tar, "x.tar"), (make_tar, "x.tar.gz"), (make_tar, "x.TGZ"), (make_zip, "x.zip")],
)
def test_only_the_root_is_kept(tmp_path, make, name):
    path = make(tmp_path / name)
    progress = []
    unpack([(path, "")], "set", tmp_path / "mine", lambda *count: progress.append(count))
    assert files_in(tmp_path / "mine") == ["images/a.jpg", "masks/a.png"]
    assert (tmp_path / "mine/images/a.jpg").read_bytes() == b"image"
    assert names_in(tmp_path) == sorted(["mine", name])
    assert (tmp_path / "mine/images/a.jpg").stat().st_mode & 0o7000 == 0  # no set-user-id
    assert len(progress) >= len(FILES)
    assert 0 < progress[-1][0] <= progress[-1][1] == path.stat().st_size


def test_several_files_become_one_folder(tmp_path):
    tar = make_tar(tmp_path / "one.tar", {"kit/VOC/images/a.jpg": b"a"})
    archive = make_zip(tmp_path / "two.zip", {"masks/a.png": b"b"})
    names = tmp_path / "labels.txt"
    names.write_text("1: cat")
    (tmp_path / "unpacking" / "tree").mkdir(parents=True)  # left by a process that was killed
    parts = [(tar, ""), (archive, "kit/VOC"), (names, "kit/VOC")]
    unpack(parts, "kit/VOC", tmp_path / "mine")
    assert files_in(tmp_path / "mine") == ["images/a.jpg", "labels.txt", "masks/a.png"]
    unpack([(archive, "x"), (names, "")], ".", tmp_path / "all")
    assert files_in(tmp_path / "all") == ["labels.txt", "x/masks/a.png"]
    assert names_in(tmp_path) == ["all", "labels.txt", "mine", "one.tar", "two.zip"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE, "zip"])
def test_links_and_devices_are_left_out(tmp_path, kind):
    if isinstance(kind, bytes):
        path = make_tar(tmp_path / "x.tar", FILES, link("set/passwords", "/etc/passwd", kind))
    else:
        path = make_zip(tmp_path / "x.zip")
        member = zipfile.ZipInfo("set/passwords")
        member.external_attr = 0o120777 << 16
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, "/etc/passwd")
    unpack([(path, "")], "set", tmp_path / "mine")
    assert names_in(tmp_path / "mine") == ["images", "masks"]


def test_hard_links_become_copies(tmp_path):
    source = tmp_path / "source"
    for name in ("images/a.jpg", "images/b.jpg", "more/c.jpg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "images/a.jpg":
            (source / name).write_bytes(b"image")
        else:
            (source / name).hardlink_to(source / "images/a.jpg")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(source, "set")
        assert sum(member.islnk() for member in archive.getmembers()) == 2
    unpack([(tmp_path / "x.tar", "")], "set", tmp_path / "mine")
    assert files_in(tmp_path / "mine") == ["images/a.jpg", "images/b.jpg", "more/c.jpg"]
    for path in (tmp_path / "mine").rglob("*.jpg"):
        assert path.read_bytes() == b"image"
        assert path.stat().st_nlink == 1


def hard_link(target):
    member = link("set/b.jpg", target, tarfile.LNKTYPE)
    return lambda folder: make_tar(folder / "x y.tar", FILES, member)


def damaged(make, name, share):
    def write(folder):
        files = {f"set/{k}": bytes(range(256)) * k for k in range(1, 40)}
        path = make(folder / name, files)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))] if share else b"<html>no archive</html>")
        return path

    return write


def locked(folder):
    """Write a zip file with a password: the flag is set at both places."""
    path = make_zip(folder / "x.zip", {"set/a.jpg": b"image"})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.rfind(mark) + offset] |= 1
    path.write_bytes(data)
    return path


# What is wrong -> makes the archive, fragment of the message, end of the hint.
REFUSED = {
    **{
        f"{name} in {make.__name__}": (
            lambda folder, make=make, name=name: make(
                folder / ("x.tar" if make is make_tar else "x.zip"), {**FILES, name: b"harm"}
            ),
            f"the member {name!r} would be written outside the target folder. Nothing was",
            "   # and get it from elsewhere",
        )
        for make in (make_tar, make_zip)
        for name in ("../out.txt", "set/../../out.txt", "/tmp/out.txt", "C:/out.txt", "..\\out.txt")
    },
    "link to /etc": (hard_link("/etc/passwd"), "'/etc/passwd' would be written", "elsewhere"),
    "link up": (hard_link("set/../../x"), "would be written outside", "elsewhere"),
    "link to nothing": (
        hard_link("set/gone.jpg"),
        "'set/b.jpg' is a link to 'set/gone.jpg', which is not in the archive",
        "   # then download it again",
    ),
    **{
        f"{name} {share}": (damaged(make, name, share), "cannot be unpacked: ", "again")
        for make, name in ((make_tar, "x.tar"), (make_tar, "x.tgz"), (make_zip, "x.zip"))
        for share in (0, 0.5, 0.9)
    },
    "password": (locked, "x.zip cannot be unpacked: File ", "again"),
    "no root": (
        lambda folder: make_tar(folder / "x.tar", {"code/a": b"a", "sets/b": b"b"}),
        "x.tar: expected the folder set inside; found code, sets.",
        "   # then download it again",
    ),
}


@pytest.mark.parametrize(("make", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_bad_archive_is_refused_and_leaves_nothing(tmp_path, make, message, hint):
    path = make(tmp_path)
    with pytest.raises(FullconvError) as caught:
        unpack([(path, "")], "set", tmp_path / "mine")
    assert message in caught.value.message
    assert caught.value.hint.startswith("rm ")
    assert caught.value.hint.endswith(hint)
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_an_interruption_leaves_nothing(tmp_path, end):
    path = make_tar(tmp_path / "x.tar")

    def stop(done, total):
        assert not (tmp_path / "mine").exists()
        assert list(tmp_path.glob("unpacking/tree/set/images/*"))
        raise end

    with pytest.raises(type(end)):
        unpack([(path, "")], "set", tmp_path / "mine", stop)
    assert names_in(tmp_path) == ["x.tar"]


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_a_member_larger_than_the_free_space_is_refused(tmp_path, make, monkeypatch):
    path = make(tmp_path / ("x.tar" if make is make_tar else "x.zip"), {"set/a": bytes(5001)})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    with pytest.raises(OSError, match="set/a needs 5 kB, 5 kB are free") as caught:
        unpack([(path, "")], "set", tmp_path / "mine")
    assert caught.value.errno == errno.ENOSPC
    assert names_in(tmp_path) == [path.name]
