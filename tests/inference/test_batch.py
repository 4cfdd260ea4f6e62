"""Many images: each once, in their order, whatever is wrong with some, wherever it stops."""

from __future__ import annotations

import json
import os
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
from photos import photo, written

from fullconv.core import concurrency
from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.data.io.masks import read_values
from fullconv.inference import batch
from fullconv.inference.batch import InputImage, PixelBudget, predict_many
from fullconv.inference.manifest import FOLDER, Manifest
from fullconv.inference.segmentation import Segmentation

LABELS = Labels(("dark", "light"))


class Threshold:
    """Calls a pixel light where its red is: a model of which one knows what it says."""

    inexact_operations = ()
    extra_inputs = ()

    def __init__(self, slow: float = 0.0) -> None:
        self.slow = slow
        self.segmented: list[int] = []  # heights, in the order they came

    def segment(self, image: np.ndarray, *, extra_inputs: Any = ()) -> Segmentation:
        time.sleep(self.slow)
        self.segmented.append(image.shape[0])
        if image.shape[0] == 13:
            raise FullconvError("13 rows bring bad luck.", "cut it")
        head = Segmentation(np.zeros(image.shape[:2], np.uint8), LABELS, image)
        ids = (image[..., 0] > 127).astype(np.uint8)
        return Segmentation(ids, LABELS, image, heads={"zero": head})


def images_in(folder: Path, count: int, bad: tuple[int, ...] = ()) -> list[InputImage]:
    """Of heights 20, 21 and so on."""
    made = []
    for number in range(count):
        path = written(folder / f"p{number:03}.png", photo(20 + number, 15, seed=number))
        if number in bad:
            path.write_bytes(path.read_bytes()[:50])
        made.append(InputImage(path, Path("deep", path.stem)))
    return made


