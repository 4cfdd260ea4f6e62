"""Many images: in order, despite damaged ones, errors and interruptions."""

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
ENDS = ("_mask.png", ".json", "_zero_mask.png")  # of the results of an image


class Threshold:
    """A model that calls a pixel light if its red is above 127."""

    inexact_operations = ()
    extra_inputs = ()

    def __init__(self, slow: float = 0.0, watch: Callable[[Threshold], None] | None = None) -> None:
        self.slow, self.watch = slow, watch
        self.segmented: list[int] = []  # heights

    def segment(self, image: np.ndarray, *, extra_inputs: Any = ()) -> Segmentation:
        time.sleep(self.slow)
        if self.watch:
            self.watch(self)
        self.segmented.append(image.shape[0])
        if image.shape[0] == 13:
            raise FullconvError("13 rows bring bad luck.", "cut it")
        head = Segmentation(np.zeros(image.shape[:2], np.uint8), LABELS, image)
        ids = (image[..., 0] > 127).astype(np.uint8)
        return Segmentation(ids, LABELS, image, heads={"zero": head})


def images_in(folder: Path, count: int, bad: tuple[int, ...] = ()) -> list[InputImage]:
    """Write images of 20, 21 ... rows."""
    images = []
    for number in range(count):
        path = written(folder / f"p{number:03}.png", photo(20 + number, 15, seed=number))
        if number in bad:
            path.write_bytes(path.read_bytes()[:50])
        images.append(InputImage(path, Path("deep", path.stem)))
    return images


