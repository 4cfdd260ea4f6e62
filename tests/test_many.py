"""Many pictures: each once, in their order, whatever is wrong with some, wherever it stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import photo, written

from fullconv import many
from fullconv.cli import run
from fullconv.data.masks import read_values
from fullconv.errors import FullconvError
from fullconv.finished import FOLDER, Finished
from fullconv.labels import Labels
from fullconv.many import Picture, _Room, predict_many
from fullconv.outputs import Segmentation
from fullconv.predict import load

LABELS = Labels(("dark", "light"))


class Threshold:
    """Calls a pixel light where its red is: a model of which one knows what it says."""

    windows = False
    seams = ()

    def __init__(self, slow: float = 0.0) -> None:
        self.slow = slow
        self.segmented: list[int] = []  # heights, in the order they came

    def segment(self, picture: np.ndarray, *, inputs: Any = ()) -> Segmentation:
        time.sleep(self.slow)
        self.segmented.append(picture.shape[0])
        if picture.shape[0] == 13:
            raise FullconvError("13 rows bring bad luck.", "cut it")
        head = Segmentation(np.zeros(picture.shape[:2], np.uint8), LABELS, picture)
        ids = (picture[..., 0] > 127).astype(np.uint8)
        return Segmentation(ids, LABELS, picture, heads={"zero": head})


def pictures_in(folder: Path, count: int, bad: tuple[int, ...] = ()) -> list[Picture]:
    """Of heights 20, 21 and so on."""
    made = []
    for number in range(count):
        path = written(folder / f"p{number:03}.png", photo(20 + number, 15, seed=number))
        if number in bad:
            path.write_bytes(path.read_bytes()[:50])
        made.append(Picture(path, Path("deep", path.stem)))
    return made


def go(predictor: Any, pictures: list[Picture], out: Path, job: str = "job", **more: Any) -> Any:
    finished = Finished(out, job, [one.stem for one in pictures])
    return predict_many(predictor, pictures, finished, ["mask", "json"], **more)


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Of every result; another inode is another writing."""
    files = [p for p in out.rglob("*") if p.is_file() and FOLDER not in p.parts]
    return {p.relative_to(out).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if many.PART in path.name or ".part" in path.name]


def test_all_are_labelled_in_order_and_the_bad_ones_cost_nothing(tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path, 30, bad=(0, 7, 8, 29))
    pictures[11] = Picture(tmp_path / "gone.png", Path("gone"))
    predictor, told = Threshold(), []
    done = go(predictor, pictures, tmp_path / "out", progress=lambda *now: told.append(now))
    good = [one for k, one in enumerate(pictures) if k not in (0, 7, 8, 11, 29)]
    assert [result["source"] for result in done.results] == [str(one.path) for one in good]
    assert predictor.segmented == [result["height"] for result in done.results]
    assert [next(name for name in ("000", "007", "008", "gone", "029") if name in one)
            for one in done.failed] == ["000", "007", "008", "gone", "029"]  # fmt: skip
    assert "cannot be read" in done.failed[0]
    assert done.failed[3].endswith("gone.png: there is no such file.")
    assert told == [(k, 30) for k in range(31)]
    for one, result in zip(good, done.results, strict=True):
        stem = tmp_path / "out" / one.stem
        ends = ("_mask.png", ".json", "_zero_mask.png")
        assert result["files"] == [f"{stem}{end}" for end in ends]
        ids = photo(result["height"], 15, seed=int(one.path.stem[1:]))[..., 0] > 127
        assert (read_values(Path(f"{stem}_mask.png")) == ids).all()
        facts = json.loads(Path(f"{stem}.json").read_text())
        assert {**facts, "files": result["files"]} == result
        assert facts["source"] == str(one.path)
    assert leftovers(tmp_path / "out") == []
    assert len(stamps(tmp_path / "out")) == 3 * 25


