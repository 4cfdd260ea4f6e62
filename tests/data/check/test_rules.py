"""Rules about files, values and balance: messages, files, and fixes that work when pasted."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import noise, only, rules_of, save, turned, write_pairs
from PIL import Image

from fullconv.cli.main import run
from fullconv.core.labels import voc_color
from fullconv.data.check.check import check
from fullconv.data.check.repair import repair
from fullconv.data.io.masks import read_mask

pytestmark = pytest.mark.usefixtures("small_images")

NAMED = 'classes = ["sky", "road"]\n'
THREE = 'classes = ["sky", "road", "pole"]\n'
BACKGROUND = 'classes = ["background", "road"]\n'
IDS = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
OTHER = np.array([[1, 0, 1], [1, 1, 0]], np.uint8)
STRANGE = np.array([[7, 9, 9], [1, 0, 0]], np.uint8)
SOFT = np.concatenate([np.zeros(80), np.full(80, 255), np.arange(5, 255, 10)])[None]
HARD = np.where(SOFT > 100, 255, 0)
GOOD = {"train/a": IDS, "val/b": OTHER}


def bands(*ids: int, size: tuple[int, int] = (100, 100)) -> np.ndarray:
    """Return bands of equal height, one per id."""
    return np.repeat(np.array(ids), -(-size[0] // len(ids)))[: size[0], None].repeat(size[1], 1)


def spot(rows: int, columns: int, value: int, *ids: int) -> np.ndarray:
    """Return bands with another value in the upper left corner."""
    mask = bands(*ids)
    mask[:rows, :columns] = value
    return mask


def paste(root: Path, fix: str) -> None:
    """Do what a fix tells: add the lines after the first one to dataset.toml."""
    first, lines = fix.split("\n", 1)
    assert str(root / "dataset.toml") in first
    assert first.startswith("add to" if (root / "dataset.toml").is_file() else "write")
    with (root / "dataset.toml").open("a") as file:
        file.write(lines + "\n")


Make = Callable[[Path], object]


def on(masks: dict[str, np.ndarray], toml: str = NAMED) -> Make:
    return lambda root: write_pairs(root, masks, toml=toml)


def twice(mask: np.ndarray, toml: str = NAMED) -> Make:
    return on({"train/a": mask, "val/b": mask}, toml)


def good_and(file: str, size: tuple[int, int] = (2, 3), **options: Any) -> Make:
    """Return a function that writes good pairs and another image."""

    def make(root: Path) -> None:
        write_pairs(root, GOOD, toml=NAMED)
        save(root / file, noise(7, size), **options)

    return make


def good_without(file: str) -> Make:
    def make(root: Path) -> None:
        write_pairs(root, GOOD, toml=NAMED)
        (root / file).unlink()

    return make


def truncated(root: Path) -> None:
    write_pairs(root, GOOD, toml=NAMED)
    image = root / "images/train/a.png"
    image.write_bytes(image.read_bytes()[:60])
    (root / "masks/val/b.png").write_bytes(b"")


HALF = bands(0, 1)
SOFT_MASKS = {"train/a": SOFT, "train/c": HARD, "val/b": SOFT}
# fmt: off
FINDINGS: list[tuple[Make, str, str, str, tuple[str, ...], str]] = [
    (good_and("images/train/c.png"), "unpaired-image", "warning",
     "left out 1 image without a mask of the same name.", ("images/train/c.png",), "add masks"),
    (good_and("masks/val/d.png"), "unpaired-mask", "warning",
     "left out 1 mask without an image of the same name.", ("masks/val/d.png",), "add images"),
    (good_and("images/train/a.tif"), "doubled-stem", "error",
     "1 image has the same file name without extension", ("images/train/a.tif",),
     "keep one image per name"),
    (good_and("masks/train/a.tif"), "doubled-stem", "error",
     "1 mask has the same file name without extension", ("masks/train/a.tif",),
     "keep one mask per name"),
    (good_and("images/train/a.png", (5, 4)), "size", "error",
     "a.png has 5 x 4 pixels (height x width), its mask 2 x 3.", ("masks/train/a.png",),
     "export the masks again"),
    (good_and("images/train/a.png", exif=turned()), "size", "error", "is turned by 90 degrees",
     ("masks/train/a.png",), "export the masks again"),
    (truncated, "unreadable", "error", "2 files cannot be read; the first one: image ",
     ("images/train/a.png", "masks/val/b.png"), "copy or download"),
    (good_without("masks/val/b.png"), "empty-split", "warning",
     "the split 'val' has no image with a mask.", (), "add pairs to val"),
    (good_without("masks/train/a.png"), "empty-split", "error",
     "the split 'train' has no image with a mask.", (), "add pairs to train"),
    (on(GOOD, THREE), "absent-class", "warning", "1 of 3 classes never occurs: pole.", (),
     "no"),
    (on({"train/a": IDS * 0, "val/b": OTHER}), "class-not-in-train", "warning",
     "1 class occurs in val but not in train: road.", (), "move images"),
    (on({"train/a": OTHER, "val/b": IDS * 0}), "class-only-in-train", "note",
     "1 class occurs in train only, and will not be evaluated: road.", (), "move images"),
    (on({"train/a": IDS, "train/c": np.full_like(IDS, 255), "val/b": OTHER}), "all-ignored",
     "warning", "1 mask is entirely ignored", ("masks/train/c.png",), "remove them"),
    (twice(spot(34, 100, 255, 0, 1)), "void-share",
     "note", "34% of all pixels are ignored", (), "nothing, if"),
    (twice(spot(2, 100, 1, 0)), "imbalance", "note",
     "sky covers 98.0% of the labeled pixels of train.", (), "--class-weights balanced"),
    (twice(spot(1, 1, 2, 0, 1), THREE), "imbalance",
     "note", "1 class covers less than 0.02% of the labeled pixels of train: pole.", (),
     "look at the IoU"),
    (on({"train/a": bands(0), "train/b": HALF, "val/c": HALF}, BACKGROUND), "empty-mask", "note",
     "1 of 3 masks contains only background.", ("masks/train/a.png",), "nothing, if"),
    (on({"train/a": bands(0), "train/d": bands(0), "train/b": HALF}, BACKGROUND), "empty-mask",
     "warning", "2 of 3 masks contain only background.",
     ("masks/train/a.png", "masks/train/d.png"), "nothing, if"),
    (on({"train/a": bands(1), "train/b": HALF, "val/c": HALF}, BACKGROUND), "one-class-mask",
     "note", "1 mask contains one class only: road 1.", ("masks/train/a.png",), "nothing, if"),
    (on({"train/a": bands(0), "train/b": HALF, "val/c": HALF}), "one-class-mask", "note",
     "1 mask contains one class only: sky 1.", ("masks/train/a.png",), "nothing, if"),
    (on({"train/a": bands(0, 1, size=(40, 4097)), "val/b": bands(0, 1, size=(40, 4096))}),
     "huge-image", "note", "1 image has a side longer than 4096 pixels.", ("images/train/a.png",),
     "cut images and masks"),
    (on({"train/a": STRANGE, "val/b": OTHER}), "unknown-value", "error",
     "2 mask values have no class (25.00% of all pixels): 9 16.67%, 7 8.33%.",
     ("masks/train/a.png",), '9 = "ignore"'),
    *((on(SOFT_MASKS, toml), "soft-mask", "error",
       "2 of 3 masks have gray levels between black and white (27 levels in all masks)",
       ("masks/train/a.png", "masks/val/b.png"),  # not the hard one
       "with a threshold of ") for toml in ("", NAMED + '[map]\n255 = "road"')),
    (on({"train/a": np.random.default_rng(0).integers(0, 256, (8, 8, 3))}), "unknown-color",
     "error", "64 mask values have no class", ("masks/train/a.png",),
     "The 2 colors that were probably meant: #000000, #800000."),
]
# fmt: on


@pytest.mark.parametrize(("make", "rule", "level", "message", "files", "fix"), FINDINGS)
def test_findings(
    tmp_path: Path, make: Make, rule: str, level: str, message: str, files: tuple[str], fix: str
) -> None:
    make(tmp_path)
    finding = only(check(tmp_path), rule)
    assert (finding.level, finding.files) == (level, files)
    assert message in finding.message
    assert finding.message.endswith(".")
    assert fix in finding.fix


def test_tiny_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    tiny = {"train/a": bands(0, 1, size=(31, 60)), "val/b": bands(0, 1, size=(32, 60))}
    finding = only(check(write_pairs(tmp_path, tiny, toml=NAMED)), "tiny-image")
    assert (finding.level, finding.files) == ("note", ("images/train/a.png",))


COLORED = {name: np.repeat(mask[..., None] * 255, 3, 2) for name, mask in GOOD.items()}
FINE: list[Make] = [
    on(GOOD),
    on({"train/a": bands(0, 1, 255, 0), "val/b": bands(0, 1, 1, 0)}, BACKGROUND),
    twice(spot(33, 100, 255, 0, 1)),
    on(COLORED, NAMED + '[map]\n"#000000" = "sky"\n"#ffffff" = "road"'),
    good_and("images/train/a.png", (3, 2), exif=turned()),  # upright it is (2, 3)
]


@pytest.mark.parametrize("make", FINE, ids=["good", "ignored", "a third", "colors", "upright"])
def test_nothing_is_reported(tmp_path: Path, make: Make) -> None:
    make(tmp_path)
    report = check(tmp_path)
    assert report.findings == ()
    report.raise_for_errors()


def test_errors_come_before_warnings_before_notes(tmp_path: Path) -> None:
    masks = {"train/a": STRANGE % 8 * 2 % 11, "val/b": OTHER}
    toml = 'classes = ["sky", "road", "car", "tree"]'
    report = check(write_pairs(tmp_path, masks, toml=toml))
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels, key=("error", "warning", "note").index)
    assert len(set(levels)) > 1


# Fixes that are pasted.


def test_a_map_for_unknown_values(tmp_path: Path) -> None:
    write_pairs(tmp_path, {"train/a": STRANGE, "val/b": OTHER}, toml=NAMED)
    fix = only(check(tmp_path), "unknown-value").fix
    paste(tmp_path, fix.replace('9 = "ignore"', '9 = "road"'))
    report = check(tmp_path)
    assert not report.errors
    assert report.class_pixels["train"] == [2, 3]
    assert report.ignored_pixels == {"train": 1, "val": 0}


def test_a_repaired_copy_of_jpeg_masks(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:50, 10:40] = 255
    root = write_pairs(tmp_path / "data", {"train/a": mask, "val/b": mask.T}, suffix=".jpg")
    report = check(root)
    assert rules_of(report) == ["lossy-mask"]
    assert report.errors[0].files == ("masks/train/a.jpg", "masks/val/b.jpg")
    assert run(shlex.split(report.errors[0].fix.split("\n")[1])[1:]) == 0
    report = check(tmp_path / "data_fixed")
    assert report.findings == ()
    assert report.class_pixels["train"] == [64 * 64 - 900, 900]


@pytest.mark.parametrize("toml", ["", NAMED])
def test_a_class_for_white(tmp_path: Path, toml: str) -> None:
    write_pairs(tmp_path, {name: mask * 255 for name, mask in GOOD.items()}, toml=toml)
    (finding,) = check(tmp_path).errors
    assert finding.rule == "black-and-white"
    assert finding.files == ("masks/train/a.png", "masks/val/b.png")
    if not toml:
        assert 'classes = ["background", "object"]\n\n[map]\n255 = "object"' in finding.fix
    paste(tmp_path, finding.fix)
    report = check(tmp_path)
    assert report.findings == ()
    assert report.dataset.labels.names == (("sky", "road") if toml else ("background", "object"))
    assert report.class_pixels == {"train": [3, 3], "val": [2, 4]}


@pytest.mark.parametrize(
    ("toml", "is_error"),
    [('[map]\n255 = "ignore"', False), ('[colors]\nsky = "#0000ff"\nroad = "#804080"', True)],
)
def test_white_that_is_declared(tmp_path: Path, toml: str, is_error: bool) -> None:
    root = write_pairs(tmp_path, {"train/a": IDS * 255}, toml=NAMED + toml)
    assert ("black-and-white" in rules_of(check(root))) == is_error


def test_names_in_a_list_are_proposed_for_black_and_white(tmp_path: Path) -> None:
    masks = {f"train/{k}": 255 * (IDS if k % 2 else OTHER) for k in range(4)}
    root = write_pairs(tmp_path / "data", {**masks, "val/v": 255 * IDS})
    (root / "classes.txt").write_text("crack (old)\n")
    report = check(root)
    assert rules_of(report) == ["black-and-white"]
    first = report.text().splitlines()[0]
    assert first.endswith("class names from classes.txt: the rest is background)")
    assert "crack (old) (proposed)" in report.text()
    repair(report, tmp_path / "copy")
    paste(root, report.errors[0].fix)
    for folder in (tmp_path / "copy", root):
        report = check(folder)
        assert (report.errors, report.dataset.labels.names) == ((), ("background", "crack (old)"))


def test_a_table_for_colors(tmp_path: Path) -> None:
    colors = np.array([voc_color(0), voc_color(1), (1, 2, 3)], np.uint8)
    ids = np.array([[0, 1], [2, 2]])
    masks = {"train/a": colors[ids], "val/b": np.zeros((2, 2, 3))}
    report = check(write_pairs(tmp_path, masks))
    assert [finding.rule for finding in report.errors] == ["colors-without-table"]
    paste(tmp_path, report.errors[0].fix)
    report = check(tmp_path)
    assert report.errors == ()
    assert report.class_pixels == {"train": [1, 1, 2], "val": [4, 0, 0]}
    mask = tmp_path / "masks/train/a.png"
    assert read_mask(mask, report.dataset.labels).tolist() == ids.tolist()


def test_a_map_for_unknown_colors_includes_those_that_match_by_chance(tmp_path: Path) -> None:
    rgb = np.array([[(128, 0, 0), (1, 2, 3), (0, 0, 0), (0, 0, 0)]])  # palette: classes 1 and 0
    twice(rgb)(tmp_path)
    finding = only(check(tmp_path), "unknown-color")
    assert "1 mask value has no class (25.00% of all pixels): #010203" in finding.message
    assert '"#800000" = "road"' in finding.fix
    paste(tmp_path, finding.fix)
    assert check(tmp_path).errors == ()


def test_gaps_between_ids_are_closed(tmp_path: Path) -> None:
    write_pairs(tmp_path, {name: mask * 20 for name, mask in GOOD.items()})
    finding = only(check(tmp_path), "absent-class")
    assert "19 of 21 classes never occur: " in finding.message
    assert finding.message.endswith("The ids in the masks have gaps.")
    paste(tmp_path, finding.fix)
    report = check(tmp_path)
    assert report.findings == ()
    assert report.class_pixels["train"] == [3, 3]


def indexed(path: Path, ids: np.ndarray, colors: list[tuple[int, int, int]]) -> None:
    image = Image.fromarray(ids)
    image.putpalette([channel for color in colors for channel in color])
    image.save(path)


@pytest.mark.parametrize(
    ("second", "is_error"),
    [
        ([(0, 0, 0), (255, 0, 0)], False),
        ([(0, 0, 0), (0, 255, 0)], True),  # one index, two colors
        ([(255, 0, 0), (0, 0, 0)], True),  # one color, two indices
    ],
)
def test_palettes_that_disagree(
    tmp_path: Path, second: list[tuple[int, int, int]], is_error: bool
) -> None:
    write_pairs(tmp_path, {name: GOOD[name] for name in GOOD})
    for path, colors in zip(
        sorted(tmp_path.glob("masks/*/*.png")), ([(0, 0, 0), (255, 0, 0)], second), strict=True
    ):
        ids = values_with_ignored(path)
        indexed(path, ids, [*colors, *[(0, 0, 0)] * (256 - len(colors))])  # 255 is black, too
    report = check(tmp_path)
    assert ("palette-order" in rules_of(report)) == is_error
    if is_error:
        paste(tmp_path, only(report, "palette-order").fix)
        assert "palette-order" not in rules_of(check(tmp_path))


def values_with_ignored(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        ids = np.array(image)
    ids[0, 0] = 255
    return ids


def test_an_ignored_white_that_is_declared_is_no_question(tmp_path: Path) -> None:
    masks = {"train/a": IDS, "train/b": IDS * 255, "val/c": IDS}
    assert "mixed-white" in rules_of(check(write_pairs(tmp_path / "a", masks, toml=NAMED)))
    root = write_pairs(tmp_path / "b", masks, toml=f"{NAMED}ignore_index = 255\n")
    assert "mixed-white" not in rules_of(check(root))


def test_the_lines_for_masks_of_two_kinds_answer_the_question(tmp_path: Path) -> None:
    masks = {"train/a": IDS + OTHER, "train/b": IDS * 255, "val/c": IDS + OTHER}
    report = check(write_pairs(tmp_path, masks))
    assert rules_of(report)[0] == "mixed-white"
    paste(tmp_path, only(report, "mixed-white").fix)
    report = check(tmp_path)
    assert not report.errors
    assert report.dataset.labels.names == ("class 0", "class 1", "class 2")


def test_a_stray_value_leaves_the_question_of_white(tmp_path: Path) -> None:
    white = np.zeros((64, 64), np.uint8)
    white[9:30] = 255
    stray = white.copy()
    stray[0, 0] = 1
    report = check(write_pairs(tmp_path, {"train/a": white, "train/b": stray, "val/c": white.T}))
    assert "gray-levels" in rules_of(report)