def go(predictor: Any, images: list[InputImage], out: Path, job: str = "job", **more: Any) -> Any:
    finished = Manifest(out, job, [one.stem for one in images])
    return predict_many(predictor, images, finished, ["mask", "json"], **more)


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Of every result; another inode is another writing."""
    hidden = (FOLDER, batch.STAGING_PREFIX)
    files = [p for p in out.rglob("*") if p.is_file() and not any(h in str(p) for h in hidden)]
    return {p.relative_to(out).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def leftovers(out: Path) -> list[Path]:
    return [
        path for path in out.rglob("*") if batch.STAGING_PREFIX in path.name or ".part" in path.name
    ]


def test_all_are_labelled_in_order_and_the_bad_ones_cost_nothing(tmp_path: Path) -> None:
    images = images_in(tmp_path, 30, bad=(0, 7, 8, 29))
    images[11] = InputImage(tmp_path / "gone.png", Path("gone"))
    predictor, told = Threshold(), []
    done = go(predictor, images, tmp_path / "out", progress=lambda *now: told.append(now))
    good = [one for k, one in enumerate(images) if k not in (0, 7, 8, 11, 29)]
    assert [result["source"] for result in done.results] == [str(one.path) for one in good]
    assert predictor.segmented == [result["height"] for result in done.results]
    messages = [one.message for one in done.failed]
    assert [next(name for name in ("000", "007", "008", "gone", "029") if name in one)
            for one in messages] == ["000", "007", "008", "gone", "029"]  # fmt: skip
    assert "cannot be read" in messages[0]
    assert messages[3].endswith("gone.png: there is no such file.")
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
    images = [InputImage(written(tmp_path / f"{k}.png", photo(13, 9)), Path(str(k)))
                for k in range(40)]  # fmt: skip
    images.append(InputImage(written(tmp_path / "good.png", photo(14, 9)), Path("good")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "MAX_PIXELS", 200)
        done = go(Threshold(), images, tmp_path / "out")
    assert [one.message for one in done.failed] == ["13 rows bring bad luck."] * 40
    assert [result["height"] for result in done.results] == [14]


def test_what_is_finished_is_kept_and_the_rest_is_done(tmp_path: Path) -> None:
    images, out = images_in(tmp_path, 12, bad=(3,)), tmp_path / "out"
    first = go(Threshold(), images, out)
    before = stamps(out)
    written(images[3].path, photo(23, 15, seed=3))  # mended
    written(images[4].path, photo(90, 15))  # another one
    (out / "deep" / "p005_zero_mask.png").unlink()
    predictor = Threshold()
    second = go(predictor, images, out)
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


@pytest.mark.parametrize(("job", "more"), [("other", {}), ("job", {"overwrite": True})])
def test_another_job_or_overwrite_predicts_all(
    tmp_path: Path, job: str, more: dict[str, Any]
) -> None:
    images, out = images_in(tmp_path, 3), tmp_path / "out"
    go(Threshold(), images, out)
    predictor = Threshold()
    assert go(predictor, images, out, job, **more).skipped == 0
    assert len(predictor.segmented) == 3
    assert go(Threshold(), images, out, job).skipped == 3


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_images_in_memory_never_have_more_pixels_than_there_is_room(sizes: list[int]) -> None:
    """Those larger than all of it are alone."""
    room, lock, inside, most = PixelBudget(40), threading.Lock(), [], []

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
    monkeypatch.setattr(batch, "MAX_PIXELS", 1000)
    read: list[Path] = []
    reading = batch.read_image
    monkeypatch.setattr(batch, "read_image", lambda path: (read.append(path), reading(path))[1])
    ahead = []

    class Watching(Threshold):
        def segment(self, image: np.ndarray, *, extra_inputs: Any = ()) -> Segmentation:
            time.sleep(0.03)
            ahead.append(len(read) - len(self.segmented))
            return super().segment(image, extra_inputs=extra_inputs)

    go(Watching(), images_in(tmp_path, 12), tmp_path / "out")  # of 300 pixels and more
    assert max(ahead) <= 3


def test_reading_network_and_writing_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one image is in the network, later ones are read and earlier ones written."""
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
    monkeypatch.setattr(batch, "read_image", slow("read", batch.read_image))
    monkeypatch.setattr(batch, "save_outputs", slow("write", batch.save_outputs))
    monkeypatch.setattr(predictor, "segment", slow("network", predictor.segment))
    go(predictor, images_in(tmp_path, 20), tmp_path / "out")
    assert frozenset({"read", "network", "write"}) in together


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own here")
def test_reading_and_writing_let_the_network_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, set[int]] = {"read": set(), "network": set(), "write": set()}

    def noted(name: str, what: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*words: Any, **more: Any) -> Any:
            found[name].add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return what(*words, **more)

        return noting

    predictor = Threshold()
    monkeypatch.setattr(batch, "read_image", noted("read", batch.read_image))
    monkeypatch.setattr(batch, "save_outputs", noted("write", batch.save_outputs))
    monkeypatch.setattr(predictor, "segment", noted("network", predictor.segment))
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    go(predictor, images_in(tmp_path, 8), tmp_path / "out")
    assert found == {"read": {19}, "network": {own}, "write": {19}}


def test_threads_beside_the_network_have_short_turns_while_it_runs(tmp_path: Path) -> None:
    found: list[float] = []

    class Asking(Threshold):
        def segment(self, image: np.ndarray, *, extra_inputs: Any = ()) -> Segmentation:
            found.append(sys.getswitchinterval())
            if len(found) == 3:
                raise ZeroDivisionError
            return super().segment(image, extra_inputs=extra_inputs)

    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)  # Python's own; others in this process may have changed it
    try:
        with pytest.raises(ZeroDivisionError):
            go(Asking(), images_in(tmp_path, 5), tmp_path / "out")
        assert sys.getswitchinterval() == pytest.approx(0.005)
    finally:
        sys.setswitchinterval(before)
    assert found == pytest.approx([concurrency.SWITCH_INTERVAL] * 3)


