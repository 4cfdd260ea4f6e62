from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import save, write_pairs
from PIL import Image

from fullconv.core.errors import FullconvError
from fullconv.data.check import preview
from fullconv.data.check.check import check
from fullconv.data.check.preview import save_preview
from fullconv.data.check.repair import repair
from fullconv.data.io.masks import read_values
from fullconv.data.synthetic import scenes as synthetic
from fullconv.visualization.overlay import NEUTRAL

Color = tuple[int, ...]
PHOTO, BLACK, RED, BLUE = (40, 101, 200), (0, 0, 0), (128, 0, 0), (0, 0, 255)
TOML = 'classes = ["sky", "road"]\n'


class Sheets:
    """The captions and legends of the contact sheets that were made."""

    def __init__(self) -> None:
        self.captions: list[str] = []
        self.legends: list[dict[str, Color]] = []


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> Sheets:
    sheets, contact_sheet = Sheets(), preview.contact_sheet

    def record(rows: Any, titles: Any, captions: list[str], **options: Any) -> Image.Image:
        sheets.captions.extend(captions)
        sheets.legends.append(dict(options["legend"]))
        return contact_sheet(rows, titles, captions, **options)

    monkeypatch.setattr(preview, "contact_sheet", record)
    return sheets


def over(color: Color) -> Color:
    """Return a color over the photo, rounded up."""
    return tuple((a + b + 1) // 2 for a, b in zip(PHOTO, color, strict=True))


def two_colors(root: Path, *, toml: str = TOML, white: int = 1) -> Path:
    """Write two pairs: images of one color, and masks of class 0 above and `white` below."""
    mask = np.repeat((0, white), 120)[:, None].repeat(300, 1)
    write_pairs(root, {"a": mask, "b": mask}, toml=toml)
    for name in "ab":
        save(root / f"images/{name}.png", np.full((240, 300, 3), PHOTO))
    return root


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def cells_of(path: Path) -> list[list[Color]]:
    """Return the colors in the middle of both halves of each image of the first row."""
    pixels = pixels_of(path)
    columns = np.flatnonzero((pixels[100] != 255).any(axis=1))  # of all images, below the titles
    starts = [int(columns[0]), *(int(b) for a, b in pairwise(columns) if b - a > 2)]
    return [[tuple(pixels[y, x + 150].tolist()) for y in (100, 230)] for x in starts]


def test_image_mask_and_overlay_are_side_by_side(tmp_path: Path, sheets: Sheets) -> None:
    path = tmp_path / "deep" / "sheet.png"
    save_preview(check(two_colors(tmp_path / "data")), path, findings=False)
    assert cells_of(path) == [[PHOTO, PHOTO], [BLACK, RED], [over(BLACK), over(RED)]]
    assert over(BLACK)[1] == 51
    assert sheets.captions == ["train: a", "val: b"]
    assert sheets.legends == [{"sky": BLACK, "road": RED}]


def test_the_legend_has_the_classes_on_the_sheet_and_ignored_pixels(
    tmp_path: Path, sheets: Sheets
) -> None:
    root = two_colors(tmp_path / "data", toml='classes = ["sky", "road", "car"]\n', white=255)
    save_preview(check(root), tmp_path / "a.png")
    assert sheets.legends == [{"sky": BLACK, "(ignored)": NEUTRAL}]
    root = two_colors(tmp_path / "strange", white=9)
    save_preview(check(root), tmp_path / "b.png")
    assert sheets.legends[1:] == [{"sky": BLACK, "(no class)": (255, 0, 255)}]
    assert cells_of(tmp_path / "b.png")[1] == [BLACK, (255, 0, 255)]


def test_a_black_background_is_transparent(tmp_path: Path, sheets: Sheets) -> None:
    toml = 'classes = ["background", "crack"]\n'
    save_preview(check(two_colors(tmp_path / "data", toml=toml)), tmp_path / "a.png")
    assert cells_of(tmp_path / "a.png") == [[PHOTO, PHOTO], [BLACK, RED], [PHOTO, over(RED)]]
    assert sheets.legends == [{"background": BLACK, "crack": RED}]
    # The first row of the crack is its outline.
    pixels = pixels_of(tmp_path / "a.png")
    column = pixels[:, np.flatnonzero((pixels == over(RED)).all(axis=2).any(axis=0))[-1]]
    first = int(np.flatnonzero((column == over(RED)).all(axis=1))[0])
    assert [tuple(column[y].tolist()) for y in (first - 2, first - 1)] == [PHOTO, RED]
    toml += '[colors]\nbackground = "#0000ff"\n'
    save_preview(check(two_colors(tmp_path / "blue", toml=toml)), tmp_path / "b.png")
    assert cells_of(tmp_path / "b.png")[-1] == [over(BLUE), over(RED)]


def test_grays_that_the_table_lists_as_colors_are_drawn_as_their_classes(
    tmp_path: Path, sheets: Sheets
) -> None:
    root = two_colors(tmp_path / "data", toml="", white=128)
    for path in (root / "masks").iterdir():
        Image.open(path).convert("RGB").save(path)
    (root / "classes.txt").write_text("0 0 0 sky\n128 128 128 road\n")
    save_preview(check(root), tmp_path / "sheet.png", findings=False)
    assert sheets.legends == [{"sky": BLACK, "road": (128, 128, 128)}]


@pytest.mark.parametrize("blurred", [False, True])
def test_black_and_white_is_drawn_in_the_proposed_colors(
    tmp_path: Path, sheets: Sheets, blurred: bool
) -> None:
    """They are the colors of a repaired copy."""
    root = two_colors(tmp_path / "data", toml="", white=255)
    for mask in (root / "masks").iterdir() if blurred else ():
        values = read_values(mask).copy()
        values[115:125] = np.linspace(12, 243, 10).round()[:, None]
        save(mask, values)
    report = check(root)
    save_preview(report, tmp_path / "a.png")
    assert sheets.legends == [{"background (proposed)": BLACK, "object (proposed)": RED}]
    assert cells_of(tmp_path / "a.png") == [[PHOTO, PHOTO], [BLACK, RED], [PHOTO, over(RED)]]
    assert {meaning.color for meaning in report.meanings} == {BLACK, RED}
    repair(report, tmp_path / "fixed")
    save_preview(check(tmp_path / "fixed"), tmp_path / "b.png", findings=False)
    assert sheets.legends[1] == {"background": BLACK, "object": RED}
    assert cells_of(tmp_path / "b.png") == cells_of(tmp_path / "a.png")


def test_findings_come_first_and_no_pair_twice(tmp_path: Path, sheets: Sheets) -> None:
    """There are two rows for each finding, one for a pair in two findings, and six others."""
    root = synthetic.write(tmp_path / "data", train=12, val=2, test=1, size=(48, 64))
    masks = sorted((root / "masks" / "train").iterdir())
    for mask in masks[:5]:
        ids = read_values(mask).copy()
        ids[:20] = 77
        save(mask, ids)
    leak = (root / "images/val/street_0000.jpg").read_bytes()
    (root / "images/train" / f"{masks[1].stem}.jpg").write_bytes(leak)
    report = check(root)
    assert [finding.rule for finding in report.findings] == ["unknown-value", "leak"]
    save_preview(report, tmp_path / "a.png")
    assert sheets.captions[:3] == [
        "error unknown-value: train/street_0000",
        "error unknown-value, warning leak: train/street_0001",
        "warning leak: val/street_0000",
    ]
    pairs = [tuple(re.split(r"/|: ", caption)[-2:]) for caption in sheets.captions]
    assert len(set(pairs)) == len(pairs) == 9
    assert all(not caption.startswith(("error", "warning")) for caption in sheets.captions[3:])
    sheets.captions.clear()
    save_preview(report, tmp_path / "b.png", findings=False)
    assert len(sheets.captions) == 6
    assert (sheets.captions[0], sheets.captions[-1]) == ("train: street_0000", "test: street_0000")


@pytest.mark.parametrize("size", [(40, 500), (500, 40), (240, 320), (9, 7)])
def test_a_preview_is_not_too_high(tmp_path: Path, size: tuple[int, int]) -> None:
    masks = dict.fromkeys(map(str, range(12)), np.indices(size)[1] % 2)
    save_preview(check(write_pairs(tmp_path, masks, toml=TOML)), tmp_path / "sheet.png")
    assert len(pixels_of(tmp_path / "sheet.png")) < 2400  # 12 rows of 500 pixels would be 6000


@pytest.mark.parametrize(
    ("value", "color"), [((200, 30, 90), (200, 30, 90)), (3, (128, 128, 0))], ids=["color", "id"]
)
def test_masks_without_a_meaning_keep_their_colors(
    tmp_path: Path, value: Any, color: Color
) -> None:
    mask = np.zeros((40, 50, *np.shape(value)))
    mask[:20] = value
    save_preview(check(write_pairs(tmp_path, {"a": mask, "b": mask})), tmp_path / "sheet.png")
    assert (pixels_of(tmp_path / "sheet.png") == color).all(axis=2).any()


def test_an_image_and_a_mask_of_another_size_are_drawn(tmp_path: Path) -> None:
    root = two_colors(tmp_path / "data")
    save(root / "masks/a.png", np.zeros((24, 32)))
    save_preview(check(root), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_errors(tmp_path: Path) -> None:
    root = two_colors(tmp_path / "data")
    report = check(root)
    with pytest.raises(FullconvError, match=r"written as PNG, not as 'a\.jpg'") as caught:
        save_preview(report, tmp_path / "a.jpg")
    assert caught.value.hint == "--preview a.png"
    (tmp_path / "file").touch()
    with pytest.raises(FullconvError, match="the preview cannot be written to"):
        save_preview(report, tmp_path / "file" / "a.png")
    before = (root / "masks/a.png").read_bytes()
    with pytest.raises(FullconvError, match="is a file of the dataset; a preview would overwrite"):
        save_preview(report, root / "masks/a.png")
    assert (root / "masks/a.png").read_bytes() == before
    for image in root.glob("images/*"):
        image.write_bytes(b"")
    with pytest.raises(FullconvError, match=r"no pair of .* can be drawn: .*file is empty"):
        save_preview(check(root), tmp_path / "a.png")
