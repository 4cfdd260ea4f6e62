"""Each rule on drawn data that breaks it, and each fix for the class table pasted and tried."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.cli.main import run
from fullconv.core.labels import voc_color
from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.finding import Finding
from fullconv.data.check.repair import repair
from fullconv.data.io.masks import read_mask

pytestmark = pytest.mark.usefixtures("small_images")

NAMED = 'classes = ["sky", "road"]\n'
IDS = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
OTHER = np.array([[1, 0, 1], [1, 1, 0]], np.uint8)


def photo(seed: int, size: tuple[int, int] = (2, 3)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(pixels)


def draw(root: Path, masks: dict[str, object], *, toml: str = NAMED, suffix: str = ".png") -> Path:
    """A pair per mask, by "split/stem", as images/split/stem.png and masks/split/stem.png."""
    for number, (name, values) in enumerate(masks.items()):
        image = Image.fromarray(values) if isinstance(values, np.ndarray) else values
        for folder, content, end in (
            ("images", photo(number, image.size[::-1]), ".png"),  # type: ignore[attr-defined]
            ("masks", image, suffix),
        ):
            path = root / folder / (name + end)
            path.parent.mkdir(parents=True, exist_ok=True)
            content.save(path)
    if toml:
        (root / "dataset.toml").write_text(toml)
    return root


def good(root: Path, **options: str) -> Path:
    return draw(root, {"train/a": IDS, "val/b": OTHER}, **options)


def only(report: CheckReport, rule: str) -> Finding:
    found = [finding for finding in report.findings if finding.rule == rule]
    assert len(found) == 1, report.text()
    return found[0]


def rules(report: CheckReport) -> list[str]:
    return [finding.rule for finding in report.findings]


def paste(root: Path, fix: str) -> None:
    """Do what the fix says: its lines after the first into dataset.toml."""
    first, lines = fix.split("\n", 1)
    assert str(root / "dataset.toml") in first
    assert first.startswith("add to" if (root / "dataset.toml").is_file() else "write")
    with (root / "dataset.toml").open("a") as file:
        file.write(lines + "\n")


def test_a_good_data_set_has_no_finding(tmp_path: Path) -> None:
    report = check(good(tmp_path))
    assert report.findings == ()
    report.raise_for_errors()


def test_unpaired_files_are_warned_of(tmp_path: Path) -> None:
    good(tmp_path)
    photo(7).save(tmp_path / "images/train/c.png")
    Image.fromarray(IDS).save(tmp_path / "masks/val/d.png")
    report = check(tmp_path)
    assert rules(report) == ["unpaired-image", "unpaired-mask"]
    assert [finding.level for finding in report.findings] == ["warning", "warning"]
    assert only(report, "unpaired-image").files == ("images/train/c.png",)
    assert only(report, "unpaired-mask").files == ("masks/val/d.png",)
    assert "left out: 1 image without a mask" in only(report, "unpaired-image").message


def test_doubled_stems_are_an_error(tmp_path: Path) -> None:
    good(tmp_path)
    photo(7).save(tmp_path / "images/train/a.tif")
    report = check(tmp_path)
    assert rules(report) == ["doubled-stem"]
    assert report.errors[0].files == ("images/train/a.tif",)
    assert report.errors[0].fix == "keep one image file per name"


def test_sizes_must_agree(tmp_path: Path) -> None:
    good(tmp_path)
    photo(7, (5, 4)).save(tmp_path / "images/train/a.png")
    finding = only(check(tmp_path), "size")
    assert finding.level == "error"
    assert "a.png has 5 x 4 pixels (height x width), its mask 2 x 3" in finding.message
    assert "turned" not in finding.message
    assert finding.files == ("masks/train/a.png",)


def test_sizes_are_compared_upright(tmp_path: Path) -> None:
    good(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(7, (3, 2)).save(tmp_path / "images/train/a.png", exif=exif)  # upright it is (2, 3)
    assert check(tmp_path).findings == ()
    photo(7, (2, 3)).save(tmp_path / "images/train/a.png", exif=exif)
    assert "turned by 90 degrees: the photo has an EXIF" in only(check(tmp_path), "size").message


def test_unknown_values_get_a_map_to_paste(tmp_path: Path) -> None:
    strange = IDS.copy()
    strange[0] = (7, 9, 9)
    draw(tmp_path, {"train/a": strange, "val/b": OTHER})
    report = check(tmp_path)
    finding = only(report, "unknown-value")
    assert (
        "2 mask values have no class (25.00% of all pixels): 9 16.67%, 7 8.33%" in finding.message
    )
    assert finding.files == ("masks/train/a.png",)
    paste(tmp_path, finding.fix.replace('9 = "ignore"', '9 = "road"'))
    report = check(tmp_path)
    assert not report.errors
    assert report.class_pixels["train"] == [2, 3]
    assert report.ignored_pixels == {"train": 1, "val": 0}


def test_jpeg_masks_are_an_error_and_the_fix_makes_masks_that_pass(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:50, 10:40] = 255
    root = tmp_path / "data"
    draw(root, {"train/a": mask, "val/b": mask.T.copy()}, toml="", suffix=".jpg")
    report = check(root)
    assert rules(report) == ["lossy-mask"]
    finding = report.errors[0]
    assert finding.files == ("masks/train/a.jpg", "masks/val/b.jpg")
    assert run(shlex.split(finding.fix.split("\n")[1])[1:]) == 0
    report = check(tmp_path / "data_fixed")
    assert report.findings == ()
    assert report.class_pixels["train"] == [64 * 64 - 900, 900]


@pytest.mark.parametrize("toml", ["", NAMED])
def test_black_and_white_masks_are_an_error_with_a_fix_that_works(
    tmp_path: Path, toml: str
) -> None:
    draw(tmp_path, {"train/a": IDS * 255, "val/b": OTHER * 255}, toml=toml)
    report = check(tmp_path)
    assert [finding.rule for finding in report.errors] == ["black-and-white"]
    finding = report.errors[0]
    assert finding.files == ("masks/train/a.png", "masks/val/b.png")
    if not toml:
        assert 'classes = ["background", "object"]\n\n[map]\n255 = "object"' in finding.fix
    paste(tmp_path, finding.fix)
    report = check(tmp_path)
    assert report.findings == ()
    assert report.class_pixels == {"train": [3, 3], "val": [2, 4]}


def test_255_that_is_told_to_be_ignore_is_no_error(tmp_path: Path) -> None:
    draw(tmp_path, {"train/a": IDS * 255}, toml=NAMED + '[map]\n255 = "ignore"')
    assert "black-and-white" not in rules(check(tmp_path))


def test_colours_for_drawing_do_not_make_black_and_white_right(tmp_path: Path) -> None:
    toml = NAMED + '[colors]\nsky = "#0000ff"\nroad = "#804080"'
    draw(tmp_path, {"train/a": IDS * 255}, toml=toml)
    assert "black-and-white" in rules(check(tmp_path))


def test_black_and_white_rgb_with_a_colour_table_is_right(tmp_path: Path) -> None:
    rgb = np.repeat(IDS[..., None] * 255, 3, 2)
    toml = NAMED + '[map]\n"#000000" = "sky"\n"#ffffff" = "road"'
    report = check(draw(tmp_path, {"train/a": rgb, "val/b": rgb}, toml=toml))
    assert report.errors == ()
    assert report.class_pixels["train"] == [3, 3]


@pytest.mark.parametrize("toml", ["", NAMED + '[map]\n255 = "road"'])
def test_soft_masks_are_an_error(tmp_path: Path, toml: str) -> None:
    soft = np.concatenate([np.zeros(80), np.full(80, 255), np.arange(5, 255, 10)])
    soft = soft.astype(np.uint8)[None]
    report = check(draw(tmp_path, {"train/a": soft, "val/b": soft}, toml=toml))
    assert [finding.rule for finding in report.errors] == ["soft-mask"]
    assert "anti-aliased" in report.errors[0].message
    command = shlex.split(report.errors[0].fix.split("\n")[1])
    assert command == ["fullconv", "check", str(tmp_path), "--fix", f"{tmp_path}_fixed"]


def test_names_in_a_list_are_those_of_black_and_white(tmp_path: Path) -> None:
    """From the list to the table to paste, the repaired copy and what `check` says of both."""
    masks = {f"train/{k}": 255 * (IDS if k % 2 else OTHER) for k in range(4)}
    root = draw(tmp_path / "data", {**masks, "val/v": 255 * IDS}, toml="")
    (root / "classes.txt").write_text("crack (old)\n")
    report = check(root)
    assert rules(report) == ["black-and-white"]
    first = report.text().splitlines()[0]
    assert first.endswith("class names from classes.txt: the rest is background)")
    assert "crack (old) (proposed)" in report.text()
    repair(report, tmp_path / "copy")
    assert check(tmp_path / "copy").dataset.labels.names == ("background", "crack (old)")
    paste(root, report.errors[0].fix)
    assert check(root).errors == ()
    assert check(root).dataset.labels.names == ("background", "crack (old)")


def test_colours_without_a_table_get_one_to_paste(tmp_path: Path) -> None:
    colors = np.array([voc_color(0), voc_color(1), (1, 2, 3)], np.uint8)
    ids = np.array([[0, 1], [2, 2]])
    black = np.zeros((2, 2, 3), np.uint8)  # a grey image among coloured ones
    draw(tmp_path, {"train/a": colors[ids], "val/b": black}, toml="")
    report = check(tmp_path)
    assert [finding.rule for finding in report.errors] == ["colors-without-table"]
    paste(tmp_path, report.errors[0].fix)
    report = check(tmp_path)
    assert report.errors == ()
    assert report.class_pixels == {"train": [1, 1, 2], "val": [4, 0, 0]}
    mask = tmp_path / "masks/train/a.png"
    assert read_mask(mask, report.dataset.labels).tolist() == ids.tolist()


def test_unknown_colours_show_those_that_match_by_chance_too(tmp_path: Path) -> None:
    rgb = np.array([[(128, 0, 0), (1, 2, 3)]], np.uint8)  # the palette's colour of class 1
    draw(tmp_path, {"train/a": rgb, "val/b": rgb})
    finding = only(check(tmp_path), "unknown-color")
    assert "1 mask value has no class (50.00% of all pixels): #010203" in finding.message
    assert '"#800000" = "road"' in finding.fix
    paste(tmp_path, finding.fix)
    assert check(tmp_path).errors == ()


def test_many_unknown_colours_are_not_snapped(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    draw(tmp_path, {"train/a": rgb}, toml=NAMED)
    finding = only(check(tmp_path), "unknown-color")
    assert "without anti-aliasing" in finding.fix
    assert "Meant are probably 2: #000000, #800000." in finding.fix
    assert finding.fix.endswith(f"fullconv check {tmp_path} --fix {tmp_path}_fixed")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    good(tmp_path)
    image, mask = tmp_path / "images/train/a.png", tmp_path / "masks/val/b.png"
    image.write_bytes(image.read_bytes()[:60])
    mask.write_bytes(b"")
    finding = only(check(tmp_path), "unreadable")
    assert finding.level == "error"
    assert finding.files == ("images/train/a.png", "masks/val/b.png")
    assert "2 files cannot be read: image" in finding.message


def test_classes_that_never_occur_are_a_warning(tmp_path: Path) -> None:
    report = check(good(tmp_path, toml='classes = ["sky", "road", "car"]'))
    assert rules(report) == ["absent-class"]
    assert report.warnings[0].message == "1 of 3 classes never occurs: car"


def test_gaps_between_made_up_ids_can_be_closed(tmp_path: Path) -> None:
    draw(tmp_path, {"train/a": IDS * 128, "val/b": OTHER * 128}, toml="")
    report = check(tmp_path)
    finding = only(report, "absent-class")
    assert "127 of 129 classes never occur: the ids in the masks have gaps" in finding.message
    paste(tmp_path, finding.fix)
    report = check(tmp_path)
    assert report.findings == ()
    assert report.class_pixels["train"] == [3, 3]


def test_classes_in_one_split_only(tmp_path: Path) -> None:
    draw(tmp_path, {"train/a": IDS * 0, "val/b": OTHER})
    report = check(tmp_path)
    assert rules(report) == ["class-not-in-train", "one-class-mask"]
    assert "1 class occurs in val but not in train: road" in report.warnings[0].message
    draw(tmp_path, {"train/a": OTHER, "val/b": IDS * 0})
    report = check(tmp_path)
    assert rules(report) == ["class-only-in-train", "one-class-mask"]
    assert report.findings[0].level == "note"


def test_masks_that_are_all_ignored_are_a_warning(tmp_path: Path) -> None:
    blank = np.full_like(IDS, 255)
    report = check(draw(tmp_path, {"train/a": IDS, "train/c": blank, "val/b": OTHER}))
    assert rules(report) == ["all-ignored"]
    assert report.warnings[0].files == ("masks/train/c.png",)


def test_an_empty_split_is_found(tmp_path: Path) -> None:
    good(tmp_path)
    (tmp_path / "masks/val/b.png").unlink()
    report = check(tmp_path)
    assert only(report, "empty-split").level == "warning"
    assert only(report, "unpaired-image").files == ("images/val/b.png",)
    good(tmp_path)
    (tmp_path / "masks/train/a.png").unlink()
    assert only(check(tmp_path), "empty-split").level == "error"


def test_errors_stand_before_warnings_before_notes(tmp_path: Path) -> None:
    strange = np.array([[0, 1, 9], [2, 0, 0]], np.uint8)
    toml = 'classes = ["sky", "road", "car", "tree"]'
    report = check(draw(tmp_path, {"train/a": strange, "val/b": OTHER}, toml=toml))
    levels = [finding.level for finding in report.findings]
    assert levels == ["error", "warning", "note"]