def predict(
    predictor: Any, images: list[InputImage], out: Path, job: str = "job", **options: Any
) -> Any:
    manifest = Manifest(out, job, [image.stem for image in images])
    return predict_many(predictor, images, manifest, ["mask", "json"], **options)


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Return the inode and time of each result."""
    hidden = (FOLDER, batch.STAGING_PREFIX)
    files = [p for p in out.rglob("*") if p.is_file() and not any(h in str(p) for h in hidden)]
    return {p.relative_to(out).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if ".part" in path.name]


def spy(name: str, function: Callable[..., Any], note: Callable[[str], None]) -> Any:
    """Call `note` with the name before each call of the function."""

    def call(*arguments: Any, **options: Any) -> Any:
        note(name)
        return function(*arguments, **options)

    return call


def spy_on_all(patch: pytest.MonkeyPatch, note: Callable[[str], None]) -> Threshold:
    predictor = Threshold()
    patch.setattr(batch, "read_image", spy("read", batch.read_image, note))
    patch.setattr(batch, "save_outputs", spy("write", batch.save_outputs, note))
    patch.setattr(predictor, "segment", spy("network", predictor.segment, note))
    return predictor


def test_all_are_predicted_in_order_despite_damaged_ones(tmp_path: Path) -> None:
    images = images_in(tmp_path, 30, bad=(0, 7, 8, 29))
    images[11] = InputImage(tmp_path / "gone.png", Path("gone"))
    predictor, calls, out = Threshold(), [], tmp_path / "out"
    result = predict(predictor, images, out, progress=lambda *done: calls.append(done))
    good = [image for k, image in enumerate(images) if k not in (0, 7, 8, 11, 29)]
    assert [row["source"] for row in result.results] == [str(image.path) for image in good]
    assert predictor.segmented == [row["height"] for row in result.results]
    messages = [error.message for error in result.failed]
    names = ("000", "007", "008", "gone", "029")
    assert all(name in message for name, message in zip(names, messages, strict=True))
    assert "cannot be read" in messages[0]
    assert messages[3].endswith("gone.png: there is no such file.")
    assert calls == [(k, 30) for k in range(31)]
    for image, row in zip(good, result.results, strict=True):
        stem = out / image.stem
        assert row["files"] == [f"{stem}{end}" for end in ENDS]
        ids = photo(row["height"], 15, seed=int(image.path.stem[1:]))[..., 0] > 127
        assert (read_values(Path(f"{stem}_mask.png")) == ids).all()
        table = json.loads(Path(f"{stem}.json").read_text())
        assert {**table, "files": row["files"]} == row
        assert table["source"] == str(image.path)
    assert leftovers(out) == []
    assert len(stamps(out)) == 3 * 25


def test_images_that_the_model_refuses_take_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_PIXELS", 200)
    sizes = [(str(k), 13) for k in range(40)] + [("good", 14)]
    images = [
        InputImage(written(tmp_path / f"{name}.png", photo(height, 9)), Path(name))
        for name, height in sizes
    ]
    result = predict(Threshold(), images, tmp_path / "out")
    assert [error.message for error in result.failed] == ["13 rows bring bad luck."] * 40
    assert [row["height"] for row in result.results] == [14]


def test_finished_images_are_kept_and_the_others_predicted(tmp_path: Path) -> None:
    images, out = images_in(tmp_path, 12, bad=(3,)), tmp_path / "out"
    first = predict(Threshold(), images, out)
    before = stamps(out)
    written(images[3].path, photo(23, 15, seed=3))  # repaired
    written(images[4].path, photo(90, 15))  # another one
    (out / "deep" / "p005_zero_mask.png").unlink()
    predictor = Threshold()
    second = predict(predictor, images, out)
    assert predictor.segmented == [23, 90, 25]
    assert (second.skipped, second.failed) == (9, [])
    heights = [90 if k == 4 else 20 + k for k in range(12)]
    assert [row["height"] for row in second.results] == heights
    kept_rows = [row for row in first.results if row["height"] not in (24, 25)]
    assert all(row in second.results for row in kept_rows)
    changed = {name for name, stamp in stamps(out).items() if stamp != before.get(name)}
    stems = {name.split("_")[0].split(".")[0] for name in changed}
    assert stems == {"deep/p003", "deep/p004", "deep/p005"}


@pytest.mark.parametrize(("job", "options"), [("other", {}), ("job", {"overwrite": True})])
def test_another_job_or_overwrite_predicts_all(
    tmp_path: Path, job: str, options: dict[str, Any]
) -> None:
    images, out = images_in(tmp_path, 3), tmp_path / "out"
    predict(Threshold(), images, out)
    predictor = Threshold()
    assert predict(predictor, images, out, job, **options).skipped == 0
    assert len(predictor.segmented) == 3
    assert predict(Threshold(), images, out, job).skipped == 3


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_the_budget_bounds_the_pixels_in_memory(sizes: list[int]) -> None:
    """Images larger than the budget are alone."""
    budget, lock, inside, totals = PixelBudget(40), threading.Lock(), [], []

    def hold(turn: int, pixels: int) -> None:
        budget.enter(turn, pixels)
        with lock:
            inside.append(pixels)
            totals.append(sum(inside) if len(inside) > 1 else 0)
        with lock:
            inside.remove(pixels)
        budget.leave(pixels)

    threads = [threading.Thread(target=hold, args=pair) for pair in enumerate(sizes)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(totals) == len(sizes)
    assert max(totals) <= 40


def test_few_images_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_PIXELS", 1000)
    reads: list[str] = []
    ahead: list[int] = []
    monkeypatch.setattr(batch, "read_image", spy("read", batch.read_image, reads.append))
    predictor = Threshold(0.03, lambda self: ahead.append(len(reads) - len(self.segmented)))
    predict(predictor, images_in(tmp_path, 12), tmp_path / "out")  # of 300 pixels and more
    assert max(ahead) <= 3


def test_reading_network_and_writing_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: set[str] = set()
    together: set[frozenset[str]] = set()
    lock = threading.Lock()

    def note(name: str) -> None:
        with lock:
            running.add(name)
            together.add(frozenset(running))
        time.sleep(0.02)
        with lock:
            running.discard(name)

    predict(spy_on_all(monkeypatch, note), images_in(tmp_path, 20), tmp_path / "out")
    assert frozenset({"read", "network", "write"}) in together


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own here")
def test_readers_and_writers_have_a_low_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    priorities: dict[str, set[int]] = {"read": set(), "network": set(), "write": set()}

    def note(name: str) -> None:
        priorities[name].add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    predict(spy_on_all(monkeypatch, note), images_in(tmp_path, 8), tmp_path / "out")
    assert priorities == {"read": {19}, "network": {own}, "write": {19}}


def test_the_switch_interval_is_short_while_the_network_runs(tmp_path: Path) -> None:
    intervals: list[float] = []

    def watch(_: Threshold) -> None:
        intervals.append(sys.getswitchinterval())
        if len(intervals) == 3:
            raise ZeroDivisionError

    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)  # Python's default; others in this process may have changed it
    try:
        with pytest.raises(ZeroDivisionError):
            predict(Threshold(watch=watch), images_in(tmp_path, 5), tmp_path / "out")
        assert sys.getswitchinterval() == pytest.approx(0.005)
    finally:
        sys.setswitchinterval(before)
    assert intervals == pytest.approx([concurrency.SWITCH_INTERVAL] * 3)


@pytest.mark.parametrize("where", ["read", "network", "write"])
def test_a_bug_ends_the_job_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(name: str) -> None:
        if name == where:
            raise ZeroDivisionError

    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError):
        predict(spy_on_all(monkeypatch, fail), images_in(tmp_path, 20), out)
    assert leftovers(out) == []
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("read", "writ"))]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_unwritable_results_end_the_job_at_once(tmp_path: Path, kind: str) -> None:
    images, out = images_in(tmp_path, 20), tmp_path / "out"
    if kind == "folder":
        path = out / "deep" / "p002_mask.png"
        path.mkdir(parents=True)
    else:
        out.touch()
        path = out / "deep" / "p000"
    predictor = Threshold()
    with pytest.raises(FullconvError) as caught:
        predict(predictor, images, out)
    assert caught.value.message.startswith(f"the result could not be written to {path}: ")
    assert caught.value.hint.startswith("--out ANOTHER_FOLDER")
    assert len(predictor.segmented) < 20
    assert leftovers(tmp_path) == []


def test_ctrl_c_leaves_whole_files_only(tmp_path: Path) -> None:
    images, out = images_in(tmp_path, 30), tmp_path / "out"

    def interrupt(predictor: Threshold) -> None:
        if len(predictor.segmented) == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(Threshold(watch=interrupt), images, out)
    assert leftovers(out) == []
    before = stamps(out)
    assert 3 <= len(before) <= 3 * 14
    assert len(before) % 3 == 0
    predictor = Threshold()
    assert predict(predictor, images, out).skipped == len(before) / 3
    assert len(predictor.segmented) == 30 - len(before) / 3
    assert before.items() <= stamps(out).items()


KILLED = """
import sys
from pathlib import Path
sys.path += [{tests!r}, {tests!r} + '/..']
from test_batch import Threshold, predict
from fullconv.inference.batch import InputImage
images = [InputImage(path, Path(path.stem)) for path in sorted(Path({photos!r}).iterdir())]
predict(Threshold(slow=0.002), images, Path({out!r}))
"""


@pytest.mark.slow
def test_nothing_is_lost_or_repeated_after_a_kill(tmp_path: Path) -> None:
    count, out = 400, tmp_path / "out"
    images = images_in(tmp_path / "photos", count)
    images = [InputImage(image.path, Path(image.path.stem)) for image in images]
    paths = {"tests": Path(__file__).parent, "photos": tmp_path / "photos", "out": out}
    script = KILLED.format(**{name: str(path) for name, path in paths.items()})
    process = subprocess.Popen([sys.executable, "-c", script])
    while process.poll() is None and len(list(out.glob("*.json"))) < 40:
        time.sleep(0.002)
    process.kill()
    process.wait()
    before = stamps(out)
    assert 120 <= len(before) < 3 * count
    for name in before:  # every file is whole
        if name.endswith(".png"):
            assert read_values(out / name).shape == (20 + int(name[1:4]), 15)
        else:
            json.loads((out / name).read_text())
    files = {image.stem.name: [f"{image.stem.name}{end}" for end in ENDS] for image in images}
    complete = {stem: names for stem, names in files.items() if before.keys() >= {*names}}
    assert len(before) - 3 * len(complete) <= 2 * batch.MAX_THREADS  # files that were being moved
    predictor = Threshold()
    assert predict(predictor, images, out).skipped == len(complete)
    assert len(predictor.segmented) == count - len(complete)
    after = stamps(out)
    assert len(after) == 3 * count
    assert all(after[name] == before[name] for names in complete.values() for name in names)
    assert leftovers(out) == []