@pytest.mark.parametrize("where", ["read", "network", "write"])
def test_a_bug_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def broken(*words: Any, **more: Any) -> Any:
        raise ZeroDivisionError

    predictor, out = Threshold(), tmp_path / "out"
    target = {"read": "read_image", "write": "save_outputs"}.get(where)
    monkeypatch.setattr(*((batch, target) if target else (predictor, "segment")), broken)
    with pytest.raises(ZeroDivisionError):
        go(predictor, images_in(tmp_path, 20), out)
    assert leftovers(out) == []
    assert not [one.name for one in threading.enumerate() if one.name.startswith(("read", "writ"))]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_where_nothing_can_be_written_it_ends_at_once(tmp_path: Path, what: str) -> None:
    images, out = images_in(tmp_path, 20), tmp_path / "out"
    if what == "folder":
        (out / "deep" / "p002_mask.png").mkdir(parents=True)  # in a result's place
        where = out / "deep" / "p002_mask.png"
    else:
        out.touch()
        where = out / "deep" / "p000"
    predictor = Threshold()
    with pytest.raises(FullconvError) as caught:
        go(predictor, images, out)
    assert caught.value.message.startswith(f"the result could not be written to {where}: ")
    assert caught.value.hint.startswith("--out ANOTHER_FOLDER")
    assert len(predictor.segmented) < 20
    assert leftovers(tmp_path) == []


def test_ctrl_c_leaves_whole_files_only(tmp_path: Path) -> None:
    images, out = images_in(tmp_path, 30), tmp_path / "out"

    class Stopped(Threshold):
        def segment(self, image: np.ndarray, *, extra_inputs: Any = ()) -> Segmentation:
            if len(self.segmented) == 14:
                raise KeyboardInterrupt
            return super().segment(image, extra_inputs=extra_inputs)

    with pytest.raises(KeyboardInterrupt):
        go(Stopped(), images, out)
    assert leftovers(out) == []
    before = stamps(out)
    assert 3 <= len(before) <= 3 * 14
    assert len(before) % 3 == 0
    predictor = Threshold()
    assert go(predictor, images, out).skipped == len(before) / 3
    assert len(predictor.segmented) == 30 - len(before) / 3
    assert before.items() <= stamps(out).items()


KILLED = """
import sys
from pathlib import Path
sys.path += [{tests!r}, {tests!r} + '/..']
from test_batch import Threshold, go
from fullconv.inference.batch import InputImage
images = [InputImage(path, Path(path.stem)) for path in sorted(Path({photos!r}).iterdir())]
go(Threshold(slow=0.002), images, Path({out!r}))
"""


@pytest.mark.slow
def test_killed_anywhere_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    count, out = 400, tmp_path / "out"
    images = images_in(tmp_path / "photos", count)
    images = [InputImage(one.path, Path(one.path.stem)) for one in images]
    script = KILLED.format(
        tests=str(Path(__file__).parent), photos=str(tmp_path / "photos"), out=str(out)
    )
    started = subprocess.Popen([sys.executable, "-c", script])
    while started.poll() is None and len(list(out.glob("*.json"))) < 40:
        time.sleep(0.002)
    started.kill()
    started.wait()
    before = stamps(out)
    assert 120 <= len(before) < 3 * count
    for name in before:  # whole
        if name.endswith(".png"):
            assert read_values(out / name).shape == (20 + int(name[1:4]), 15)
        else:
            json.loads((out / name).read_text())
    ends = ("_mask.png", ".json", "_zero_mask.png")
    complete = [
        one.stem.name for one in images if all(f"{one.stem.name}{end}" in before for end in ends)
    ]
    assert len(before) - 3 * len(complete) <= 2 * batch.MAX_THREADS  # whose files were being moved
    predictor = Threshold()
    assert go(predictor, images, out).skipped == len(complete)
    assert len(predictor.segmented) == count - len(complete)
    after = stamps(out)
    assert len(after) == 3 * count
    assert all(after[f"{name}{end}"] == before[f"{name}{end}"] for name in complete for end in ends)
    assert leftovers(out) == []
