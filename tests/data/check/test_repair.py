"""Repaired copies of synthetic datasets with each fault, against the ground truth."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter

from fullconv.core.errors import FullconvError
from fullconv.data.check.check import check
from fullconv.data.check.repair import nearest_color, plain_copy, repair
from fullconv.data.io.masks import read_values
from fullconv.data.synthetic import scenes as drawn


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def photo(path: Path, size: tuple[int, int], seed: int, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path, **options)  # type: ignore[arg-type]


def blobs(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """Return (H, W) ids 0, 1, 2 of a few rectangles."""
    random = np.random.default_rng(seed)
    ids = np.zeros(size, np.uint8)
    for value in (1, 2, 1):
        top, left = random.integers(0, 30, 2)
        ids[top : top + 25, left : left + 30] = value
    return ids


def pairs(root: Path, masks: list[Image.Image], suffix: str = ".png") -> Path:
    for number, mask in enumerate(masks):
        photo(root / f"images/{number}.png", mask.size[::-1], number)
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / f"masks/{number}{suffix}")
    return root


def written(out: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(read_values(path)) for path in out.glob("masks/*/*.png")}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_blurred_and_lossy_masks_are_cut_at_their_edges(tmp_path: Path, suffix: str) -> None:
    truth = [blobs(seed) > 0 for seed in range(5)]
    masks = [Image.fromarray(np.uint8(255 * t)).filter(ImageFilter.BoxBlur(1)) for t in truth]
    root = pairs(tmp_path / "data", masks, suffix)
    before = hashes(root)
    report = check(root)
    assert report.errors
    copy = repair(report, tmp_path / "out")
    assert hashes(root) == before
    assert copy.labels.names == ("background", "object")
    assert copy.done["pixels between black and white"] > 100
    again = check(tmp_path / "out")
    assert again.errors == ()
    for name, ids in written(tmp_path / "out").items():
        # A blur over 3 pixels moves no straight edge; corners lose or gain a pixel.
        assert (ids != truth[int(name)]).sum() <= 24, name
    for image in (tmp_path / "out/images").rglob("*.png"):
        assert image.read_bytes() == (root / "images" / image.name).read_bytes()


def test_blended_colors_become_the_nearest_nominal_one(tmp_path: Path) -> None:
    palette = np.array([(0, 0, 0), (200, 30, 30), (30, 40, 220)], np.uint8)
    truth = [blobs(seed, (120, 160)) for seed in range(4)]
    images = [Image.fromarray(palette[ids]).filter(ImageFilter.GaussianBlur(0.6)) for ids in truth]
    root = pairs(tmp_path / "data", images)
    copy = repair(check(root), tmp_path / "out")
    assert sorted(copy.labels.colors) == sorted(map(tuple, palette.tolist()))
    ids_of = [copy.labels.colors.index(tuple(color)) for color in palette.tolist()]
    for name, ids in written(tmp_path / "out").items():
        blurred = np.asarray(images[int(name)], np.float64)
        distance = ((blurred[:, :, None] - palette) ** 2).sum(axis=3)
        wanted = np.array(ids_of)[distance.argmin(axis=2)]
        tied = np.sort(distance, axis=2)
        clear = tied[..., 0] < tied[..., 1]
        np.testing.assert_array_equal(ids[clear], wanted[clear])
    assert check(tmp_path / "out").errors == ()


def test_a_mask_drawn_before_the_rotation_is_turned_with_its_photo(tmp_path: Path) -> None:
    root = tmp_path / "data"
    upright = blobs(3)
    lying = np.ascontiguousarray(np.rot90(upright))  # orientation 6 turns it clockwise again
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, ids in (("a", lying), ("b", lying)):
        photo(root / f"images/{name}.jpg", ids.shape, ord(name), exif=exif)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(ids).save(root / f"masks/{name}.png")
    report = check(root)
    assert [finding.rule for finding in report.errors] == ["size"]
    copy = repair(report, tmp_path / "out")
    assert copy.done["masks turned as their photo's EXIF orientation tells"] == 2
    assert check(tmp_path / "out").errors == ()
    for ids in written(tmp_path / "out").values():
        np.testing.assert_array_equal(ids, upright)


def test_gaps_are_closed_and_unknown_values_ignored(tmp_path: Path) -> None:
    sparse = np.array([0, 3, 7], np.uint8)
    root = pairs(tmp_path / "gaps", [Image.fromarray(sparse[blobs(s)]) for s in range(4)])
    copy = repair(check(root), tmp_path / "closed")
    assert copy.labels.names == ("class 0", "class 3", "class 7")
    for name, ids in written(tmp_path / "closed").items():
        np.testing.assert_array_equal(ids, blobs(int(name)))
    named = drawn.write(tmp_path / "named", train=3, val=1, test=1, size=(48, 64))
    mask = min((named / "masks" / "train").iterdir())
    ids = np.array(Image.open(mask))
    ids[:2, :5] = 99
    Image.fromarray(ids).save(mask)
    copy = repair(check(named), tmp_path / "ignored")
    assert copy.done == {"pixels without a class, now ignored": 10}
    values = read_values(tmp_path / "ignored/masks/train" / mask.name)
    assert (values == 255).sum() == 10 + (ids == 255).sum()


def gray_rgb(root: Path, table: str, *levels: int) -> tuple[Path, list[np.ndarray]]:
    """Write RGB masks with equal channels and a classes.txt of colors; return the levels, too."""
    grays = [np.array(levels, np.uint8)[blobs(seed) % len(levels)] for seed in range(4)]
    pairs(root, [Image.fromarray(gray).convert("RGB") for gray in grays])
    (root / "classes.txt").write_text(table)
    return root, grays


def test_grays_that_the_table_lists_as_colors_keep_their_classes(tmp_path: Path) -> None:
    table = "0 0 0 a\n128 128 128 b\n200 200 200 c\n"
    root, grays = gray_rgb(tmp_path / "data", table, 0, 128, 200)
    report = check(root)
    assert (report.errors, report.warnings) == ((), ())
    assert repair(report, tmp_path / "out").done == {}
    for name, ids in written(tmp_path / "out").items():
        np.testing.assert_array_equal(ids, np.searchsorted((0, 128, 200), grays[int(name)]))


def test_white_may_be_the_first_color_of_the_table(tmp_path: Path) -> None:
    root, grays = gray_rgb(tmp_path / "data", "255 255 255 paper\n0 0 0 ink\n", 0, 255)
    report = check(root)
    assert report.errors == ()
    repair(report, tmp_path / "out")
    for name, ids in written(tmp_path / "out").items():
        np.testing.assert_array_equal(ids, grays[int(name)] == 0)


def test_an_image_in_two_splits_stays_in_test(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "scenes", train=4, val=1, test=2, size=(48, 64))
    train, test = (min((root / "images" / split).iterdir()) for split in ("train", "test"))
    train.write_bytes(test.read_bytes())
    copy = repair(check(root), tmp_path / "out")
    assert copy.splits == {"train": 3, "val": 1, "test": 2}
    name = f"images/train/{train.name}"
    assert copy.left_out == {name: f"the same image stays in test as images/test/{test.name}"}
    assert "leak" not in [finding.rule for finding in check(tmp_path / "out").findings]


def test_a_similar_image_in_two_splits_stays_in_val(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "scenes", train=4, val=2, test=1, size=(144, 208))
    train, val = (sorted((root / "images" / split).iterdir())[1] for split in ("train", "val"))
    train.unlink()
    with Image.open(val) as image:
        image.save(train, quality=60)
    report = check(root)
    (leak,) = (finding for finding in report.findings if finding.rule == "near-leak")
    names = tuple(f"images/{split}/{file.name}" for split, file in (("train", train), ("val", val)))
    assert leak.groups == (names,)
    copy = repair(report, tmp_path / "out")
    assert copy.splits == {"train": 3, "val": 2, "test": 1}
    assert copy.left_out == {names[0]: f"a similar image stays in val as {names[1]}"}
    assert "near-leak" not in [finding.rule for finding in check(tmp_path / "out").findings]


def test_a_file_on_two_lists_stays_on_one(tmp_path: Path) -> None:
    root = pairs(tmp_path / "data", [Image.fromarray(blobs(seed)) for seed in range(5)])
    (root / "train.txt").write_text("0\n1\n2\n")
    (root / "val.txt").write_text("2\n3\n4\n")
    report = check(root)
    assert "leak" in [finding.rule for finding in report.findings]
    copy = repair(report, tmp_path / "out")
    assert copy.splits == {"train": 2, "val": 3}
    (name,) = copy.left_out
    assert copy.left_out == {name: f"the same image stays in val as {name}"}


def test_pairs_that_cannot_be_repaired_are_left_out_and_listed(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "scenes", train=4, val=1, test=1, size=(48, 64))
    first, second, *_ = sorted((root / "masks" / "train").iterdir())
    first.write_bytes(b"no image")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(second)
    photo(root / "images/train/alone.png", (48, 64), 0)
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
    assert "unreadable" not in {finding.rule for finding in check(tmp_path / "out").errors}


def test_no_folder_remains_if_nothing_can_be_repaired(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "scenes", train=2, val=1, test=1, size=(48, 64))
    for mask in (root / "masks").rglob("*.png"):
        mask.write_bytes(b"")
    with pytest.raises(FullconvError, match=r"nothing in .* can be repaired"):
        repair(check(root), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_copy_needs_a_new_folder_outside_of_the_dataset(tmp_path: Path, scenes: Path) -> None:
    report = check(scenes)
    with pytest.raises(FullconvError, match="is inside"):
        repair(report, scenes / "fixed")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(FullconvError, match="is not empty"):
        repair(report, tmp_path / "full")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FullconvError, match="is a file") as caught:
        repair(report, tmp_path / "file")
    assert caught.value.hint == f"fullconv check {scenes} --fix {scenes.resolve()}_fixed"


def test_a_plain_copy_keeps_everything(tmp_path: Path) -> None:
    """Even the ids of classes that never occur, which `repair` removes."""
    root = pairs(tmp_path / "data", [Image.fromarray(2 * blobs(seed)) for seed in range(4)])
    dataset = check(root).dataset
    calls: list[tuple[int, int]] = []
    copy = plain_copy(dataset, tmp_path / "out", progress=lambda *counts: calls.append(counts))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert copy.labels.names == tuple(f"class {k}" for k in range(5))
    assert (copy.splits, copy.left_out) == ({"train": 3, "val": 1}, {})
    for name, ids in written(tmp_path / "out").items():
        np.testing.assert_array_equal(ids, 2 * blobs(int(name)))
    with pytest.raises(FullconvError, match="is not empty"):
        plain_copy(dataset, tmp_path / "out")


def test_white_needs_a_class(tmp_path: Path) -> None:
    masks = [Image.fromarray(np.uint8(255 * (blobs(s) > 0))) for s in range(3)]
    root = pairs(tmp_path / "data", masks, ".jpg")
    (root / "dataset.toml").write_text('classes = ["a", "b", "c"]\n')
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
