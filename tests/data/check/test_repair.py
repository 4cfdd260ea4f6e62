"""Repaired copies of synthetic datasets with each fault, against the ground truth."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pairs import noise, only, rules_of, save, turned, write_pairs
from PIL import Image, ImageFilter

from fullconv.core.errors import FullconvError
from fullconv.data.check.check import check
from fullconv.data.check.repair import nearest_color, plain_copy, repair
from fullconv.data.io.masks import read_values
from fullconv.data.synthetic import scenes as synthetic


def blobs(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """Return (H, W) ids 0, 1, 2 of a few rectangles."""
    random = np.random.default_rng(seed)
    ids = np.zeros(size, np.uint8)
    for value in (1, 2, 1):
        top, left = random.integers(0, 30, 2)
        ids[top : top + 25, left : left + 30] = value
    return ids


def small_scenes(root: Path, train: int = 4, val: int = 1, test: int = 1) -> Path:
    return synthetic.write(root, train=train, val=val, test=test, size=(48, 64))


def numbered(masks: Iterable[Any]) -> dict[str, np.ndarray]:
    return {f"{number}": np.asarray(mask) for number, mask in enumerate(masks)}


def written(out: Path) -> dict[int, np.ndarray]:
    """Return the masks of a copy by the numbers that are their names."""
    return {int(path.stem): np.asarray(read_values(path)) for path in out.glob("masks/*/*.png")}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_blurred_and_lossy_masks_are_cut_at_their_edges(tmp_path: Path, suffix: str) -> None:
    truth = [blobs(seed) > 0 for seed in range(5)]
    masks = [Image.fromarray(np.uint8(255 * t)).filter(ImageFilter.BoxBlur(1)) for t in truth]
    root = write_pairs(tmp_path / "data", numbered(masks), suffix=suffix)
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    report = check(root)
    assert report.errors
    copy = repair(report, tmp_path / "out")
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before
    assert copy.labels.names == ("background", "object")
    assert copy.done["pixels between black and white"] > 100
    assert check(tmp_path / "out").errors == ()
    for number, ids in written(tmp_path / "out").items():
        # A blur over 3 pixels moves no straight edge; corners lose or gain a pixel.
        assert (ids != truth[number]).sum() <= 24, number
    for image in (tmp_path / "out/images").rglob("*.png"):
        assert image.read_bytes() == (root / "images" / image.name).read_bytes()


def test_blended_colors_become_the_nearest_nominal_one(tmp_path: Path) -> None:
    palette = np.array([(0, 0, 0), (200, 30, 30), (30, 40, 220)], np.uint8)
    truth = [blobs(seed, (120, 160)) for seed in range(4)]
    images = [Image.fromarray(palette[ids]).filter(ImageFilter.GaussianBlur(0.6)) for ids in truth]
    root = write_pairs(tmp_path / "data", numbered(images))
    copy = repair(check(root), tmp_path / "out")
    assert sorted(copy.labels.colors) == sorted(map(tuple, palette.tolist()))
    ids_of = np.array([copy.labels.colors.index(tuple(color)) for color in palette.tolist()])
    for number, ids in written(tmp_path / "out").items():
        blurred = np.asarray(images[number], np.float64)
        distance = ((blurred[:, :, None] - palette) ** 2).sum(axis=3)
        first, second, _ = np.moveaxis(np.sort(distance, axis=2), 2, 0)
        clear = first < second
        np.testing.assert_array_equal(ids[clear], ids_of[distance.argmin(axis=2)][clear])
    assert check(tmp_path / "out").errors == ()


def test_a_mask_drawn_before_the_rotation_is_turned_with_its_photo(tmp_path: Path) -> None:
    root = tmp_path / "data"
    upright = blobs(3)
    lying = np.rot90(upright)  # the orientation turns it clockwise again
    for number in range(2):
        save(root / f"images/{number}.jpg", noise(number, lying.shape), exif=turned())
        save(root / f"masks/{number}.png", lying)
    report = check(root)
    assert [finding.rule for finding in report.errors] == ["size"]
    copy = repair(report, tmp_path / "out")
    assert copy.done["masks turned as their photo's EXIF orientation tells"] == 2
    assert check(tmp_path / "out").errors == ()
    for ids in written(tmp_path / "out").values():
        np.testing.assert_array_equal(ids, upright)


def test_gaps_are_closed_and_unknown_values_ignored(tmp_path: Path) -> None:
    sparse = np.array([0, 3, 7], np.uint8)
    root = write_pairs(tmp_path / "gaps", numbered(sparse[blobs(seed)] for seed in range(4)))
    copy = repair(check(root), tmp_path / "closed")
    assert copy.labels.names == ("class 0", "class 3", "class 7")
    for number, ids in written(tmp_path / "closed").items():
        np.testing.assert_array_equal(ids, blobs(number))
    named = small_scenes(tmp_path / "named")
    mask = min((named / "masks" / "train").iterdir())
    ids = read_values(mask).copy()
    ids[:2, :5] = 99
    save(mask, ids)
    copy = repair(check(named), tmp_path / "ignored")
    assert copy.done == {"pixels without a class, now ignored": 10}
    values = read_values(tmp_path / "ignored/masks/train" / mask.name)
    assert (values == 255).sum() == 10 + (ids == 255).sum()


@pytest.mark.parametrize(
    ("table", "levels", "expected", "done"),
    [
        ("0 0 0 a\n128 128 128 b\n200 200 200 c\n", (0, 128, 200), (0, 1, 2), {}),
        (  # white is the first class
            "255 255 255 paper\n0 0 0 ink\n",
            (0, 255, 0),
            (1, 0, 1),
            {"masks cut at 127.5": 4},
        ),
    ],
)
def test_grays_that_the_table_lists_as_colors_keep_their_classes(
    tmp_path: Path, table: str, levels: Any, expected: Any, done: dict[str, int]
) -> None:
    grays = [np.array(levels)[blobs(seed)] for seed in range(4)]
    root = write_pairs(tmp_path / "data", numbered(np.dstack([gray] * 3) for gray in grays))
    (root / "classes.txt").write_text(table)
    report = check(root)
    assert (report.errors, report.warnings) == ((), ())
    assert repair(report, tmp_path / "out").done == done
    for number, ids in written(tmp_path / "out").items():
        np.testing.assert_array_equal(ids, np.array(expected)[blobs(number)])


def test_an_image_in_two_splits_stays_in_test(tmp_path: Path) -> None:
    root = small_scenes(tmp_path / "scenes", test=2)
    train, test = (min((root / "images" / split).iterdir()) for split in ("train", "test"))
    train.write_bytes(test.read_bytes())
    copy = repair(check(root), tmp_path / "out")
    assert copy.splits == {"train": 3, "val": 1, "test": 2}
    name = f"images/train/{train.name}"
    assert copy.left_out == {name: f"the same image stays in test as images/test/{test.name}"}
    assert "leak" not in rules_of(check(tmp_path / "out"))


def test_a_similar_image_in_two_splits_stays_in_val(tmp_path: Path) -> None:
    root = synthetic.write(tmp_path / "scenes", train=4, val=2, test=1, size=(144, 208))
    train, val = (sorted((root / "images" / split).iterdir())[1] for split in ("train", "val"))
    train.unlink()
    with Image.open(val) as image:
        image.save(train, quality=60)
    report = check(root)
    names = f"images/train/{train.name}", f"images/val/{val.name}"
    assert only(report, "near-leak").groups == (names,)
    copy = repair(report, tmp_path / "out")
    assert copy.splits == {"train": 3, "val": 2, "test": 1}
    assert copy.left_out == {names[0]: f"a similar image stays in val as {names[1]}"}
    assert "near-leak" not in rules_of(check(tmp_path / "out"))


def test_a_file_on_two_lists_stays_on_one(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", numbered(blobs(seed) for seed in range(5)))
    (root / "train.txt").write_text("0\n1\n2\n")
    (root / "val.txt").write_text("2\n3\n4\n")
    report = check(root)
    assert "leak" in rules_of(report)
    copy = repair(report, tmp_path / "out")
    assert copy.splits == {"train": 2, "val": 3}
    (name,) = copy.left_out
    assert copy.left_out == {name: f"the same image stays in val as {name}"}


def test_pairs_that_cannot_be_repaired_are_left_out_and_listed(tmp_path: Path) -> None:
    root = small_scenes(tmp_path / "scenes")
    first, second, *_ = sorted((root / "masks" / "train").iterdir())
    first.write_bytes(b"no image")
    save(second, np.zeros((9, 9)))
    save(root / "images/train/alone.png", noise(0, (48, 64)))
    truncated = sorted((root / "images" / "train").glob("*.jpg"))[2]
    truncated.write_bytes(truncated.read_bytes()[:-300])  # the header is complete
    copy = repair(check(root), tmp_path / "out")
    assert copy.splits["train"] == 1
    reasons = {Path(name).name: text for name, text in copy.left_out.items()}
    assert "cannot be read" in reasons[first.name]
    assert "9 x 9 pixels (height x width), the image 48 x 64" in reasons[second.name]
    assert reasons["alone.png"] == "it has no partner"
    assert f"left out: masks/train/{first.name}" in copy.text()
    assert truncated.name in reasons[f"{truncated.stem}.png"]
    assert not list((tmp_path / "out" / "images").rglob(truncated.name))
    assert "unreadable" not in rules_of(check(tmp_path / "out"))


def test_no_folder_remains_if_nothing_can_be_repaired(tmp_path: Path) -> None:
    root = small_scenes(tmp_path / "scenes", train=2)
    for mask in (root / "masks").rglob("*.png"):
        mask.write_bytes(b"")
    with pytest.raises(FullconvError, match=r"nothing in .* can be repaired"):
        repair(check(root), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_copy_needs_a_new_folder_outside_of_the_dataset(tmp_path: Path, scenes: Path) -> None:
    (tmp_path / "file").write_text("mine")
    report = check(scenes)
    for out, message in (
        (scenes / "fixed", "is inside"),
        (tmp_path, "is not empty"),
        (tmp_path / "file", "is a file"),
    ):
        with pytest.raises(FullconvError, match=message) as caught:
            repair(report, out)
        assert caught.value.hint == f"fullconv check {scenes} --fix {scenes.resolve()}_fixed"


def test_a_plain_copy_keeps_everything(tmp_path: Path) -> None:
    """Even the ids of classes that never occur, which `repair` removes."""
    root = write_pairs(tmp_path / "data", numbered(2 * blobs(seed) for seed in range(4)))
    dataset = check(root).dataset
    calls: list[tuple[int, int]] = []
    copy = plain_copy(dataset, tmp_path / "out", progress=lambda *counts: calls.append(counts))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert copy.labels.names == tuple(f"class {k}" for k in range(5))
    assert (copy.splits, copy.left_out) == ({"train": 3, "val": 1}, {})
    for number, ids in written(tmp_path / "out").items():
        np.testing.assert_array_equal(ids, 2 * blobs(number))
    with pytest.raises(FullconvError, match="is not empty"):
        plain_copy(dataset, tmp_path / "out")


def test_white_needs_a_class(tmp_path: Path) -> None:
    masks = numbered(255 * (blobs(seed) > 0) for seed in range(3))
    toml = 'classes = ["a", "b", "c"]\n'
    root = write_pairs(tmp_path / "data", masks, toml=toml, suffix=".jpg")
    with pytest.raises(FullconvError, match="which of its 3 classes white is"):
        repair(check(root), tmp_path / "out")


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=6, unique=True),
)
def test_the_nearest_color_has_the_smallest_distance(
    values: np.ndarray, colors: list[tuple[int, int, int]]
) -> None:
    distance = ((values[:, :, None].astype(np.float64) - np.array(colors)) ** 2).sum(axis=3)
    np.testing.assert_array_equal(nearest_color(values, tuple(colors)), distance.argmin(axis=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "share"),
    [
        ("crackforest", ("background", "object"), 0.016),
        ("kvasir_sample", ("background", "object"), 0.24),
        ("fasseg_face", ("background", "hair", "skin", "eyes", "nose", "mouth"), 0.31),
    ],
)
def test_repaired_copies_of_real_datasets_have_no_errors(
    shared: Path, tmp_path: Path, name: str, classes: tuple[str, ...], share: float
) -> None:
    copy = repair(check(shared / "data" / name), tmp_path / "out")
    report = check(tmp_path / "out")
    assert report.errors == ()
    assert copy.labels.names == report.dataset.labels.names == classes
    pixels = np.sum(list(report.class_pixels.values()), axis=0)
    assert pixels[1] / pixels.sum() == pytest.approx(share, rel=0.05)