def test_one_that_the_model_refuses_costs_nothing_either(tmp_path: Path) -> None:
    """Also no room in memory: it could not be read otherwise."""
    pictures = [Picture(written(tmp_path / f"{k}.png", photo(13, 9)), Path(str(k)))
                for k in range(40)]  # fmt: skip
    pictures.append(Picture(written(tmp_path / "good.png", photo(14, 9)), Path("good")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "PIXELS", 200)
        done = go(Threshold(), pictures, tmp_path / "out")
    assert done.failed == ["13 rows bring bad luck."] * 40
    assert [result["height"] for result in done.results] == [14]


def test_what_is_finished_is_kept_and_the_rest_is_done(tmp_path: Path) -> None:
    pictures, out = pictures_in(tmp_path, 12, bad=(3,)), tmp_path / "out"
    first = go(Threshold(), pictures, out)
    before = stamps(out)
    written(pictures[3].path, photo(23, 15, seed=3))  # mended
    written(pictures[4].path, photo(90, 15))  # another one
    (out / "deep" / "p005_zero_mask.png").unlink()
    predictor = Threshold()
    second = go(predictor, pictures, out)
    assert predictor.segmented == [23, 90, 25]
    assert (second.skipped, second.failed) == (9, [])
    assert [result["height"] for result in second.results] == [
        90 if k == 4 else 20 + k for k in range(12)
    ]
    kept = [result for result in first.results if result["height"] not in (24, 25)]
    assert all(result in second.results for result in kept)
    after = stamps(out)
    changed = {
        name.split("_")[0].split(".")[0] for name in after if after[name] != before.get(name)
    }
    assert changed == {"deep/p003", "deep/p004", "deep/p005"}


@pytest.mark.parametrize(("job", "more"), [("other", {}), ("job", {"again": True})])
def test_another_job_or_again_does_all(tmp_path: Path, job: str, more: dict[str, Any]) -> None:
    pictures, out = pictures_in(tmp_path, 3), tmp_path / "out"
    go(Threshold(), pictures, out)
    predictor = Threshold()
    assert go(predictor, pictures, out, job, **more).skipped == 0
    assert len(predictor.segmented) == 3
    assert go(Threshold(), pictures, out, job).skipped == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_pictures_in_memory_never_have_more_pixels_than_there_is_room(sizes: list[int]) -> None:
    """Those larger than all of it are alone."""
    room, lock, inside, most = _Room(40), threading.Lock(), [], []

    def one(turn: int, pixels: int) -> None:
        room.enter(turn, pixels)
        with lock:
            inside.append(pixels)
            most.append(sum(inside) if len(inside) > 1 else 0)
        with lock:
            inside.remove(pixels)
        room.leave(pixels)

    threads = [threading.Thread(target=one, args=each) for each in enumerate(sizes)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == len(sizes)
    assert max(most) <= 40


def test_little_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pixels as there is room for, though many more files would be read."""
    monkeypatch.setattr(many, "PIXELS", 1000)
    read: list[Path] = []
    reading = many.read_picture
    monkeypatch.setattr(many, "read_picture", lambda path: (read.append(path), reading(path))[1])
    ahead = []

    class Watching(Threshold):
        def segment(self, picture: np.ndarray, *, inputs: Any = ()) -> Segmentation:
            time.sleep(0.03)
            ahead.append(len(read) - len(self.segmented))
            return super().segment(picture, inputs=inputs)

    go(Watching(), pictures_in(tmp_path, 12), tmp_path / "out")  # of 300 pixels and more
    assert max(ahead) <= 3


def test_reading_network_and_writing_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one picture is in the network, later ones are read and earlier ones written."""
    now: set[str] = set()
    together: set[frozenset[str]] = set()
    lock = threading.Lock()

    def slow(name: str, what: Callable[..., Any]) -> Callable[..., Any]:
        def longer(*words: Any, **more: Any) -> Any:
            with lock:
                now.add(name)
                together.add(frozenset(now))
            time.sleep(0.02)
            with lock:
                now.discard(name)
            return what(*words, **more)

        return longer

    predictor = Threshold()
    monkeypatch.setattr(many, "read_picture", slow("read", many.read_picture))
    monkeypatch.setattr(many, "save_outputs", slow("write", many.save_outputs))
    monkeypatch.setattr(predictor, "segment", slow("network", predictor.segment))
    go(predictor, pictures_in(tmp_path, 20), tmp_path / "out")
    assert frozenset({"read", "network", "write"}) in together


@pytest.mark.parametrize("where", ["read", "network", "write"])
def test_a_bug_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def broken(*words: Any, **more: Any) -> Any:
        raise ZeroDivisionError

    predictor, out = Threshold(), tmp_path / "out"
    target = {"read": "read_picture", "write": "save_outputs"}.get(where)
    monkeypatch.setattr(*((many, target) if target else (predictor, "segment")), broken)
    with pytest.raises(ZeroDivisionError):
        go(predictor, pictures_in(tmp_path, 20), out)
    assert leftovers(out) == []
    assert threading.active_count() < 3


@pytest.mark.parametrize("what", ["folder", "file"])
def test_where_nothing_can_be_written_it_ends_at_once(tmp_path: Path, what: str) -> None:
    pictures, out = pictures_in(tmp_path, 20), tmp_path / "out"
    if what == "folder":
        (out / "deep" / "p002_mask.png").mkdir(parents=True)  # in a result's place
        where = out / "deep"
    else:
        out.touch()
        where = out / "deep" / "p000"
    predictor = Threshold()
    with pytest.raises(FullconvError) as caught:
        go(predictor, pictures, out)
    assert caught.value.message.startswith(f"the result could not be written to {where}: ")
    assert caught.value.hint.startswith("--out ANOTHER_FOLDER")
    assert len(predictor.segmented) < 20
    assert leftovers(tmp_path) == []


def test_ctrl_c_leaves_whole_files_only(tmp_path: Path) -> None:
    pictures, out = pictures_in(tmp_path, 30), tmp_path / "out"

    class Stopped(Threshold):
        def segment(self, picture: np.ndarray, *, inputs: Any = ()) -> Segmentation:
            if len(self.segmented) == 14:
                raise KeyboardInterrupt
            return super().segment(picture, inputs=inputs)

    with pytest.raises(KeyboardInterrupt):
        go(Stopped(), pictures, out)
    assert leftovers(out) == []
    before = stamps(out)
    assert 3 <= len(before) <= 3 * 14
    assert len(before) % 3 == 0
    predictor = Threshold()
    assert go(predictor, pictures, out).skipped == len(before) / 3
    assert len(predictor.segmented) == 30 - len(before) / 3
    assert before.items() <= stamps(out).items()


# The command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """30 pictures in two folders; two are damaged."""
    for number in range(30):
        folder = "a" if number % 2 else "b"
        written(tmp_path / "photos" / folder / f"{number:02}.png", photo(20, 24, seed=number))
    for damaged in ("a/05.png", "b/06.png"):
        (tmp_path / "photos" / damaged).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return tmp_path / "photos"


ARGV = ("--save", "mask")


def test_many_pictures_get_few_lines_and_json_has_them_all(
    photos: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", str(model_folder), str(photos), "--out", str(tmp_path / "out"), *ARGV]
    assert run(argv) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 22
    assert lines[0].startswith(f"{photos}/a/01.png: ")
    assert lines[20:] == ["... and 8 more", f"28 of 30 pictures -> {tmp_path / 'out'}"]
    assert said.err.startswith("error: 2 of 30 pictures could not be read:\n  picture ")
    assert said.err.count("cannot be read") == 2
    assert run([*argv, "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (len(found["pictures"]), len(found["failed"]), found["skipped"]) == (28, 2, 28)
    assert "process" not in found
    note, _, rest = said.err.partition("\n")
    assert note == ("note: 28 pictures were done before and left as found (--again does all again)")
    assert rest.startswith("error: 2 of 30")
    assert run([*argv, "--precision", "float32"]) == 1
    note = capsys.readouterr().err.partition("\n")[0]
    assert note == (
        "note: 28 pictures have results of another model or other options in "
        f"{tmp_path / 'out'}; made again"
    )
    assert run([*argv, "--precision", "float32", "--again"]) == 1
    assert capsys.readouterr().err.startswith("error: 2 of 30")


def test_very_many_errors_are_counted(
    photos: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("fullconv.predict_command.UNREAD", 1)
    assert run(["predict", str(model_folder), str(photos), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.count("cannot be read") == 1
    assert "\n  and 1 more; --json names them all\n  try: " in said


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of processes, without who shares a job."""
    odd = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")
    kept = {name: value for name, value in os.environ.items() if name not in odd}
    return {**kept, "OMP_NUM_THREADS": "1"}


def test_torchrun_shares_the_pictures(
    photos: Path, model_folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Results land among the pictures while others list them."""
    shutil.copytree(photos, tmp_path / "alone")
    one = load(model_folder, device="cpu")
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fullconv"]
    argv = ["predict", model_folder, photos, "--out", photos, *ARGV, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *words, *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 1
    assert "This is a bug" not in done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sorted(part["process"]["rank"] for part in found) == [0, 1]
    assert [part["process"]["of"] for part in found] == [2, 2]
    assert [len(part["pictures"]) + len(part["failed"]) for part in found] == [15, 15]
    sources = [result["source"] for part in found for result in part["pictures"]]
    assert len(set(sources)) == len(sources) == 28
    assert {Path(s).relative_to(photos) for s in sources} == {
        path.relative_to(tmp_path / "alone")
        for path in (tmp_path / "alone").rglob("*.png")
        if path.name not in ("05.png", "06.png")
    }
    for part in found:
        for result in part["pictures"]:
            (file,) = result["files"]
            assert (read_values(Path(file)) == one(result["source"]).mask).all()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_srun_shares_them_too_and_each_tells_its_own(
    photos: Path,
    model_folder: Path,
    tmp_path: Path,
    rank: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both damaged pictures fall to the same process."""
    monkeypatch.setenv("SLURM_PROCID", rank)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    out = tmp_path / "out"
    code = run(["predict", str(model_folder), str(photos), "--out", str(out), *ARGV])
    said = capsys.readouterr()
    order = sorted(photos.rglob("*.png"))[int(rank) :: 2]
    bad = sum(path.name in ("05.png", "06.png") for path in order)
    assert code == (1 if bad else 0)
    last = said.out.splitlines()[-1]
    assert last == f"process {int(rank) + 1} of 2: {15 - bad} of 15 pictures -> {out}"
    alone = "note: SLURM_NTASKS is 2: this is process 1 of 2 and does its part; start all of them "
    assert said.err.startswith(alone) == (rank == "0")
    assert (out / FOLDER / f"{rank}.jsonl").is_file()


def test_standard_input_is_for_one_process(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["predict", str(model_folder), "-"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: standard input can be read by one process only, and not by each of 2 processes."
    )
    assert said.endswith(" @list.txt\n")


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_anywhere_nothing_is_lost_or_done_twice(
    photos: Path, model_folder: Path, tmp_path: Path, environment: dict[str, str], how: int
) -> None:
    for number in range(300):
        shutil.copy(photos / "a" / "01.png", photos / f"{number:03}.png")
    out = tmp_path / "out"
    words = ["-m", "fullconv", "predict", model_folder, photos, "--out", out, "--save", "mask,json"]
    started = subprocess.Popen(
        [sys.executable, *map(str, words)], stderr=subprocess.PIPE, text=True, env=environment
    )
    while started.poll() is None and len(list(out.glob("*.json"))) < 40:
        time.sleep(0.005)
    started.send_signal(how)
    _, said = started.communicate()
    if how == signal.SIGINT:
        assert (started.returncode, said) == (1, "stopped.\n")
        assert leftovers(out) == []
    before = stamps(out)
    assert 80 <= len(before) < 2 * 328
    for name in before:  # whole
        if name.endswith(".png"):
            assert read_values(out / name).shape == (20, 24)
        else:
            json.loads((out / name).read_text())
    pairs = {name.removesuffix("_mask.png").removesuffix(".json") for name in before}
    complete = {
        name: stamp
        for name, stamp in before.items()
        if {f"{p}_mask.png" for p in pairs if name.startswith(p)} <= set(before)
        and {f"{p}.json" for p in pairs if name.startswith(p)} <= set(before)
    }
    assert len(before) - len(complete) <= 8  # between the moves of one picture's files
    done = run(
        ["predict", str(model_folder), str(photos), "--out", str(out), "--save", "mask,json"]
    )
    assert done == 1  # two are damaged
    after = stamps(out)
    assert len(after) == 2 * 328
    assert complete.items() <= after.items()
    assert leftovers(out) == []
