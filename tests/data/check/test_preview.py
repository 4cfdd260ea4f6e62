from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.check import preview
from fullconv.data.check.check import check
from fullconv.data.check.preview import save_preview
from fullconv.data.check.repair import repair
from fullconv.data.synthetic import scenes as drawn
from fullconv.visualization.overlay import NEUTRAL


def colors_of(path: Path) -> set[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return set(map(tuple, np.unique(pixels, axis=0).tolist()))


@dataclass
class Sheet:
    """The arguments of the contact sheets that were drawn."""

    captions: list[str] = field(default_factory=list)
    legends: list[dict[str, tuple[int, ...]]] = field(default_factory=list)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> Sheet:
    sheet, contact_sheet = Sheet(), preview.contact_sheet

    def record(rows: Any, titles: Any, captions: list[str], **options: Any) -> Image.Image:
        sheet.captions.extend(captions)
        sheet.legends.append(dict(options["legend"]))
        return contact_sheet(rows, titles, captions, **options)

    monkeypatch.setattr(preview, "contact_sheet", record)
    return sheet


def two_colors(root: Path, *, toml: str = 'classes = ["sky", "road"]\n', white: int = 1) -> Path:
    """Write two pairs: images of one color, and masks of class 0 above and `white` below."""
    values = np.zeros((240, 300), np.uint8)
    values[120:] = white
    for folder, content in (("images", np.full((240, 300, 3), PHOTO, np.uint8)), ("masks", values)):
        for name in "ab":
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    if toml:
        (root / "dataset.toml").write_text(toml)
    return root


PHOTO = (40, 101, 200)


def cells_of(path: Path) -> list[list[tuple[int, ...]]]:
    """Return the colors in the middle of both halves of each image of the first row."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    line = pixels[100]  # through all images, below the titles
    there = np.flatnonzero((line != 255).any(axis=1))
    starts = [int(there[0]), *(int(b) for a, b in pairwise(there) if b - a > 2)]
    return [[tuple(pixels[y, x + 150].tolist()) for y in (100, 230)] for x in starts]


def test_image_mask_and_overlay_are_side_by_side(tmp_path: Path, sheets: Sheet) -> None:
    path = tmp_path / "deep" / "sheet.png"
    save_preview(check(two_colors(tmp_path / "data")), path, findings=False)
    sky, road = (0, 0, 0), (128, 0, 0)
    over_sky = tuple((channel + 1) // 2 for channel in PHOTO)
    over_road = ((40 + 128 + 1) // 2, *over_sky[1:])
    assert cells_of(path) == [[PHOTO, PHOTO], [sky, road], [over_sky, over_road]]
    assert over_sky[1] == 51  # rounded up
    assert sheets.captions == ["train: a", "val: b"]
    assert sheets.legends == [{"sky": sky, "road": road}]


def test_the_legend_has_the_classes_on_the_sheet_and_ignored_pixels(
    tmp_path: Path, sheets: Sheet
) -> None:
    root = two_colors(tmp_path / "data", toml='classes = ["sky", "road", "car"]\n', white=255)
    save_preview(check(root), tmp_path / "a.png")
    assert sheets.legends == [{"sky": (0, 0, 0), "(ignored)": NEUTRAL}]
    root = two_colors(tmp_path / "strange", white=9)
    save_preview(check(root), tmp_path / "b.png")
    assert sheets.legends[1:] == [{"sky": (0, 0, 0), "(no class)": (255, 0, 255)}]
    assert cells_of(tmp_path / "b.png")[1] == [(0, 0, 0), (255, 0, 255)]


BLACK, RED = (0, 0, 0), (128, 0, 0)
OVER_RED = tuple((a + b + 1) // 2 for a, b in zip(PHOTO, RED, strict=True))


def test_a_black_background_is_transparent(tmp_path: Path, sheets: Sheet) -> None:
    root = two_colors(tmp_path / "data", toml='classes = ["background", "crack"]\n')
    save_preview(check(root), tmp_path / "a.png")
    assert cells_of(tmp_path / "a.png") == [[PHOTO, PHOTO], [BLACK, RED], [PHOTO, OVER_RED]]
    assert sheets.legends == [{"background": BLACK, "crack": RED}]
    # The first row of the crack is its outline.
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    column = pixels[:, np.flatnonzero((pixels == OVER_RED).all(axis=2).any(axis=0))[-1]]
    first = int(np.flatnonzero((column == OVER_RED).all(axis=1))[0])
    assert [tuple(column[y].tolist()) for y in (first - 2, first - 1)] == [PHOTO, RED]
    toml = 'classes = ["background", "crack"]\n[colors]\nbackground = "#0000ff"\n'
    save_preview(check(two_colors(tmp_path / "blue", toml=toml)), tmp_path / "b.png")
    over = tuple((a + b + 1) // 2 for a, b in zip(PHOTO, (0, 0, 255), strict=True))
    assert cells_of(tmp_path / "b.png")[-1] == [over, OVER_RED]


def test_grays_that_the_table_lists_as_colors_are_drawn_as_their_classes(
    tmp_path: Path, sheets: Sheet
) -> None:
    root = two_colors(tmp_path / "data", toml="", white=128)
    for path in (root / "masks").iterdir():
        Image.open(path).convert("RGB").save(path)
    (root / "classes.txt").write_text("0 0 0 sky\n128 128 128 road\n")
    save_preview(check(root), tmp_path / "sheet.png", findings=False)
    assert sheets.legends == [{"sky": (0, 0, 0), "road": (128, 128, 128)}]


@pytest.mark.parametrize("blurred", [False, True])
def test_black_and_white_is_drawn_in_the_proposed_colors(
    tmp_path: Path, sheets: Sheet, blurred: bool
) -> None:
    """They are the colors of a repaired copy."""
    root = two_colors(tmp_path / "data", toml="", white=255)
    for mask in (root / "masks").iterdir() if blurred else ():
        values = np.array(Image.open(mask))
        values[115:125] = np.linspace(12, 243, 10).round()[:, None]
        Image.fromarray(values).save(mask)
    report = check(root)
    save_preview(report, tmp_path / "a.png")
    assert sheets.legends == [{"background (proposed)": BLACK, "object (proposed)": RED}]
    assert cells_of(tmp_path / "a.png") == [[PHOTO, PHOTO], [BLACK, RED], [PHOTO, OVER_RED]]
    assert {meaning.color for meaning in report.meanings} == {BLACK, RED}
    repair(report, tmp_path / "fixed")
    save_preview(check(tmp_path / "fixed"), tmp_path / "b.png", findings=False)
    assert sheets.legends[1] == {"background": BLACK, "object": RED}
    assert cells_of(tmp_path / "b.png") == cells_of(tmp_path / "a.png")


def test_findings_come_first_and_no_pair_twice(tmp_path: Path, sheets: Sheet) -> None:
    """There are two rows for each finding, one for a pair in two findings, and six others."""
    root = drawn.write(tmp_path / "data", train=12, val=2, test=1, size=(48, 64))
    masks = sorted((root / "masks" / "train").iterdir())
    for number, mask in enumerate(masks[:5]):
        ids = np.array(Image.open(mask))
        ids[:20] = 77
        image = Image.fromarray(ids)
        image.putpalette([0] * 768)
        image.save(mask)
        if number == 1:
            pair = root / "images/val/street_0000.jpg"
            (root / "images/train" / f"{mask.stem}.jpg").write_bytes(pair.read_bytes())
    report = check(root)
    assert [finding.rule for finding in report.findings] == ["unknown-value", "leak"]
    save_preview(report, tmp_path / "a.png")
    assert sheets.captions[:3] == [
        "error unknown-value: train/street_0000",
        "error unknown-value, warning leak: train/street_0001",
        "warning leak: val/street_0000",
    ]
    assert len(sheets.captions) == 9
    names = [caption.rpartition("/")[2].rpartition(" ")[2] for caption in sheets.captions]
    assert len({(c.split(": ")[-1], n) for c, n in zip(sheets.captions, names, strict=True)}) == 9
    assert all(not caption.startswith(("error", "warning")) for caption in sheets.captions[3:])
    sheets.captions.clear()
    save_preview(report, tmp_path / "b.png", findings=False)
    assert len(sheets.captions) == 6
    assert (sheets.captions[0], sheets.captions[-1]) == ("train: street_0000", "test: street_0000")


@pytest.mark.parametrize("size", [(40, 500), (500, 40), (240, 320), (9, 7)])
def test_a_preview_is_not_too_high(tmp_path: Path, size: tuple[int, int]) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(12):
            ids = np.indices(size)[1] % 2
            Image.fromarray(ids.astype(np.uint8)).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "dataset.toml").write_text('classes = ["a", "b"]\n')
    save_preview(check(tmp_path), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height < 2400  # 12 rows of the highest images would be 6000


@pytest.mark.parametrize("kind", ["colors", "ids"])
def test_masks_without_a_meaning_keep_their_colors(tmp_path: Path, kind: str) -> None:
    values = np.zeros((40, 50, 3), np.uint8)
    values[:20] = {"colors": (200, 30, 90), "ids": 3}[kind]
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            content = values if kind == "colors" or folder == "images" else values[..., 0]
            Image.fromarray(content).save(tmp_path / folder / f"{name}.png")
    save_preview(check(tmp_path), tmp_path / "sheet.png")
    wanted = {"colors": (200, 30, 90), "ids": (128, 128, 0)}[kind]
    assert wanted in colors_of(tmp_path / "sheet.png")


def test_an_image_and_a_mask_of_another_size_are_drawn(tmp_path: Path) -> None:
    root = drawn.write(tmp_path / "data", train=1, val=1, test=1, size=(48, 64))
    mask = root / "masks" / "train" / "street_0000.png"
    Image.open(mask).resize((32, 24), Image.Resampling.NEAREST).save(mask)
    save_preview(check(root), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_errors(scenes: Path, tmp_path: Path) -> None:
    report = check(scenes)
    with pytest.raises(FullconvError, match=r"written as PNG, not as 'a\.jpg'") as caught:
        save_preview(report, tmp_path / "a.jpg")
    assert caught.value.hint == "--preview a.png"
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError, match="the preview cannot be written to") as caught:
        save_preview(report, tmp_path / "file" / "a.png")
    root = drawn.write(tmp_path / "data", train=1, val=1, test=1, size=(48, 64))
    for image in root.glob("images/*/*"):
        image.write_bytes(b"")
    with pytest.raises(FullconvError, match=r"no pair of .* can be drawn: .*file is empty"):
        save_preview(check(root), tmp_path / "a.png")
    mask = scenes / "masks/train/street_0000.png"
    before = mask.read_bytes()
    with pytest.raises(FullconvError, match="is a file of the dataset; a preview would overwrite"):
        save_preview(report, mask)
    assert mask.read_bytes() == before
